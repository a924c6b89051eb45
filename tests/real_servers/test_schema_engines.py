"""The planner's schema in the engines of llama.cpp and of vLLM and SGLang (xgrammar)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from planloom.planner.syntax.joiner import JOIN_SCHEMA
from planloom.planner.syntax.plan_schema import plan_schema
from planloom.planner.syntax.strict_schema import strict_form
from tests.real_servers.conftest import ENVIRONMENT, missing
from tests.support.gbnf import Grammar
from tests.support.llama_converter import PLACE, gbnf_of
from tests.support.planner_plans import BAD, GOOD, SCHEMA, TOOLS, strict_plan

STRICT = strict_form(plan_schema(TOOLS[:-1], agents=["researcher"]))
FINISH = {"action": "finish", "answer": {"n": [1]}}


def _gbnf(schema: dict[str, Any]) -> Grammar:
    text = gbnf_of(schema)
    if text is None:
        missing(f"llama.cpp's converter is not in {PLACE.parent}: make converters")
    assert text is not None
    return Grammar(text)


def _xgrammar(schema: dict[str, Any], documents: list[Any]) -> list[bool]:
    python = ENVIRONMENT / "bin" / "python"
    script = Path(__file__).with_name("xgrammar_admits.py")
    if not python.exists():
        missing(f"xgrammar is not in {ENVIRONMENT}: make test-servers installs it")
    texts = [json.dumps(d, ensure_ascii=False) for d in documents]
    asked = json.dumps({"schema": schema, "documents": texts})
    done = subprocess.run([python, script], input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    said: list[bool] = json.loads(done.stdout)
    return said


def test_llama_cpps_converter_takes_the_schema_and_admits_a_full_plan() -> None:
    grammar = _gbnf(SCHEMA)
    for document in GOOD.values():
        assert grammar.accepts(json.dumps(document, ensure_ascii=False))
    for name, document in BAD.items():
        assert not grammar.accepts(json.dumps(document)), name


def test_llama_cpps_converter_takes_the_strict_form_and_the_joiners_schema() -> None:
    assert STRICT is not None
    assert _gbnf(STRICT).accepts(json.dumps(strict_plan()))
    assert _gbnf(dict(JOIN_SCHEMA)).accepts(json.dumps(FINISH))


def test_xgrammar_takes_the_schema_and_admits_a_full_plan() -> None:
    said = _xgrammar(SCHEMA, [*GOOD.values(), *BAD.values()])
    right = [True] * len(GOOD) + [False] * len(BAD)
    assert dict(zip([*GOOD, *BAD], said, strict=True)) == dict(
        zip([*GOOD, *BAD], right, strict=True)
    )


@pytest.mark.parametrize(
    ("schema", "document"),
    [(STRICT, strict_plan()), (dict(JOIN_SCHEMA), FINISH)],
    ids=["strict", "joiner"],
)
def test_xgrammar_takes_the_strict_form_and_the_joiners_schema(
    schema: dict[str, Any], document: dict[str, Any]
) -> None:
    assert _xgrammar(schema, [document, {"nothing": "of it"}]) == [True, False]

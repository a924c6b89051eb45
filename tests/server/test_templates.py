"""Every template that ships runs to an answer on a real server."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from planloom import planner
from planloom.planner.compile.templates import check_declared
from planloom.planner.syntax.documents import read_plan
from tests.support.harness import Planloom

LIBRARY = Path(planner.__file__).parent / "library"
TEMPLATES = sorted(p.stem for p in (LIBRARY / "templates").glob("*.yaml"))

PARAMS: dict[str, dict[str, Any]] = {
    "weather-report": {},
    "data-report": {"source": "seattle-weather.csv", "column": "weather"},
    "codebase-survey": {"path": "code"},
    "research-brief": {"topic": "tides"},
    "compare-options": {"options": ["train", "plane"], "purpose": "a trip"},
    "document-qa": {"question": "Who wrote it?", "path": "docs"},
    "map-reduce-summary": {"paths": ["docs/a.md", "docs/b.md"]},
}


def test_every_template_has_parameters_for_this_test() -> None:
    assert sorted(PARAMS) == TEMPLATES
    assert len(TEMPLATES) >= 5


@pytest.mark.parametrize("name", TEMPLATES)
async def test_template_runs_to_its_answer(planloom: Planloom, name: str) -> None:
    shutil.copy(LIBRARY / "data" / "seattle-weather.csv", planloom.workspace)
    for folder, files in {
        "docs": {"a.md": "Ada wrote this.", "b.md": "Bob wrote that."},
        "code": {"x.py": "# TODO: mend\nx = 1\n", "README.md": "# Code"},
    }.items():
        (planloom.workspace / folder).mkdir()
        for file, text in files.items():
            (planloom.workspace / folder / file).write_text(text)
    planloom.model.script("", "a model's words")
    async with planloom.worker():
        result = await planloom.run({"template": name, "params": PARAMS[name]})
    assert result["status"] == "completed", result
    assert result["answer"]
    if name == "codebase-survey":
        assert result["answer"]["files"] == 1
        assert "TODO" in str(result["answer"]["open_ends"])
    if name == "data-report":
        assert result["answer"]["most_frequent"][0] == {"value": "sun", "n": 714}
    if name in ("research-brief", "compare-options", "document-qa"):
        assert "a model's words" in str(result["answer"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_declares_what_it_reads_and_describes_itself(name: str) -> None:
    import yaml

    plan, problems = read_plan(yaml.safe_load((LIBRARY / "templates" / f"{name}.yaml").read_text()))
    assert problems == []
    assert plan is not None
    assert plan.description
    assert check_declared(plan) == []
    assert all(p.description for p in plan.params.values())

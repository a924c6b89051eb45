"""The pure readers of untrusted text: each takes a text or a value, and may refuse, not break.

A reader gets a source of chance, reads one input, and returns. What it may raise is caught here;
anything else is a bug. Readers of streams also check that it does not matter where they are cut.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from planloom.activities.models.error_bodies import (
    answer_allowed,
    classify_status,
    error_text,
    message_of,
    wait_in_body,
    wait_in_text,
    window_in,
)
from planloom.activities.models.sse import SseDecoder
from planloom.activities.models.thoughts import ThoughtFilter, without_thoughts
from planloom.activities.models.usage_reports import usage_from
from planloom.activities.tools.builtin.http_body import BodyError, content_of, read_body
from planloom.codec import EncryptionCodec
from planloom.keys import KeyRing, NoKey, NotGenuine
from planloom.planner.compile.answers import AnswerSchema
from planloom.planner.compile.pipeline import compile_plan
from planloom.planner.compile.schema_check import check_schema, check_value
from planloom.planner.contract.controls import CompleteTask, EditPlan, RaiseBudget
from planloom.planner.contract.requests import AgentRequest, RunRequest, TeamRequest
from planloom.planner.contract.settings import SettingsError, settings_from
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.clean_text import TextCleaner, clean_text
from planloom.planner.language.conditions import evaluate, readable_condition
from planloom.planner.language.references import (
    UnresolvedError,
    find_references,
    resolve,
    with_words,
)
from planloom.planner.language.values import Stored
from planloom.planner.prompts.text import fenced
from planloom.planner.syntax.calls.parser import CallsParser
from planloom.planner.syntax.documents import read_plan, read_request
from planloom.planner.syntax.joiner import parse_join
from planloom.planner.syntax.json_stream import JsonPlanParser
from planloom.planner.syntax.json_text import best_json, parse_json
from planloom.planner.syntax.labelled import parse_labelled, repair_member
from planloom.planner.syntax.tool_calls import object_text, read_value, wire_name
from planloom.planner.syntax.written_calls import written_calls
from tests.fuzz.readers_outside import OUTSIDE
from tests.fuzz.texts import bytes_of, json_text_of, pieces_of, plan_of, text_of, value_of

Reader = Callable[[Random], None]

TOOLS = [
    ToolSpec(name=name, parameters={"type": "object", "properties": {"query": {}}})
    for name in ("find", "math")
]
CATALOG = Catalog(
    tools=[*TOOLS, ToolSpec(name="write_file", side_effects=True)],
    tool_names=["find", "math", "write_file"],
)
SCOPE = {"a": {"b": [1, 2, {"c": "d"}]}, "b": "text", "item": [1], "index": 0}
KEYS = KeyRing("k", {"k": bytes(32)})


def _parsed(parser: Any, pieces: list[str]) -> tuple[list[str], Any, list[str]]:
    tasks = [p.task.id for piece in pieces for p in parser.feed(piece)]
    end = parser.close()
    return [*tasks, *(p.task.id for p in end.late)], end.answer, [p.code for p in end.problems]


def calls_syntax(random: Random) -> None:
    text = text_of(random)
    whole = _parsed(CallsParser(TOOLS), [text])
    assert _parsed(CallsParser(TOOLS), pieces_of(random, text)) == whole, text


def json_syntax(random: Random) -> None:
    text = json_text_of(random) if random.random() < 0.5 else text_of(random)
    whole = _parsed(JsonPlanParser(TOOLS), [text])
    assert _parsed(JsonPlanParser(TOOLS), pieces_of(random, text)) == whole, text


def joiner(random: Random) -> None:
    found = parse_join(text_of(random), is_cut_off=random.random() < 0.2)
    assert found != []


def json_in_text(random: Random) -> None:
    text = json_text_of(random) if random.random() < 0.5 else text_of(random)
    for read in (parse_json, lambda t: best_json(t, lambda _: True)):
        with suppress(ValueError):
            json.dumps(read(text), allow_nan=False).encode()
    json.loads(object_text(text))
    with suppress(ValueError):
        read_value(text)


def labelled(random: Random) -> None:
    text = text_of(random)
    fields = parse_labelled(text)
    assert all(isinstance(v, str) for v in fields.values())
    repair_member(text)


def tool_calls(random: Random) -> None:
    text = text_of(random)
    assert len(wire_name(text)) <= 64
    written_calls(text, ["find", "math"])


def thoughts(random: Random) -> None:
    text = text_of(random)
    answer, _ = without_thoughts(text)
    filter_ = ThoughtFilter()
    shown = "".join(filter_.feed(piece) for piece in pieces_of(random, text)) + filter_.close()
    assert answer.strip() in shown, text  # never less; more where a thought's start never came


def server_sent(random: Random) -> None:
    content = bytes_of(random)
    at = random.randint(0, len(content))
    cut, whole = SseDecoder(), SseDecoder()
    parts = [*cut.feed(content[:at]), *cut.feed(content[at:]), *cut.close()]
    assert parts == [*whole.feed(content), *whole.close()], content


def clean(random: Random) -> None:
    text = text_of(random)
    cleaner = TextCleaner()
    cleaned = "".join(cleaner.feed(p) for p in pieces_of(random, text)) + cleaner.close()
    assert cleaned == clean_text(text), text
    cleaned.encode()


def endpoint_errors(random: Random) -> None:
    text, body = text_of(random), value_of(random)
    classify_status(random.randint(100, 600), text)
    answer_allowed(text, random.choice([None, 100]))
    window_in(text)
    for seconds in (wait_in_text(text), wait_in_body(body)):
        assert seconds is None or seconds >= 0
    error_text(body)
    message_of(body)
    usage = usage_from(body) if isinstance(body, dict) else None
    assert usage is None or usage.tokens >= 0


def references(random: Random) -> None:
    value = random.choice([text_of(random, 12), value_of(random)])
    find_references(value)
    with suppress(UnresolvedError):
        resolve(value, SCOPE)
    text = text_of(random, 8)
    assert with_words(text, lambda _: None).count("${") >= 0


def conditions(random: Random) -> None:
    text = text_of(random, 10)
    try:
        readable_condition(text)
    except ValueError:
        return
    with suppress(ValueError):
        assert isinstance(evaluate(text, {"a": "failed"}, {"b": Stored(value=1).value}), bool)


def documents(random: Random) -> None:
    document = plan_of(random) if random.random() < 0.5 else value_of(random)
    plan, problems = read_plan(document)
    assert (plan is None) == bool(problems)
    if plan is not None:
        compile_plan(plan, CATALOG)
    for model in (RunRequest, AgentRequest, TeamRequest, EditPlan, CompleteTask, RaiseBudget):
        request, problems = read_request(value_of(random), model)
        assert (request is None) == bool(problems)


def schemas(random: Random) -> None:
    schema, value = value_of(random), value_of(random)
    if not check_schema(schema, "s") and isinstance(schema, dict):
        check_value(value, schema)
        with suppress(ValueError):
            AnswerSchema(schema).read(json_text_of(random))


def settings(random: Random) -> None:
    names = ("pools", "encryption", "tenants", "retries", "data_dir", "prices", "max_activities")
    document = {random.choice(names): value_of(random), **random.choice([{}, value_dict(random)])}
    with suppress(SettingsError):
        settings_from({}, document)


def value_dict(random: Random) -> dict[str, Any]:
    value = value_of(random)
    return value if isinstance(value, dict) else {}


def web_bodies(random: Random) -> None:
    content = bytes_of(random)
    kinds = ["application/json", f"text/html; charset={text_of(random, 2)}", text_of(random, 3), ""]
    with suppress(BodyError):
        content_of(random.choice(kinds), content)

    async def parts() -> Any:
        yield content

    with suppress(BodyError):
        asyncio.run(read_body(parts(), random.choice(["gzip", "deflate", "", "gzip, gzip", "br"])))


def sealed_values(random: Random) -> None:
    content = random.choice([b"PLE1" + bytes_of(random), bytes_of(random)])
    with suppress(NoKey, NotGenuine):
        KEYS.unseal(content, "name")
    assert EncryptionCodec(KEYS) is not None


def fences(random: Random) -> None:
    text = text_of(random) + random.choice(["</output>", "</ OUTPUT >", "<\\/output>", "<output>"])
    lines = fenced("output", text + text_of(random)).lower()
    assert lines.count("<output") == lines.count("</output") == 1, text


READERS: dict[str, Reader] = {
    reader.__name__: reader
    for reader in (
        *(calls_syntax, json_syntax, joiner, json_in_text, labelled, tool_calls, thoughts),
        *(server_sent, clean, endpoint_errors, references, conditions, documents, schemas),
        *(settings, web_bodies, sealed_values, fences),
    )
} | OUTSIDE

"""`planloom models`: what is known of endpoints, what a probe finds, and what it writes."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from planloom.console.commands_models import _write
from planloom.planner.contract.settings import settings_from
from tests.cli.test_cli import planloom_cli
from tests.model_server import Reply, Seen
from tests.support.harness import Planloom


def answering(seen: Seen) -> Reply:
    """An endpoint that streams, calls one tool at a time, and knows JSON mode only."""
    if seen.body.get("tools"):
        return Reply(tool_calls=[{"name": "add", "arguments": {"a": 2, "b": 3}}])
    if "Olympic" in seen.last:
        return Reply(text='{"city": "Athens", "year": 1896}')
    return Reply(text="one two three four five" if "Count" in seen.last else "yes")


def refusing(seen: Seen) -> bool:
    return (seen.body.get("response_format") or {}).get("type") == "json_schema"


def too_long(seen: Seen) -> bool:
    return (seen.body.get("max_tokens") or 0) > 8_192


def script(planloom: Planloom) -> None:
    model = planloom.model
    model.script(refusing, Reply(status=400, body={"error": "json_schema is not supported"}))
    words = "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"
    model.script(too_long, Reply(status=400, body={"error": {"message": words}}))
    model.script("", answering)


async def test_a_probe_says_what_the_endpoint_can_do(planloom: Planloom) -> None:
    script(planloom)
    done = await planloom_cli(planloom, "models", "--probe", "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    found = {r["question"]: r["is_so"] for r in row["probe"]["rows"]}
    assert found == {
        "answers": True,
        "streams": True,
        "calls tools": True,
        "calls several tools at once": False,
        "keeps to a schema": False,
        "names its longest answer": True,
    }
    assert row["probe"]["quirks"]["response_format"] == "json_object"
    assert row["probe"]["quirks"]["max_tokens"] == 8_192
    assert row["probe"]["usage"]["model_calls"] == 6
    assert "test-key" not in done.out


async def test_a_probe_writes_settings_that_a_worker_reads(planloom: Planloom) -> None:
    script(planloom)
    path = planloom.folder / "planloom.toml"
    path.write_text(f'[pools.default]\nbase_url = "{planloom.model.url}"\n')
    for _ in range(2):  # the second time they are replaced
        done = await planloom_cli(planloom, "models", "--probe", "--write", "planloom.toml")
        assert done.code == 0, done.err
    pools = settings_from({}, tomllib.loads(path.read_text())).pools
    accepts = pools["default"].accepts["test-model"]
    assert (accepts.response_format, accepts.max_tokens) == ("json_object", 8_192)
    assert pools["default"].base_url == planloom.model.url
    assert path.read_text().count("accepts") == 1


async def test_without_a_probe_nothing_is_asked_and_what_workers_learned_is_shown(
    planloom: Planloom,
) -> None:
    script(planloom)
    await planloom_cli(planloom, "models", "--probe")
    asked = planloom.model.calls()
    done = await planloom_cli(planloom, "models")
    assert done.code == 0
    assert planloom.model.calls() == asked
    assert "answers constrained by json_object" in done.out
    assert "at most 8,192 tokens an answer" in done.out


async def test_an_endpoint_that_does_not_answer_is_an_error(planloom: Planloom) -> None:
    planloom.model.script("", Reply(status=401))
    done = await planloom_cli(planloom, "models", "--probe")
    assert done.code == 1
    assert "HTTP 401" in done.out
    assert planloom.model.calls() == 1


@pytest.mark.parametrize(
    ("before", "windows"),
    [
        ("", {"m": 4096}),
        ("[context_windows]\nother = 8192\n", {"m": 4096, "other": 8192}),
        ('[context_windows]\n"m" = 1024\n\n[pools.p]\n', {"m": 4096}),
    ],
)
def test_a_window_is_put_beside_others(tmp_path: Any, before: str, windows: dict[str, int]) -> None:
    path = tmp_path / "planloom.toml"
    path.write_text(before)
    _write(path, ['[context_windows]\n"m" = 4096'])
    assert tomllib.loads(path.read_text())["context_windows"] == windows


async def test_what_the_endpoint_offers_and_what_is_taken_is_shown(planloom: Planloom) -> None:
    done = await planloom_cli(planloom, "models", "--json")
    (row,) = json.loads(done.out)
    assert row["offers"] == ["gpt-4o-mini", "test-model"]
    assert row["taken"] == dict.fromkeys(("planner", "joiner", "judge", "worker"), "test-model")
    done = await planloom_cli(planloom, "models", PLANLOOM_MODEL="another")
    assert "another  (the endpoint does not list it)" in done.out
    done = await planloom_cli(planloom, "models", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert done.code == 0
    assert "it lists no models: " in done.out
    assert planloom.model.calls() == 0

"""`planloom dev --scripted`: the whole way of a goal, with approval and replan, without a key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from planloom import Client, local
from planloom.console.devserver import free_port
from planloom.console.documents import settings_file, settings_now
from planloom.console.reload import Sources
from planloom.console.scripted import DATA, _without_models, scripted
from planloom.planner.contract.settings import SettingsError
from planloom.scripted_goals import LABEL, ScriptedGoal, scripted_goals, scripted_model

ANSWERS = {
    "wettest": "2014 was the wettest year with 1232.8 mm, 404.8 mm more than 2013.",
    "hottest": "2014-08-11 was the hottest day with 35.6 °C. The 6 days around it reached 25.8 °C "
    "on average.",
    "picnic": "July: 26.0 °C on average by day, and 2.8 rainy days.",
    "France": "France has about 68000000 people and Spain about 48000000, which is 1.42 times as "
    "many.",
}


@pytest.mark.parametrize("goal", scripted_goals(), ids=lambda g: g.goal[:20])
async def test_every_goal_of_the_script_comes_to_its_answer(
    goal: ScriptedGoal, tmp_path: Path
) -> None:
    (tmp_path / DATA.name).write_bytes(DATA.read_bytes())
    with scripted_model(scripted_goals()) as model:
        environment = {"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": model.name}
        result = await local.run(
            goal=goal.goal, answer=lambda wait: 5, workspace=tmp_path, environment=environment
        )
    assert result.status == "completed", result.reason
    assert result.answer == next(a for word, a in ANSWERS.items() if word in goal.goal)
    assert result.rounds == (1 if goal.replan else 0)


async def test_a_goal_that_is_not_in_the_script_is_refused_and_the_others_are_named(
    tmp_path: Path,
) -> None:
    with scripted_model(scripted_goals()) as model:
        environment = {"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": model.name}
        result = await local.run(goal="Win at chess", workspace=tmp_path, environment=environment)
        assert result.status == "failed"
        assert LABEL in str(result.reason)
        assert scripted_goals()[0].goal in str(result.reason)
        plan = {"tasks": [{"id": "a", "ask": "Who are you?"}], "answer": "${a}"}
        asked = await local.run(plan, workspace=tmp_path, environment=environment)
        assert str(asked.answer).startswith(LABEL)


def touch(path: Path, text: str) -> None:
    """Write it, at a time that differs from the last one also where clocks are coarse."""
    path.write_text(text, encoding="utf-8")
    at = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(at, at))


@contextlib.asynccontextmanager
async def dev(
    folder: Path, *options: str, in_memory: bool = True
) -> AsyncIterator[tuple[str, list[str]]]:
    """`planloom dev`, until its worker polls: its address, and what it has printed."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "planloom.cli", "dev", *options),
        *(["--in-memory"] if in_memory else []),
        *("--port", str(port), "--ui-port", str(free_port())),
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said: list[str] = []
    assert process.stdout is not None
    try:
        async with asyncio.timeout(150):
            while not any("is polling" in line for line in said):
                line = await process.stdout.readline()
                assert line, "".join(said)
                said.append(line.decode())
        yield f"127.0.0.1:{port}", said
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 30)


@pytest.mark.timeout(400)  # a server and a worker, started as a person does
async def test_a_goal_is_approved_and_replanned_without_a_key(tmp_path: Path) -> None:
    async with dev(tmp_path, "--scripted") as (address, said):
        shown = "".join(said)
        assert "SCRIPTED: no model is asked" in shown
        goal = scripted_goals()[1].goal
        assert goal in shown
        client = await Client.connect(target_host=address)
        run = await client.start(goal=goal, approval="always")
        approved = []
        async with asyncio.timeout(60):
            async for event in run.stream():
                if event.kind == "wait" and event.wait is not None:
                    approved.append(event.wait.revision)
                    await run.approve(event.wait.revision)
        assert approved == [1, 2]
        result = await run.result()
    assert (result.status, result.answer) == ("completed", ANSWERS["hottest"])
    assert json.loads(result.model_dump_json())["rounds"] == 1
    assert (tmp_path / ".planloom" / "scripted" / DATA.name).exists()


SETTINGS = """
task_queue = "ours"
model = "gpt"
tenants = {"a \\"b\\" ü" = 2.5}

[pools.default]
base_url = "http://127.0.0.1:9/v1"

[mcp.tickets]
url = "http://127.0.0.1:9/mcp"
tools = ["get_*"]
trust_hints = false

[encryption]
active = "k"

[encryption.keys]
k = {file = "k.key"}
"""


def test_all_settings_but_those_of_models_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients encrypt with the keys of the same file: a worker without them reads nothing."""
    monkeypatch.chdir(tmp_path)
    Path("planloom.toml").write_text(SETTINGS, encoding="utf-8")
    as_written = settings_now()
    with scripted(True, is_quiet=True):
        used = settings_now()
    same = {"task_queue", "tenants", "mcp", "encryption"}
    assert used.model_dump(include=same) == as_written.model_dump(include=same)
    assert used.encryption is not None
    assert used.pools["default"].base_url != as_written.pools["default"].base_url
    assert used.model != "gpt"


def test_the_file_that_a_person_writes_is_watched_and_not_the_one_made_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The made one was watched: an edit of planloom.toml did nothing until the next start."""
    monkeypatch.chdir(tmp_path)
    written = settings_file()
    written.write_text('tools = ["mine"]\nmodel = "gpt"\n', encoding="utf-8")
    with scripted(True, is_quiet=True) as read:
        sources = Sources(read().tools, written)
        made = settings_file()
        assert made != written
        read()
        touch(made, "")
        assert sources.changed() == []
        touch(written, 'tools = ["mine", "more"]\ndata_dir = "elsewhere"\n')
        assert sources.changed() == [written]
        assert read().tools == ["mine", "more"]
        touch(written, "tools = [")
        with pytest.raises(SettingsError, match=r"planloom\.toml"):
            read()
        assert settings_now().tools == ["mine", "more"], "what a worker has"
    assert settings_file() == written


def test_a_settings_file_that_cannot_be_read_is_said_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for an empty one: the worker then had neither keys nor task queue of it."""
    monkeypatch.chdir(tmp_path)
    Path("planloom.toml").write_text("tools = [", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"planloom\.toml"), scripted(True, is_quiet=True):
        pass
    monkeypatch.setenv("PLANLOOM_CONFIG", "gone.toml")
    with pytest.raises(SettingsError, match="no such file"), scripted(True, is_quiet=True):
        pass
    assert not Path(".planloom").exists()


def test_any_settings_file_is_written_as_it_was_read() -> None:
    """A date in the file ended `planloom dev --scripted` with a traceback."""
    lines = [
        '"🎉é" = {"a b" = "\\u007f\\u0000\\"", n = [1, -2.5, inf, true]}',
        "day = 2026-11-29",
        "at = 2026-11-29T10:00:00Z",
        "clock = 10:00:00",
    ]
    document = tomllib.loads("\n".join(lines))
    assert tomllib.loads(_without_models(document)) == document

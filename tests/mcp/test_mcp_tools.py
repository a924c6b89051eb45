"""Tools of MCP servers in plans: a server that is not ours, and one that acts and fails."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from planloom import local
from planloom.activities.tools.builtin import BUILTIN_TOOLS
from planloom.activities.tools.mcp.connections import McpServer
from planloom.activities.tools.registry import ToolLoadError, ToolRegistry
from planloom.console.devserver import free_port
from planloom.planner.contract.settings import SettingsError, settings_from
from tests.cli.test_cli import planloom_cli
from tests.support.harness import Planloom
from tests.support.nursery import is_alive
from tests.support.waiting import until

TIME = str(Path(sys.executable).parent / "mcp-server-time")
ODD = str(Path(__file__).parent / "odd_server.py")
ACTING = str(Path(__file__).parent / "acting_server.py")


def settings(**servers: Any) -> Any:
    return settings_from({}, {"mcp": servers})


def acting(folder: Path, **more: Any) -> dict[str, Any]:
    given = {"env": {"ACTS_FILE": str(folder / "acts.txt")}, **more}
    return {"command": sys.executable, "args": [ACTING], **given}


def odd(**more: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": [ODD], "env": more}


def plan(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tasks": list(tasks), **more}


async def test_the_tools_of_a_server_that_is_not_ours_run_in_a_plan(planloom: Planloom) -> None:
    """`mcp-server-time`, the reference server of the protocol's own project."""
    (planloom.folder / "planloom.toml").write_text(
        f'[mcp.time]\ncommand = "{TIME}"\nargs = ["--local-timezone", "UTC"]\n'
    )
    convert = {
        "id": "tokyo",
        "tool": "time_convert_time",
        "args": {"source_timezone": "UTC", "time": "09:30", "target_timezone": "Asia/Tokyo"},
    }
    request = {"plan": plan(convert, answer="${tokyo.target.datetime}")}
    path = str(planloom.folder / "planloom.toml")
    async with planloom.worker(PLANLOOM_CONFIG=path) as parts:
        spec = parts.registry.get("time_convert_time").spec
        result = await planloom.run(request)
    assert (spec.side_effects, spec.idempotent) == (False, True)
    assert set(spec.parameters["required"]) == set(convert["args"])  # type: ignore[arg-type]
    assert result["status"] == "completed"
    assert "T18:30:00+09:00" in result["answer"]


def test_hints_become_ours_and_settings_win_over_them(tmp_path: Path) -> None:
    registry = ToolRegistry(BUILTIN_TOOLS)
    registry.load_mcp(
        settings(
            a=acting(tmp_path),
            b=acting(tmp_path, trust_hints=False, read_only=["wip*"], tools=["add", "wipe"]),
            c=acting(tmp_path, prefix="", tools=["note"], idempotent=["note"], timeout="5s"),
        ).mcp
    )
    told = {s.name: (s.side_effects, s.idempotent) for s in registry.specs}
    assert told["a_add"] == (False, True)
    assert told["a_note"] == (True, False)
    assert told["a_wipe"] == (True, False)
    assert told["b_add"] == (True, False)
    assert told["b_wipe"] == (False, True)
    assert told["note"] == (True, True)
    assert {n for n in told if n.startswith("b_")} == {"b_add", "b_wipe"}
    assert all(s.outside for s in registry.specs if s.name in ("a_add", "b_wipe", "note"))
    specs = {s.name: s for s in registry.specs}
    assert specs["note"].timeout_seconds == 5
    assert specs["a_wipe"].description == "Forget all lines. It may overwrite or delete."
    assert "overwrite" not in specs["a_note"].description


async def test_results_errors_and_arguments_are_those_of_a_tool(tmp_path: Path) -> None:
    result = await local.run(
        plan(
            {"id": "sum", "tool": "s_add", "args": {"a": 40, "b": 2}},
            {"id": "pic", "tool": "s_picture"},
            {"id": "no", "tool": "s_refuse", "args": {"why": "why not"}, "fallback": "fell back"},
            {"id": "odd", "tool": "s_add", "args": {"a": "${no}", "b": 1}, "on_error": "skip"},
            answer=["${sum}", "${pic[0].mimeType}", "${no}"],
        ),
        settings=settings(s=acting(tmp_path)),
    )
    assert result.answer == [42, "image/png", "fell back"]
    assert "refused: why not" in str(result.tasks["no"].error)
    bad = await local.run(
        plan(
            {"id": "t", "ask": "x", "fallback": "text"},
            {"id": "odd", "tool": "s_add", "args": {"a": "${t}", "b": 1}},
        ),
        settings=settings(s=acting(tmp_path)),
        environment={},
    )
    assert 's_add": args.a' in str(bad.tasks["odd"].error)


async def test_a_tool_that_acts_is_called_once_for_its_task(tmp_path: Path) -> None:
    task = {"id": "n", "tool": "s_note", "args": {"text": "hello"}}
    result = await local.run(plan(task), settings=settings(s=acting(tmp_path)))
    assert result.status == "completed"
    assert (tmp_path / "acts.txt").read_text() == "hello\n"


async def test_a_slow_call_ends_at_its_time_out(tmp_path: Path) -> None:
    task = {
        "id": "s",
        "tool": "s_slow",
        "args": {"seconds": 30},
        "retry": {"max_attempts": 1},
    }
    result = await local.run(plan(task), settings=settings(s=acting(tmp_path, timeout=0.3)))
    assert result.tasks["s"].error_class == "timeout"


async def test_a_server_that_dies_is_started_again_for_the_next_call(tmp_path: Path) -> None:
    result = await local.run(
        plan(
            {"id": "d", "tool": "s_die", "retry": {"max_attempts": 1}, "fallback": "died"},
            {"id": "a", "tool": "s_add", "args": {"a": 1, "b": 1}, "depends_on": ["d"]},
            answer=["${d}", "${a}"],
        ),
        settings=settings(s=acting(tmp_path)),
    )
    assert result.answer == ["died", 2]


async def test_a_call_that_fails_leaves_the_servers_other_calls_alone(tmp_path: Path) -> None:
    """The connection was closed under `wait` when `fails`, or `lies`, came back."""
    once = {"retry": {"max_attempts": 1}, "on_error": "skip", "requires": "best_effort"}
    result = await local.run(
        plan(
            {"id": "wait", "tool": "o_wait", "retry": {"max_attempts": 1}},
            {"id": "fails", "tool": "o_fails", **once},
            {"id": "lies", "tool": "o_lies", "depends_on": ["fails"], **once},
            {"id": "weather", "tool": "o_get_weather", "depends_on": ["lies"], **once},
            {"id": "go", "tool": "o_go", "depends_on": ["weather"], **once},
        ),
        settings=settings(o=odd(GATE=str(tmp_path / "gate"))),
    )
    assert result.tasks["wait"].output == "wait"
    assert "a fault inside" in str(result.tasks["fails"].error)
    assert str(result.tasks["lies"].error).endswith("'seven' is not of type 'integer'")
    assert result.tasks["weather"].output == "get-weather"


async def test_a_worker_starts_with_servers_and_lists_their_tools(planloom: Planloom) -> None:
    """It looked for the types of a Python function, and ended with a traceback."""
    path = planloom.folder / "planloom.toml"
    path.write_text(f'[mcp.odd]\ncommand = "{sys.executable}"\nargs = ["{ODD}"]\n')
    listed = await planloom_cli(planloom, "tools", PLANLOOM_CONFIG=str(path))
    assert (listed.code, "odd_fs_read_file" in listed.out) == (0, True), listed.err
    async with planloom.worker_process(PLANLOOM_CONFIG=str(path)):
        task = {"id": "w", "tool": "odd_get_weather"}
        result = await planloom.run({"plan": plan(task, answer="${w}")})
    assert result["answer"] == "get-weather"


async def test_a_server_sees_no_secret_that_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSED_ON", "1")
    monkeypatch.setenv("NOT_PASSED_ON", "1")
    given = acting(tmp_path, env_from=["PASSED_ON"])
    result = await local.run(
        plan({"id": "s", "tool": "s_secret"}, answer="${s}"), settings=settings(s=given)
    )
    assert result.answer == "PASSED_ON"


async def test_a_token_that_a_server_quotes_is_in_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ODD_TOKEN", "tok-0123456789abcdef")
    once = {"retry": {"max_attempts": 1}, "on_error": "skip", "requires": "best_effort"}
    result = await local.run(
        plan({"id": "a", "tool": "o_denies", **once}, {"id": "b", "tool": "o_fails", **once}),
        settings=settings(o=odd() | {"env_from": ["ODD_TOKEN"]}),
    )
    for task in ("a", "b"):
        assert "bad token [key]" in str(result.tasks[task].error)
    assert "tok-0123456789" not in result.model_dump_json()


async def test_a_server_whose_first_call_is_cancelled_while_it_starts_is_ended(
    tmp_path: Path,
) -> None:
    """Nobody knew of it any more, and each such call left one behind."""
    pid_file = tmp_path / "pid"
    server = McpServer("o", settings(o=odd(PID_FILE=str(pid_file))).mcp["o"])
    call = asyncio.create_task(server.call("wait", {}))
    await until(lambda: pid_file.exists() and pid_file.read_text() != "")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not is_alive(int(pid_file.read_text())))
    await until(lambda: len(asyncio.all_tasks()) == 1)


@contextlib.asynccontextmanager
async def over_http(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, ACTING, str(port), cwd=folder, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


async def test_a_server_over_http_is_used_alike(tmp_path: Path) -> None:
    async with over_http(tmp_path) as url:
        tasks = [{"id": f"t{n}", "tool": "s_add", "args": {"a": n, "b": n}} for n in range(10)]
        result = await local.run(
            plan(*tasks, answer=[f"${{t{n}}}" for n in range(10)]),
            settings=settings(s={"url": url}),
        )
    assert result.answer == [2 * n for n in range(10)]


def test_servers_that_cannot_be_used_are_named_all_at_once(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/mcp"
    with pytest.raises(ToolLoadError) as failed:
        ToolRegistry().load_mcp(
            settings(
                gone={"command": "no-such-program-anywhere"},
                words={"command": "python3 server.py"},
                bare=odd(NO_SCHEMA="1"),
                twice=odd(MORE="get_weather"),
                off={"url": nowhere},
                none=acting(tmp_path, tools=["nothing"]),
                token={"url": nowhere, "headers_env": {"Authorization": "NO_TOKEN_HERE"}},
            ).mcp
        )
    paths = [p.path.rpartition(".")[2] for p in failed.value.problems]
    assert paths == ["gone", "words", "bare", "off", "none", "token", "twice"]
    gone, words, bare, *_, token, twice = failed.value.problems
    assert 'there is no program "no-such-program-anywhere"' in gone.message
    assert "belong in args" in words.message
    assert "does not follow the protocol: tools.7.inputSchema.type" in bare.message
    assert "NO_TOKEN_HERE is not set" in token.message
    assert twice.message == 'tool "twice_get_weather" is already there, from the MCP server twice.'
    assert "Set prefix in [mcp.twice]" in twice.hint


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ({}, "exactly one of command and url"),
        ({"command": "x", "url": "http://x"}, "exactly one of command and url"),
        ({"url": "http://x", "headers": {"Authorization": "Bearer abc"}}, "headers_env"),
        ({"command": "x", "env": {"API_TOKEN": "abc"}}, "env_from"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(server: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        settings(s=server)

"""What the documents name is there: commands, options, targets, modules, tests."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import typer

from planloom import cli
from tests.docs.pages import PAGES
from tests.support.harness import Planloom

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = PAGES
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


def commands(path: Path) -> list[str]:
    """The command lines of a document's bash blocks, continuation lines joined."""
    found: list[str] = []
    for language, text in BLOCK.findall(path.read_text(encoding="utf-8")):
        if language == "bash":
            joined = text.replace("\\\n", " ")
            found += [re.sub(r"\s+# .*$", "", line).strip() for line in joined.splitlines()]
    return [line for line in found if line]


async def run(line: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *shlex.split(line),
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode()


async def test_the_examples_of_own_tool_and_own_plan_run(planloom: Planloom) -> None:
    for file in ("my_tools.py", "trip.yaml"):
        shutil.copy(CHECKOUT / "examples" / file, planloom.folder)
    env = {**planloom.env, "PLANLOOM_TOOLS": "my_tools"}
    async with planloom.worker_process(PLANLOOM_TOOLS="my_tools"):
        code, out = await run("planloom plan check trip.yaml --explain", planloom.folder, env)
        assert code == 0, out
        code, out = await run("planloom run --plan trip.yaml", planloom.folder, env)
    assert code == 0, out
    assert "hotel 386.4 + train 187.2 = 573.6 euros" in out
    assert "trip: 573.6" in (planloom.workspace / "ledger.txt").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_every_planloom_command_and_option_in_a_page_exists(path: Path) -> None:
    root = typer.main.get_command(cli.app)
    for line in commands(path):
        if Path(line.split()[0]).name != "planloom":
            continue
        words = shlex.split(line)
        command, rest = root, words[1:]
        while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
            assert rest[0] in command.commands, line
            command, rest = command.commands[rest[0]], rest[1:]
        known = {o for p in command.params for o in p.opts}
        unknown = [w for w in rest if w.startswith("-") and w.split("=")[0] not in known]
        assert not unknown, f"{line}: {unknown}"


def test_the_scripts_of_the_page_on_local_runs_work() -> None:
    blocks = BLOCK.findall((CHECKOUT / "docs/how-to/local.md").read_text(encoding="utf-8"))
    scripts = [text for language, text in blocks if language == "python"]
    assert len(scripts) == 2
    for script in scripts:
        exec(compile(script, "docs/how-to/local.md", "exec"), {"__name__": "script"})


async def test_the_tests_of_the_page_on_testing_pass() -> None:
    blocks = BLOCK.findall((CHECKOUT / "docs/how-to/test.md").read_text(encoding="utf-8"))
    tests = []
    for language, text in blocks:
        if language == "python":
            names: dict[str, object] = {"__name__": "page"}
            exec(compile(text, "docs/how-to/test.md", "exec"), names)
            tests += [f for n, f in names.items() if n.startswith("test_") and callable(f)]
    assert len(tests) == 3
    for test in tests:
        done = test()
        if done is not None:
            await done


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z]+)", (CHECKOUT / "README.md").read_text()))
    assert named <= targets
    assert {"setup", "demo", "dev", "test", "lint", "bench", "docs", "site"} <= targets


def test_every_test_that_the_page_of_faults_names_exists() -> None:
    page = (CHECKOUT / "docs/explanation/from-llmcompiler.md").read_text(encoding="utf-8")
    named = re.findall(r"(?:`(test_\w+\.py)`: )?`(test_\w+)`", page)
    assert len(named) > 25
    for file, test in named:
        source = CHECKOUT / "tests" / "server" / (file or "test_llmcompiler_faults.py")
        assert f"def {test}(" in source.read_text(encoding="utf-8"), test


def test_every_promise_of_the_security_page_names_a_test_that_exists() -> None:
    page = (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| ") and "`test_" in row]
    assert len(rows) > 20
    for row in rows:
        file = re.search(r"`(tests/[\w/]+\.py)`", row)
        assert file, row
        source = (CHECKOUT / file[1]).read_text(encoding="utf-8")
        for name in re.findall(r"`(test_\w+)`", row):
            assert f"def {name}(" in source, name


@pytest.mark.parametrize("room", ["planner", "workflows", "activities", "console"])
def test_the_architecture_page_names_every_module(room: str) -> None:
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition(f"\n`{room}/`:")[2].partition("\n\n`")[0].partition("\n`worker.py`")[0]
    named = set()
    for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE):
        folder, _, files = row.rpartition(": ")
        named |= {folder.strip("`") + name for name in re.findall(r"`(\w+\.py)`", files)}
    modules = {
        str(p.relative_to(CHECKOUT / room))
        for p in (CHECKOUT / room).rglob("*.py")
        if p.name != "__init__.py"
    }
    assert named == modules


def test_every_source_file_that_a_page_or_a_docstring_names_exists() -> None:
    """Paths in backticks, such as `tests/test_docs.py`; they went stale when files moved."""
    rooms = "planner|workflows|activities|console|planloom|tests|docs|benchmarks|examples"
    path = re.compile(rf"`((?:{rooms})/[\w/.-]+\.(?:py|md|yaml|json))`")
    sources = [s for r in rooms.split("|") for s in (CHECKOUT / r).rglob("*.py")]
    for page in [*DOCUMENTS, CHECKOUT / "CHANGELOG.md", CHECKOUT / "temporal-dev.yaml", *sources]:
        for named in path.findall(page.read_text(encoding="utf-8")):
            assert (CHECKOUT / named).is_file(), f"{page.relative_to(CHECKOUT)}: {named}"

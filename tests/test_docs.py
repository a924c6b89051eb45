"""What the documents say works as written: commands, plans, code, links."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from temporalio.service import RPCError

from planloom import cli
from planloom.planner.contract.results import Progress
from planloom.planner.syntax.documents import read_plan
from tests.model_server import Seen
from tests.support.harness import Planloom

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    CHECKOUT / "README.md",
    CHECKOUT / "SECURITY.md",
    *sorted((CHECKOUT / "docs").rglob("*.md")),
]
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


WAITING: dict[str, Callable[[Progress], bool]] = {
    "start trip": lambda p: p.awaiting == "approval",
    "edit_plan trip": lambda p: p.revision == 2,
    "start again": lambda p: p.awaiting == "approval",
    "request_replan again": lambda p: p.awaiting == "approval" and p.revision == 2,
    "edit_plan again": lambda p: p.revision == 3,
    "start again-refused": lambda p: p.awaiting == "approval" and p.revision == 2,
    "reject_plan again-refused": lambda p: p.status == "rejected",
}
"""What a person would see before the next command, by command and run."""
SAID = {"result trip": "France has more", "result again": "twice", "result again-timed": "twice"}


@pytest.mark.parametrize("name", ["README.md", "docs/contract.md", "docs/guide.md"])
async def test_every_temporal_command_of_a_page_works_in_order(
    planloom: Planloom, name: str
) -> None:
    """With the page's own ids and queue, and no Planloom program but a worker."""
    planloom.model.script("Why a new plan is needed", 'd = ask(prompt="four")\njoin(d)')
    planloom.model.script(
        "Write the plan",
        'a = ask(prompt="one")\nb = ask(prompt="two")\nc = ask(prompt="three")\njoin(a, b, c)',
    )
    planloom.model.script(_is_first_join, '{"action": "replan", "feedback": "once more"}')
    planloom.model.script(_joins("twice"), '{"action": "finish", "answer": "twice"}')
    planloom.model.script("decide whether", '{"action": "finish", "answer": "France has more"}')
    planloom.model.script("", "words")
    lines = [c for c in commands(CHECKOUT / name) if c.startswith("temporal ")]
    assert lines
    async with planloom.worker_process(PLANLOOM_TASK_QUEUE="planloom"):
        if not any("workflow start" in line for line in lines):
            request = json.dumps({"goal": "x", "approval": "always"})
            lines.insert(
                0,
                "temporal workflow start --type DagWorkflow --task-queue planloom "
                f"--workflow-id trip --input {shlex.quote(request)}",
            )
        for line in lines:
            code, out = await run(line, planloom.folder, planloom.env)
            assert code == 0, f"{line}\n{out}"
            step = _step_of(line)
            if step in WAITING:
                handle = planloom.client.get_workflow_handle(step.split()[1])
                await planloom.until(handle, WAITING[step])
            assert SAID.get(step, "") in out, line
        with contextlib.suppress(RPCError):  # a page may leave its run waiting
            await planloom.client.get_workflow_handle("trip").terminate()


def _joins(word: str) -> Callable[[Seen], bool]:
    return lambda seen: "decide whether" in seen.text and word in seen.text


def _is_first_join(seen: Seen) -> bool:
    """The joiner of a goal that is compared twice, before the replan's task has run."""
    return _joins("twice")(seen) and "## d:" not in seen.text


def _step_of(line: str) -> str:
    """A command line as `what run`: `start trip`, `edit_plan again`."""
    words = shlex.split(line)
    given = dict(itertools.pairwise(words))
    return f"{given.get('--name') or words[2]} {given.get('--workflow-id', '')}"


async def test_every_command_of_the_capacity_page_works_in_order(planloom: Planloom) -> None:
    planloom.model.script("", "words")
    env = {**planloom.env, "PLANLOOM_TASK_QUEUE": "planloom"}
    planloom.task_queue = "planloom"
    async with planloom.worker_process(PLANLOOM_TASK_QUEUE="planloom"):
        await planloom.run({"plan": {"tasks": [{"id": "q", "ask": "hello"}]}})
        for line in commands(CHECKOUT / "docs" / "capacity.md"):
            code, out = await run(line, planloom.folder, env)
            assert code == 0, f"{line}\n{out}"
            if "reserve" in line:
                assert "allowed:true" in out
            if line == "planloom capacity":
                assert "default  open" in out
        result = await planloom.run({"plan": {"tasks": [{"id": "q", "ask": "hello"}]}})
    assert result["status"] == "completed"


@pytest.mark.parametrize("name", ["agents-and-teams.md", "from-mekann.md"])
async def test_every_temporal_command_of_the_team_pages_works_in_order(
    planloom: Planloom, name: str
) -> None:
    form = "SUMMARY: s\nCLAIM: c\nEVIDENCE: e\nCONFIDENCE: 0.9\nRESULT: as it is said here\n"
    planloom.model.script("Write the plan", 'a = agent("lead", task="Decide")\njoin(a)')
    planloom.model.script("decide whether", '{"action": "finish", "answer": "replaced"}')
    planloom.model.script("You judge", '{"verdict": "trusted", "reason": "ok"}')
    planloom.model.script("", form + "NEXT_STEP: none")
    lines = [c for c in commands(CHECKOUT / "docs" / name) if c.startswith("temporal ")]
    ids = [m[1] for line in lines if (m := re.search(r"start .*--workflow-id (\S+)", line))]
    assert ids
    async with planloom.worker_process(PLANLOOM_TASK_QUEUE="planloom"):
        for line in lines:
            code, out = await run(line, planloom.folder, planloom.env)
            assert code == 0, f"{line}\n{out}"
            if " start " in line and "build" in line:
                build = planloom.client.get_workflow_handle("build")
                await planloom.until(build, lambda p: p.awaiting == "approval", timeout=30)
        for each in ids:
            result = await planloom.result(planloom.client.get_workflow_handle(each), timeout=30)
            assert result["status"] == "completed", (each, result)


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
        words = shlex.split(line)
        if not words or Path(words[0]).name != "planloom":
            continue
        command, rest = root, words[1:]
        while rest and hasattr(command, "commands"):
            assert rest[0] in command.commands, line
            command, rest = command.commands[rest[0]], rest[1:]
        known = {o for p in command.params for o in p.opts}
        unknown = [w for w in rest if w.startswith("-") and w.split("=")[0] not in known]
        assert not unknown, f"{line}: {unknown}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_every_link_and_every_plan_in_a_page_holds(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (path.parent / target).exists(), f"{path.name}: {target}"
    for language, block in BLOCK.findall(text):
        if language == "yaml" and re.search(r"^tasks:", block, re.MULTILINE):
            plan, problems = read_plan(yaml.safe_load(block))
            assert plan is not None, problems
        if language == "python":
            compile(block, str(path), "exec")


def test_the_scripts_of_the_page_on_local_runs_work() -> None:
    blocks = BLOCK.findall((CHECKOUT / "docs" / "local.md").read_text(encoding="utf-8"))
    scripts = [text for language, text in blocks if language == "python"]
    assert len(scripts) == 2
    for script in scripts:
        exec(compile(script, "docs/local.md", "exec"), {"__name__": "script"})


async def test_the_tests_of_the_page_on_testing_pass() -> None:
    blocks = BLOCK.findall((CHECKOUT / "docs" / "testing.md").read_text(encoding="utf-8"))
    tests = []
    for language, text in blocks:
        if language == "python":
            names: dict[str, object] = {"__name__": "page"}
            exec(compile(text, "docs/testing.md", "exec"), names)
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
    assert {"setup", "demo", "dev", "test", "lint", "bench", "docs"} <= targets


def test_every_test_that_the_page_of_faults_names_exists() -> None:
    page = (CHECKOUT / "docs" / "from-llmcompiler.md").read_text(encoding="utf-8")
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

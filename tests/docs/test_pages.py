"""The commands and Python blocks of each page, run in order as a reader would, block by block.

Between two blocks a reader looks at what happened: the test waits until every run of the page has
ended or waits for somebody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from tests.docs.pages import CHECKOUT, PAGES, Block, blocks_of, is_generated, name_of
from tests.model_server import ModelServer, Seen
from tests.support.harness import Planloom

BIN = Path(sys.executable).parent
RUNS = "WorkflowType IN ('DagWorkflow', 'AgentWorkflow', 'TeamWorkflow') AND TaskQueue = 'planloom'"
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
"""For blocks that are tests."""
SECONDS = 600.0
"""After this a command is taken to hang. A busy machine is slow, not wrong."""
DRAINED = "default: drained: calls wait until resume"
FORM = "SUMMARY: s\nCLAIM: c\nEVIDENCE: e\nCONFIDENCE: 0.9\nRESULT: r\nNEXT_STEP: none"
SAID = {
    "README.md": ["42", "42 and 1024 make 1066", "France has more"],
    "docs/how-to/agents-and-teams.md": ["verdict: trusted", '"agent":"lead"'],
    "docs/how-to/capacity.md": ["not used yet", "allowed:true", "drained by ops: night", DRAINED],
    "docs/contract.md": ["twice", "revision 2 approved by timeout"],
    "docs/how-to/python.md": ["completed 43 2", "town", "answer: Lyon", "task distinct: succeeded"],
    "docs/how-to/observe.md": ["no rate for XYZ"],
    "docs/how-to/schedule.md": ["nightly-report"],
    "docs/how-to/test.md": ["1 passed", "sum.yaml: valid", "2 passed"],
    "docs/tutorials/approvals.md": ["approve", "checked by ops", "France has more"],
    "docs/tutorials/goal-with-a-model.md": ["France has more", "compare"],
    "docs/tutorials/own-tool-and-plan.md": ["convert", "573.6 euros", "1147.2 euros"],
    "docs/tutorials/team.md": ["researcher", "research-panel", "naming"],
}
"""What a page's output must hold."""


def runnable(page: Path) -> list[Block]:
    """What is to be run: blocks of the pages that come first, then the page's own."""
    found = []
    text = page.read_text(encoding="utf-8")
    for first in re.findall(r"<!-- first: (\S+) -->", text):
        found += runnable(CHECKOUT / first)
    own = [b for b in blocks_of(page) if b.language in ("bash", "python") and not b.why_not_run]
    return found + own


def _script_default(model: ModelServer) -> None:
    model.script("Why a new plan is needed", 'd = ask(prompt="four")\njoin(d)')
    model.script("Write the plan", 'a = ask(prompt="one")\nb = ask(prompt="two")\njoin(a, b)')
    model.script("decide whether", '{"action": "finish", "answer": "France has more"}')
    model.script("You judge", '{"verdict": "trusted", "reason": "ok"}')
    model.script("", FORM)


def _script_contract(model: ModelServer) -> None:
    model.script("Why a new plan is needed", 'd = ask(prompt="four")\njoin(d)')
    model.script(
        "Write the plan",
        'a = ask(prompt="one")\nb = ask(prompt="two")\nc = ask(prompt="three")\njoin(a, b, c)',
    )
    model.script(_is_first_join, '{"action": "replan", "feedback": "once more"}')
    model.script(_joins("twice"), '{"action": "finish", "answer": "twice"}')
    model.script("decide whether", '{"action": "finish", "answer": "France has more"}')
    model.script("", "words")


def _script_teams(model: ModelServer) -> None:
    model.script("Write the plan", 'a = agent("lead", task="Decide")\njoin(a)')
    model.script("decide whether", '{"action": "finish", "answer": "replaced"}')
    _script_default(model)


def _joins(word: str) -> Callable[[Seen], bool]:
    return lambda seen: "decide whether" in seen.text and word in seen.text


def _is_first_join(seen: Seen) -> bool:
    """The joiner of a goal that is compared twice, before the replan's task has run."""
    return _joins("twice")(seen) and "## d:" not in seen.text


SCRIPTS = {"docs/contract.md": _script_contract, "docs/how-to/agents-and-teams.md": _script_teams}


@pytest.mark.timeout(2 * SECONDS)  # a page has up to twenty commands, and machines may be busy
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[] if p.name == "README.md" else [pytest.mark.slow], id=name_of(p))
        for p in PAGES
        if runnable(p) and not is_generated(p)
    ],
)
async def test_every_block_of_a_page_works_in_order(planloom: Planloom, page: Path) -> None:
    name = name_of(page)
    SCRIPTS.get(name, _script_default)(planloom.model)
    said = []
    async with reader(planloom) as read:
        for number, block in enumerate(runnable(page)):
            said.append(await read(block, number))
    absent = [text for text in SAID.get(name, []) if text not in "\n".join(said)]
    assert absent == [], "\n".join(said)


@contextlib.asynccontextmanager
async def reader(planloom: Planloom) -> AsyncIterator[Callable[[Block, int], object]]:
    """Runs blocks in one shell's variables; starts the worker when a page says so."""
    planloom.task_queue, planloom.workspace = "planloom", planloom.folder
    shutil.copytree(CHECKOUT / "examples", planloom.folder / "examples")
    variables = planloom.folder / ".variables"
    shell = {**os.environ, **planloom.env, "NO_COLOR": "1", "HOME": str(planloom.folder / "home")}
    shell["PATH"] = f"{BIN}:{os.environ['PATH']}"
    async with contextlib.AsyncExitStack() as stack:
        has_worker = False

        async def start_worker() -> None:
            nonlocal has_worker
            if not has_worker:
                own = dict(_assignments(variables))
                await stack.enter_async_context(planloom.worker_process(**own))
                has_worker = True

        async def read(block: Block, number: int) -> str:
            if block.starts_worker:
                await start_worker()
                return ""
            if not any(b.starts_worker for b in blocks_of(block.page)):
                await start_worker()
            if block.language == "python":
                script = planloom.folder / f"block_{number}.py"
                script.write_text(block.text, encoding="utf-8")
                command = [sys.executable, *PYTEST * ("def test_" in block.text), str(script)]
            else:
                kept = f"[ -f {variables} ] && . {variables}\n"
                text = f"{kept}set -e\n{block.text}\nexport -p > {variables}\n"
                command = ["bash", "-c", text]
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=planloom.folder,
                env=shell,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            said = await _finished(process)
            assert process.returncode == 0, f"{block}\n{block.text}\n{said}"
            await _look(planloom)
            return said

        try:
            yield read
        finally:
            async for run in planloom.client.list_workflows("ExecutionStatus = 'Running'"):
                with contextlib.suppress(RPCError):
                    await planloom.client.get_workflow_handle(run.id).terminate()


async def _finished(process: asyncio.subprocess.Process) -> str:
    """The output; a block that takes too long is killed with all that it started."""
    try:
        out, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        out = await process.stdout.read() if process.stdout else b""
        await process.wait()
        return f"{out.decode()}\nkilled after {SECONDS} s"
    return out.decode()


def _assignments(variables: Path) -> Iterator[tuple[str, str]]:
    """What the page has exported of Planloom's own variables."""
    if variables.exists():
        yield from re.findall(r'(PLANLOOM_TOOLS|OPENAI_\w+)="([^"]*)"', variables.read_text())


async def _look(planloom: Planloom) -> None:
    """Until every run of the page has ended, or waits for somebody."""
    async for run in planloom.client.list_workflows(f"ExecutionStatus = 'Running' AND {RUNS}"):
        handle = planloom.client.get_workflow_handle(run.id)
        with contextlib.suppress(RPCError):
            if (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:
                ends = asyncio.ensure_future(handle.result())
                waits = asyncio.ensure_future(
                    planloom.until(handle, lambda p: p.awaiting is not None, SECONDS)
                )
                done, rest = await asyncio.wait({ends, waits}, return_when="FIRST_COMPLETED")
                for each in rest:
                    each.cancel()
                for each in done:
                    each.exception()

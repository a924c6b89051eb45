"""Some runs in calm, then the same runs in a storm; what does not hold of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError
from temporalio.service import RPCError
from temporalio.worker import Replayer

from planloom import worker
from planloom.workflows.shell.converter import data_converter
from tests.chaos.cases import Case
from tests.chaos.checks import Ended, violations
from tests.chaos.ledger import Entry, Ledger
from tests.chaos.models import Models
from tests.chaos.people import Person
from tests.chaos.site import Site
from tests.chaos.story import Story, story_of
from tests.model_server import ModelServer
from tests.simulation.chance import Chance, weighted
from tests.support.harness import Handle
from tests.support.nursery import Nursery

log = logging.getLogger("planloom.chaos")

STILL_SECONDS = 55.0
"""A run in which nothing has happened for so long, with all workers up, is stuck. Below the minute
after which a run looks at its children: that alone is no progress."""
KEPT = Path("build/chaos")
FAULTS = {
    "kill": 10.0,
    "freeze": 2.0,
    "terminate": 2.0,
    "kill server": 1.5,
    "restart server": 0.5,
    "fill disk": 1.5,
    "hide blobs": 1.5,
}
IN_THE_ACT = 0.15
"""How often a worker is killed while one of its tools waits for the kit's word."""
STRIKERS = 2
"""While one worker starts again, the next thing may happen to the other."""
NOT_NOW = 0.05
"""How often a tool is told to refuse for now: it has done nothing."""
MODEL_FAULTS = 0.15


@dataclass(slots=True)
class Report:
    """Of one batch."""

    runs: int = 0
    done: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.runs += other.runs
        self.done += other.done
        self.found += other.found


class Batch:
    """Runs that are under way together. `seed` decides what is done to them."""

    def __init__(self, seed: int, cases: list[Case], folder: Path) -> None:
        self.seed = seed
        self.cases = cases
        self.folder = folder
        self.random = Chance(seed).of("storm")
        self.report = Report(runs=len(cases))

    async def run(self, kills: int) -> Report:
        """Calm, then storm: at least `kills` times a worker is killed, while any run goes on."""
        with ModelServer() as server, Nursery() as self._nursery:
            models = Models(server, self.cases)
            calm = await self._phase("calm", models, None)
            server.requests.clear()
            models.seed(self.seed, MODEL_FAULTS)
            storm = await self._phase("storm", models, kills)
        for before, after in zip(calm, storm, strict=True):
            self._check(before, after)
        self.report.done += Counter({f"model: {k}": n for k, n in models.faults.items()})
        return self.report

    def _check(self, calm: Ended, storm: Ended) -> None:
        seed = storm.case.seed
        if calm.result is None:
            self.report.found += told(f"case {seed}", [f"stuck in calm: {calm.stuck}"], calm)
        self.report.found += told(f"case {seed}", violations(calm, storm), storm)
        self.report.done += Counter(
            {
                "tool calls": sum(e.what == "start" for e in storm.entries),
                "side effects": sum(e.what == "act" for e in storm.entries),
                "model calls": storm.paid,
                "attempts lost": sum(storm.story.lost.values()),
                "continued as new": storm.story.continued,
                "unknown outcomes": storm.story.unknown,
                "attempts used up": storm.story.given_up,
            }
        )

    async def _phase(self, name: str, models: Models, kills: int | None) -> list[Ended]:
        folder = self.folder / name
        folder.mkdir(parents=True)
        async with Ledger() as ledger:
            site = Site(folder, self._nursery, ledger.address, models.server.url)
            async with site.up() as client:
                runs = [Attended(client, case, ledger, models, self.random) for case in self.cases]
                await asyncio.gather(*(run.start(site.queue) for run in runs))
                if kills is not None:
                    await self._storm(site, ledger, models, runs, kills)
                ended = await wait_for(runs)
                if kills is not None:
                    self.report.done += site.done
                    self.report.found += [f"blob {b} is broken" for b in site.broken_blobs()]
        return ended

    async def _storm(
        self, site: Site, ledger: Ledger, models: Models, runs: list[Attended], kills: int
    ) -> None:
        storm = Storm(site, self.random, lambda: len(ledger.entries) + len(models.server.requests))
        ledger.hears = storm.hears
        await storm.rage(lambda: all(run.is_over for run in runs), kills)
        ledger.hears = None
        models.chance = 0.0
        log.info("the storm is over: %s", dict(site.done))


class Storm:
    """What happens to a site, timed by what its tools and models do."""

    def __init__(self, site: Site, random: Random, events: Callable[[], int]) -> None:
        self.site = site
        self.random = random
        self.events = events
        self._aside: list[asyncio.Task[None]] = []
        self._killed = asyncio.Event()

    async def hears(self, entry: Entry) -> str:
        """A tool has said something, and waits for the answer."""
        if self.random.random() < IN_THE_ACT:
            worker = self.site.worker_of(entry.pid)
            if worker is not None:
                log.info("kill in the act of %s %s", entry.run, entry.task)
                await self.site.kill(worker)
        if entry.what == "start" and self.random.random() < NOT_NOW:
            return "later"
        return ""

    async def rage(self, is_over: Callable[[], bool], kills: int) -> None:
        """Until all has ended, or so many workers were killed."""

        async def strikes() -> None:
            while not is_over() and self.site.done["worker killed"] < kills:
                await self._after(self.random.randint(0, 3), is_over)
                if not is_over():
                    await self._strike()

        await asyncio.gather(*(strikes() for _ in range(STRIKERS)))
        await asyncio.gather(*self._aside)

    async def _after(self, events: int, is_over: Callable[[], bool]) -> None:
        until, still = self.events() + events, 0.0
        # Where nothing happens, runs wait for what was lost: that is a moment like any other.
        while self.events() < until and not is_over() and still < 3.0:
            before = self.events()
            await asyncio.sleep(0.05)
            still = 0.0 if self.events() > before else still + 0.05

    async def _strike(self) -> None:
        awake = [w for w in self.site.workers if w.is_running and w.pid not in self.site.frozen]
        fault = weighted(self.random, FAULTS)
        log.info("%s, after %d events", fault, self.events())
        if not awake and fault in ("kill", "freeze", "terminate"):
            return
        match fault:
            case "kill":
                await self.site.kill(self.random.choice(awake))
            case "terminate":
                await self.site.terminate(self.random.choice(awake))
            case "freeze":
                seconds = self.random.choice([1.0, 13.0])  # shorter and longer than a heartbeat
                worker = self.random.choice(awake)
                self._beside(self.site.freeze(worker, seconds))
            case "kill server":
                await self.site.kill_server()
            case "restart server":
                await self.site.restart_server()
            case "fill disk":
                self._beside(self.site.fill_disk(self.random.choice([1.0, 4.0])))
            case "hide blobs":
                self._beside(self.site.hide_blobs(self.random, self.random.choice([1.0, 4.0])))

    def _beside(self, work: Any) -> None:
        self._aside = [t for t in self._aside if not t.done()]
        self._aside.append(asyncio.create_task(work))


class Attended:
    """One case on the server, with the person who attends to it."""

    def __init__(
        self, client: Client, case: Case, ledger: Ledger, models: Models, random: Random
    ) -> None:
        self.case = case
        self.id = f"case-{case.seed}"
        self.stuck = ""
        self.first_run = ""
        self._client = client
        self._ledger = ledger
        self._models = models
        self._random = random
        self._result: asyncio.Task[Any] | None = None
        self._person: Person | None = None
        self._attending: asyncio.Task[None] | None = None

    async def start(self, queue: str) -> None:
        handle = await self._client.start_workflow(
            self.case.workflow, self.case.request, id=self.id, task_queue=queue
        )
        self.first_run = handle.first_execution_run_id or ""
        self._person = Person(self._client, self.case, handle, self._random, self.events)
        self._attending = asyncio.create_task(self._person.attend())
        self._result = asyncio.create_task(self._ends(handle))

    def events(self) -> int:
        asked = sum(self.case.mark in s.text for s in self._models.server.seen())
        return len(self._ledger.of(self.id)) + asked

    async def _ends(self, handle: Any) -> Any:
        while True:
            try:
                return await handle.result()
            except RPCError:  # the server is being restarted
                await asyncio.sleep(0.2)
            except WorkflowFailureError as failed:
                return {"status": "failed", "answer": str(failed.cause)}

    @property
    def is_over(self) -> bool:
        return self._result is not None and self._result.done()

    async def size(self) -> int:
        """Grows with everything that happens in the run and its children."""
        size = self.events()
        with contextlib.suppress(RPCError):
            for handle in await self._live():
                described = await handle.describe()
                pending = described.raw_description.pending_activities
                size += described.history_length + sum(a.attempt for a in pending)
                size += described.raw_description.pending_workflow_task.attempt
        return size

    async def _live(self) -> list[Handle]:
        query = f'WorkflowId STARTS_WITH "{self.id}" AND ExecutionStatus = "Running"'
        found = [w.id async for w in self._client.list_workflows(query)]
        own = [id for id in found if id == self.id or id.startswith(f"{self.id}/")]
        return [self._client.get_workflow_handle(id) for id in own]

    async def state(self) -> str:
        """What a developer would look up first, of the run and its children."""
        lines = []
        for handle in await self._live():
            shown: Any = "no answer"
            with contextlib.suppress(Exception):
                shown = await asyncio.wait_for(handle.query("progress"), 5)
            described = await handle.describe()
            pending = [
                f"{a.activity_type.name} attempt {a.attempt} {a.state}: {a.last_failure.message}"
                for a in described.raw_description.pending_activities
            ]
            task = described.raw_description.pending_workflow_task
            waits = f"workflow task attempt {task.attempt} {task.state}" if task.attempt else ""
            events = (await handle.fetch_history()).events[-12:]
            last = [EventType.Name(e.event_type).removeprefix("EVENT_TYPE_") for e in events]
            lines.append(f"{handle.id}: {str(shown)[:1500]} pending {pending} {waits} last {last}")
        return "; ".join(lines)

    async def ended(self) -> Ended:
        assert self._result is not None
        assert self._attending is not None
        assert self._person is not None
        log.info("%s has ended: %s", self.id, self.is_over)
        while not self._attending.done():  # a wait that ends at that moment takes the cancel in
            self._attending.cancel()
            await asyncio.wait([self._attending], timeout=1.0)
        result = self._result.result() if self._result.done() else None
        self._result.cancel()
        story = await story_of(self._client, self.id, self.first_run)
        await replay(story)
        return Ended(
            self.case,
            result,
            self._ledger.of(self.id),
            self._models.paid(self.case),
            story,
            self._person.caps,
            self.stuck,
            [*self._person.faults, *_fault_of(self._attending)],
        )


def told(name: str, broken: Iterable[str], ended: Ended) -> list[str]:
    """The rules that a run broke, a line each; the last says where its histories are kept."""
    lines = [f"{name}: {line}" for line in broken]
    if lines:
        lines[-1] += f" (histories: {_keep(ended)})"
    return lines


def _keep(ended: Ended) -> Path:
    folder = KEPT / f"case-{ended.case.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for n, history in enumerate(ended.story.histories):
        name = history.workflow_id.replace("/", "-")
        (folder / f"{n:02}-{name}.json").write_text(history.to_json(), encoding="utf-8")
    return folder


def _fault_of(task: asyncio.Task[None]) -> list[str]:
    error = None if task.cancelled() else task.exception()
    return [repr(error)] if error else []


async def replay(story: Story) -> None:
    """Every history through the workflow code once more; what differs is a failed task."""
    replayer = Replayer(
        workflows=worker.WORKFLOWS,
        data_converter=data_converter(),
        workflow_runner=worker.RUNNER,
    )
    for history in story.histories:
        try:
            await replayer.replay_workflow(history)
        except workflow.NondeterminismError as changed:
            story.failed_tasks.append(f"it does not replay: {changed}")


async def wait_for(runs: list[Attended]) -> list[Ended]:
    """Until all have ended, or nothing happens any more."""
    before, still = -1, 0.0
    while not all(run.is_over for run in runs) and still < STILL_SECONDS:
        now = sum([await run.size() for run in runs if not run.is_over])
        log.debug("%s", {run.id: await run.size() for run in runs if not run.is_over})
        still = 0.0 if now != before else still + 1.0
        before = now
        await asyncio.sleep(1.0)
    for run in runs:
        if not run.is_over:
            run.stuck = await run.state()
            log.info("%s", run.stuck)
    return [await run.ended() for run in runs]

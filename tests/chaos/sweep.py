"""The crash sweep: five runs, and for each event of their histories a worker killed after it.

`python -m tests.chaos.sweep --every 1`. The runs use every feature between them. Their histories
are short, so that each continues as new, and is also killed while it does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from temporalio.client import Client

from tests.chaos.cases import RETRY, Case, Document, mark_of
from tests.chaos.checks import Ended, violations
from tests.chaos.ledger import Ledger
from tests.chaos.models import Models
from tests.chaos.site import Site
from tests.chaos.storm import Attended, told, wait_for
from tests.model_server import ModelServer
from tests.support.nursery import Nursery

log = logging.getLogger("planloom.chaos")

AT_ONCE = 8
CONTINUED: Final = "workflow_execution_continued_as_new_event_attributes"
POINTS = 1_000
"""Seeds of one run, more than it has events."""


def _tool(id: str, tool: str, **more: Any) -> Document:
    args = more.pop("args", {"key": id})
    return {"id": id, "tool": tool, "args": args, "retry": RETRY, **more}


def graph(seed: int) -> Case:
    """Map, fallback, condition, sub-plan, question, large values."""
    mark = mark_of(seed)
    tasks = [
        _tool("a", "work", args={"key": "large 3"}),
        _tool("m", "work", args={"key": "${item}", "more": "${a.value}"}, map=[1, 2, 3, 4, 5]),
        _tool(
            "bad", "work", args={"key": "fails 4"}, fallback={"tool": "work", "args": {"key": "b"}}
        ),
        {"id": "q", "human": {"question": "Well?"}},
        _tool("no", "work", when="${a.value} > 100"),
        {"id": "sub", "plan": "pair", "args": {"topic": "${q.n}"}},
        {"id": "said", "ask": {"prompt": f"about ${{m}} {mark}"}, "retry": RETRY},
        _tool("held", "put", approval=True, depends_on=["said", "sub"]),
    ]
    plan = {"tasks": tasks, "answer": ["${m}", "${bad}", "${sub}", "${said}", "${held.value}"]}
    return Case(seed, "DagWorkflow", {"plan": plan})


def goal(seed: int) -> Case:
    """A streamed plan, approval, a joiner that replans, and approval again."""
    first = {"tasks": [_tool("t0", "work"), _tool("t1", "search", args={"query": "${t0.value}"})]}
    request = {"goal": f"reach it {mark_of(seed)}", "approval": "always"}
    return Case(seed, "DagWorkflow", request, first_plan=first, replans=True)


def agent(seed: int) -> Case:
    """An agent with tools, and one that asks a person."""
    mark = mark_of(seed)
    tasks = [
        {"id": name, "agent": name, "args": {"task": f"look into it {mark}{name}"}}
        for name in ("helper", "critic")
    ]
    return Case(
        seed, "DagWorkflow", {"plan": {"tasks": tasks, "answer": ["${helper}", "${critic}"]}}
    )


def team(seed: int) -> Case:
    """Two rounds, and a team whose members share the work."""
    mark = mark_of(seed)
    tasks = [
        {"id": "panel", "team": "panel", "args": {"task": f"discuss {mark}p", "rounds": 2}},
        {"id": "crew", "team": "crew", "args": {"task": f"share {mark}c"}, "depends_on": ["panel"]},
    ]
    return Case(seed, "DagWorkflow", {"plan": {"tasks": tasks, "answer": ["${panel}", "${crew}"]}})


def acts(seed: int) -> Case:
    """Side effects of all three kinds, one after the other, over a continue-as-new."""
    kinds = ["post", "sign", "put", "work"] * 3
    tasks = [
        _tool(f"{kind}{n}", kind, args={"key": f"act {n}"}, requires="best_effort")
        | ({"depends_on": [f"{kinds[n - 1]}{n - 1}"]} if n else {})
        for n, kind in enumerate(kinds)
    ]
    return Case(seed, "DagWorkflow", {"plan": {"tasks": tasks}})


RUNS: dict[str, Callable[[int], Case]] = {
    "graph": graph,
    "goal": goal,
    "agent": agent,
    "team": team,
    "acts": acts,
}


@dataclass(slots=True)
class Swept:
    """One row of the table."""

    events: int = 0
    points: list[int] = field(default_factory=list)
    continued: int = 0
    unknown: int = 0
    lost: int = 0
    found: list[str] = field(default_factory=list)


class Sweep:
    """All points of one run."""

    def __init__(
        self, name: str, site: Site, client: Client, ledger: Ledger, models: Models
    ) -> None:
        self.name = name
        self.row = Swept()
        self._make = RUNS[name]
        self._base = (list(RUNS).index(name) + 1) * POINTS
        self._site, self._client, self._ledger, self._models = site, client, ledger, models

    async def calm(self) -> Ended:
        """The run with nothing killed; the events of the run and its children are the points."""
        ended = await self._once(0)
        events = [event for h in ended.story.histories for event in h.events]
        events.sort(key=lambda event: event.event_time.ToNanoseconds())
        self.row.events, self.row.continued = len(events), ended.story.continued
        self._ends = [n for n, event in enumerate(events, 1) if event.HasField(CONTINUED)]
        log.info("%s: %d events, continued at %s", self.name, len(events), self._ends)
        return ended

    def points(self, every: int) -> Iterator[int]:
        """Every so-manieth event, and all around each continue-as-new."""
        near = {end + d for end in self._ends for d in (-2, -1, 0, 1, 2, 3)}
        for n in range(1, self.row.events):
            if n % every == 0 or n in near:
                yield n

    async def point(self, n: int, calm: Ended) -> None:
        """The worker is killed after event `n`, and another one goes on."""
        ended = await self._once(n)
        log.info("%s %d: %s", self.name, n, ended.stuck or "ended")
        self.row.points.append(n)
        self.row.unknown += ended.story.unknown
        self.row.lost += sum(ended.story.lost.values())
        self.row.found += told(f"{self.name}, event {n}", violations(calm, ended), ended)

    async def _once(self, n: int) -> Ended:
        case = self._make(self._base + n)
        self._models.add(case)
        queue = f"{self.name}-{n}"
        worker = self._site.new_worker(self._base + n, queue)
        await worker.start()
        run = Attended(self._client, case, self._ledger, self._models, Random(n))
        try:
            await run.start(queue)
            if n:
                await self._until(run, n)
                await worker.kill()
                await worker.start()
            return (await wait_for([run]))[0]
        finally:
            await worker.kill()

    async def _until(self, run: Attended, n: int) -> None:
        """Until the run and its children have so many events, or the run is over."""
        events = _Events(self._client, n)
        events.follow(run.id, run.first_run)
        while not run.is_over and not events.are_reached.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(events.are_reached.wait(), 0.5)
        await events.stop()


class _Events:
    """Counts the events of a run and its children while they are written."""

    def __init__(self, client: Client, wanted: int) -> None:
        self.are_reached = asyncio.Event()
        self._client = client
        self._left = wanted
        self._following: list[asyncio.Task[None]] = []

    def follow(self, id: str, run: str) -> None:
        """All events of a workflow, in all its runs, and those of its children."""
        self._following.append(asyncio.create_task(self._follow(id, run)))

    async def _follow(self, id: str, run: str) -> None:
        while run:
            handle = self._client.get_workflow_handle(id, run_id=run)
            run = ""
            async for event in handle.fetch_history_events(wait_new_event=True):
                self._left -= 1
                if self._left <= 0:
                    self.are_reached.set()
                if event.HasField("child_workflow_execution_started_event_attributes"):
                    began = event.child_workflow_execution_started_event_attributes
                    child = began.workflow_execution
                    self.follow(child.workflow_id, child.run_id)
                if event.HasField(CONTINUED):
                    after = event.workflow_execution_continued_as_new_event_attributes
                    run = after.new_execution_run_id

    async def stop(self) -> None:
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)


async def sweep(
    names: list[str], every: int, folder: Path, at_once: int = AT_ONCE
) -> dict[str, Swept]:
    """The runs of these names, each with a worker killed after every so-manieth event."""
    rows: dict[str, Swept] = {}
    with ModelServer() as server, Nursery() as nursery:
        models = Models(server, [])
        async with Ledger() as ledger:
            site = Site(folder, nursery, ledger.address, server.url, workers=0)
            async with site.up() as client:
                for name in names:
                    one = Sweep(name, site, client, ledger, models)
                    rows[name] = one.row
                    await _all_points(one, every, at_once)
                    print(line_of(name, one.row), flush=True)
                    for line in one.row.found:
                        print(f"VIOLATION {line}", flush=True)
    return rows


async def _all_points(one: Sweep, every: int, at_once: int) -> None:
    calm = await one.calm()
    if calm.result is None:
        one.row.found += told(one.name, [f"stuck in calm: {calm.stuck}"], calm)
        return
    room = asyncio.Semaphore(at_once)

    async def point(n: int) -> None:
        async with room:
            await one.point(n, calm)

    await asyncio.gather(*(point(n) for n in one.points(every)))


def line_of(name: str, row: Swept) -> str:
    return (
        f"{name:8} {row.events:5} events, {row.continued} continued as new, "
        f"{len(row.points):4} kills, {row.lost:4} attempts lost, {row.unknown:3} unknown, "
        f"{len(row.found)} violations"
    )


async def main(names: list[str], every: int, at_once: int) -> int:
    with tempfile.TemporaryDirectory(prefix="planloom-sweep-") as folder:
        rows = await sweep(names or list(RUNS), every, Path(folder), at_once)
    return sum(len(row.found) for row in rows.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(RUNS)}; default: all")
    parser.add_argument("--every", type=int, default=1, help="only each so-manieth event")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="points under way at once")
    parser.add_argument("--verbose", action="store_true", help="say what is done, and when")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO if given.verbose else logging.WARNING)
    sys.exit(bool(asyncio.run(main(given.names, given.every, given.at_once))))

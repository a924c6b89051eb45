"""A planner model that writes, as its activity tells the run: batches, lost attempts, a reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from planloom.planner.contract.jobs import (
    PlanJob,
    PlannedBatch,
    PlannedTask,
    PlannerAttempt,
    PlanReply,
)
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Problem
from planloom.planner.syntax.calls.parser import call_text
from planloom.workflows.machines.shared.commands import Answer, WritePlan
from planloom.workflows.machines.shared.events import (
    Broke,
    Failure,
    PlannerRetried,
    PlanWritten,
    Returned,
)
from tests.simulation.chance import seconds, some
from tests.simulation.effects import usage_within
from tests.simulation.kinds import reserved_for
from tests.simulation.plans import Document, random_answer, random_condition, random_task

if TYPE_CHECKING:
    from tests.simulation.process import Flight, Process

ATTEMPTS_MAX = 4


# -- what the model writes ------------------------------------------------------------------


def written(job: PlanJob, random: Random) -> list[PlannedTask]:
    """The tasks of one answer: new ones, and of those before some again."""
    before = [t.id for t in job.finished]
    before += [p.task.id for p in job.kept]
    accepted = [p.task.id for p in job.accepted]
    documents: list[Document] = []
    if job.problems:
        documents += _repaired(job, [*before, *accepted], random)
    if not job.problems or random.random() < 0.3:
        size = random.choice([0, 1, 2, 3, 5, 8]) if before or accepted else random.randint(1, 8)
        names = [f"p{job.call}{'abcdefgh'[n]}" for n in range(size)]
        for name in names:
            known = [*before, *accepted, *(d["id"] for d in documents)]
            documents.append(random_task(random, name, known))
    documents += _again(job, before, random)
    documents = [d for d in documents if _cast(d, job, random)]
    tasks = [t for d in documents if (t := _spoiled(d, random)) is not None]
    if tasks and random.random() < 0.15:
        twin = random.choice(tasks)
        tasks.append(twin.model_copy(update={"id": f"{twin.id}x"}))
    if tasks and random.random() < 0.05:
        tasks.append(random.choice(tasks))  # written twice
    return [PlannedTask(task=t, text=call_text(t)) for t in tasks]


def _repaired(job: PlanJob, known: Sequence[str], random: Random) -> list[Document]:
    """Refused tasks once more, mostly as they should be."""
    names = dict.fromkeys(p.path.split(".")[1] for p in job.problems if p.path.startswith("tasks."))
    fresh = [n for n in names if n not in known and n.isidentifier()]
    return [random_task(random, n, known) for n in fresh if random.random() < 0.8]


def _again(job: PlanJob, before: Sequence[str], random: Random) -> list[Document]:
    """Tasks of the plan before: as they were, or in other words."""
    found: list[Document] = []
    for kept in job.kept:
        how = random.random()
        if how < 0.3:
            found.append(kept.task.model_dump(mode="json", exclude_unset=True, by_alias=True))
        elif how < 0.45:
            found.append(random_task(random, kept.task.id, []))
    for ended in job.finished:
        if not ended.outcome.is_good and random.random() < 0.3:
            others = [b for b in before if b != ended.id]
            found.append(random_task(random, ended.id, others))
        elif random.random() < 0.02:
            found.append(random_task(random, ended.id, []))
    return found


def _cast(document: Document, job: PlanJob, random: Random) -> bool:
    """Give a task of an agent to one that the planner was told of; False when there is none."""
    for body in (document, document.get("fallback")):
        if isinstance(body, dict) and "agent" in body:
            if not job.agents:
                return False
            if body["agent"] not in job.agents:
                body["agent"] = random.choice(list(job.agents))
    return job.teams != {} or "team" not in document


def _spoiled(document: Document, random: Random) -> Task | None:
    """Now and then a task that must be refused."""
    how = random.random()
    if how < 0.05 and "args" in document:
        document["args"] = {"kee": "wrong"}
    elif how < 0.08:
        document["depends_on"] = ["nobody"]
    elif how < 0.1 and "tool" in document:
        document["tool"] = "unheard"
    try:
        return Task.model_validate(document)
    except ValidationError:
        return None


def ending(job: PlanJob, names: Sequence[str], random: Random) -> dict[str, Any]:
    """The join line: the answer, what the joiner is shown, when to stop."""
    known = [*names, *(t.id for t in job.finished)]
    more: dict[str, Any] = {}
    if not known:
        return more
    if random.random() < 0.4:
        more |= {"answer": random_answer(random, known), "has_answer": True}
    if random.random() < 0.2:
        more["join_only"] = some(random, known, 2) or None
    if random.random() < 0.1:
        more["stop_when"] = random_condition(random, known)
    if random.random() < 0.03:
        more["join_only"] = ["nobody"]
    if random.random() < 0.05:
        more["is_cut_off"] = True
    if random.random() < 0.05:
        more["problems"] = [Problem(path="line 3", code="not_read", message="what is this?")]
    return more


# -- how it comes ---------------------------------------------------------------------------


@dataclass(slots=True)
class PlannerCall:
    """One planner call under way, over all its attempts."""

    process: Process
    flight: Flight
    attempt: int = 0
    prefix: list[PlannedTask] = field(default_factory=list)
    is_cancelled: bool = False
    tasks: list[PlannedTask] = field(default_factory=list)

    @property
    def job(self) -> PlanJob:
        assert isinstance(self.flight.command, WritePlan)
        return self.flight.command.job

    def start(self) -> None:
        self.prefix = list(self.job.accepted)
        self.tasks = written(self.job, self._random("text"))
        gone = self.process.world.case.without
        self.tasks = [t for t in self.tasks if t.task.id not in gone]
        self._attempt()

    def cancel(self) -> None:
        self.is_cancelled = True

    def _random(self, *names: object) -> Random:
        return self.process.world.random(self.process.id, self.flight.key, *names)

    def _attempt(self) -> None:
        """Write what is not there yet; then the end, or the loss of the worker."""
        self.attempt += 1
        random, world = self._random("attempt", self.attempt), self.process.world
        given = {p.task.id for p in self.prefix}
        todo = [p for p in self.tasks if p.task.id not in given]
        fails = world.case.fails
        is_lost = self.attempt < ATTEMPTS_MAX and random.random() < fails
        if is_lost:
            todo = todo[: random.randint(0, len(todo))]
        at = world.now + seconds(random)
        if self.job.stream:
            at = self._stream(todo, at, random)
        if is_lost:
            world.at(at + seconds(random), self._lost)
            return
        usage = usage_within(
            self.process, random, reserved_for(self.process.state, self.flight.key), self.job.model
        )
        if random.random() < fails * 0.4:
            failed = Failure("the endpoint is gone", "unknown", attempts=1, usage=usage)
            self._end(at, Broke(self.flight.key, failed))
            return
        tasks = [*self.prefix, *todo]
        names = [p.task.id for p in tasks]
        reply = PlanReply(
            tasks=tasks,
            usage=usage,
            attempt=self.attempt,
            **ending(self.job, names, self._random("ending")),
        )
        self._end(at + random.choice([0.0, 0.1]), Returned(self.flight.key, reply))

    def _stream(self, todo: Sequence[PlannedTask], at: float, random: Random) -> float:
        """Batches as signals: most arrive once, some late, twice or never."""
        number, left = 0, list(todo)
        world, attempt = self.process.world, self.attempt
        while left:
            size = random.choice([1, 1, 2, 4])
            batch = PlannedBatch(call=self.job.call, attempt=attempt, seq=number, tasks=left[:size])
            left, number = left[size:], number + 1
            at += random.choice([0.0, 0.2, 1.0])
            how = random.random()
            if how < 0.04:
                continue  # lost with its worker
            for _ in range(2 if how > 0.95 else 1):
                late = 30.0 if 0.9 < how <= 0.92 else 0.0
                world.at(at + late, self._telling(batch))
        return at

    def _telling(self, batch: PlannedBatch) -> Any:
        def tell() -> None:
            if not self.process.is_over:
                self.process.apply(PlanWritten(batch))

        return tell

    def _end(self, at: float, event: Any) -> None:
        self.flight.end = event
        self.process.end(self.flight, event, max(0.0, at - self.process.world.now))

    def _lost(self) -> None:
        """Another worker takes the activity: its attempt asks how far the last one came."""
        process = self.process
        if self.is_cancelled or process.is_over:
            return
        if process.flights.get(self.flight.key) is not self.flight:
            return
        token = process.world.next_token()
        process.tokens[token] = "planner_attempt"
        attempt = PlannerAttempt(call=self.job.call, attempt=self.attempt + 1)
        process.apply(PlannerRetried(attempt, token))
        reply = process.replies.get(token)
        if isinstance(reply, Answer):
            self.prefix = list(reply.reply.accepted)  # type: ignore[union-attr]
            self._attempt()
        elif not process.is_over:
            failed = Failure("it was replaced", "cancelled")
            self._end(process.world.now, Broke(self.flight.key, failed))

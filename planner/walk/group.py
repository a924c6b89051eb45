"""The walk of one group: which of its tasks starts next, with what, and what an end means. Pure.

It decides by the same frontier, references and conditions as the run would. The run applies the
ends one by one afterwards, so what is not certain here (an attempt that may be repeated) is left
open, with all that depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from planloom.planner.compile.passes.resolve import inputs_of
from planloom.planner.contract.groups import GroupJob, GroupReply, UnitEnd
from planloom.planner.contract.jobs import ResolveJob, ToolJob
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Retry, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import Bindings, Outcome, Stored, TaskId
from planloom.planner.walk.frontier import Frontier, Node, Settled, State, Unit
from planloom.planner.walk.names import unit_name, versioned
from planloom.planner.walk.nodes import node_of

RETRY_DEFAULT = Retry()
BEFORE = "before"


@dataclass(frozen=True, slots=True)
class Member:
    """A task of the group, or one item of a map."""

    task: Task
    index: int | None = None
    place: int = 0
    """Of an item, among those of its map that the group has."""


@dataclass(slots=True)
class GroupWalk:
    """A group at work. `next_start` gives what to start, `end` takes how it came out."""

    job: GroupJob
    members: dict[TaskId, Member] = field(default_factory=dict)
    """By name: a task's id, or `rows[3]` for an item."""
    frontier: Frontier = field(default_factory=lambda: Frontier(1))
    values: dict[str, Stored] = field(default_factory=dict)
    """Outputs so far, by task."""
    ends: list[UnitEnd] = field(default_factory=list)
    is_stopped: bool = False
    """Nothing more starts."""

    # -- what starts ------------------------------------------------------------------------

    def next_start(self) -> TaskId | None:
        """The name of what should start now, which counts as started; None: nothing may."""
        if self.is_stopped:
            return None
        unit = self.frontier.next_ready()
        if unit is None:
            return None
        self.frontier.start(unit)
        return unit.task

    def condition_of(self, name: TaskId) -> ResolveJob | None:
        """A task's `when`, with what it reads; None when it has none."""
        member = self.members[name]
        if member.task.when is None or member.index is not None:
            return None
        known = {*self.members, *self.job.outcomes, *self.job.values.inputs}
        bundled = self.job.values.bundle is not None
        roots = roots_of_condition(member.task.when, () if bundled else known)
        ended = {r: o for r in roots if (o := self._outcome_of(TaskId(r))) is not None}
        return ResolveJob(
            value=member.task.when,
            mode="condition",
            bindings=self._bindings(roots),
            outcomes={r: o.value for r, o in ended.items()},
        )

    def job_of(self, name: TaskId) -> ToolJob:
        """The tool call of a task or item, as it would be in its own activity."""
        member, job = self.members[name], self.job
        task = member.task
        bound = self._bindings(roots_of(dict(task.args)))
        if member.index is not None:
            items = job.items[task.id]
            if items.source.is_inline:
                picked = items.source.value[member.place]  # type: ignore[index]
                item: dict[str, Any] = {"item": Stored(value=picked)}
            else:
                item = {"item": items.source, "is_item_of_list": True}
            place = {"index": member.index}
            if job.first_index:
                place["first_index"] = job.first_index
            bound = bound.model_copy(update={**item, **place})
        act = versioned(name, job.versions.get(task.id, 1))
        return ToolJob(
            task=task.id,
            tool=task.tool or "",
            args=task.args,
            bindings=bound,
            key=f"{job.keys}/{act}",
            revision=job.revision,
            cache=task.cache or job.cache,
            cache_scope=job.cache_scope,
            tenant=job.tenant,
            allow=job.allow,
            max_attempts=(task.retry or RETRY_DEFAULT).max_attempts,
        )

    def _bindings(self, roots: tuple[str, ...] | list[str]) -> Bindings:
        given = self.job.values
        inputs: dict[str, Stored] = {}
        for root in roots:
            stored = self.values.get(root) or given.inputs.get(root)
            if stored is not None:
                inputs[root] = stored
            elif TaskId(root) in self.members or given.bundle is None:
                inputs[root] = Stored()  # it has no value: null
        return Bindings(inputs=inputs, bundle=given.bundle)

    def _outcome_of(self, task: TaskId) -> Outcome | None:
        return self.job.outcomes.get(task) or self.frontier.outcome_of(task)

    def is_running(self, name: TaskId) -> bool:
        """Whether it was started, and how it came out is not known."""
        is_at_work = self.frontier.state_of(name) is State.RUNNING
        return is_at_work and not self.frontier.is_idle(name)

    # -- what ends --------------------------------------------------------------------------

    def end(self, end: UnitEnd) -> None:
        """A task or item that was started came out so."""
        name = name_of(end)
        task = self.members[name].task
        self.ends.append(end)
        if end.alone_in is not None:
            self.frontier.idle(name)
        elif end.output is not None:
            self._ended(name, end.output.outcome, end.output.output)
        elif end.failed is None:
            self._ended(name, Outcome.SKIPPED)
        elif task.has_fallback:
            self._ended(name, Outcome.FALLBACK, Stored(value=task.fallback))
        else:
            outcome = Outcome.SKIPPED if task.on_error == "skip" else Outcome.FAILED
            if outcome is Outcome.FAILED and end.index is None:
                self.is_stopped |= self.job.is_failing_fast
            self._ended(name, outcome)

    def _ended(self, name: TaskId, outcome: Outcome, output: Stored | None = None) -> None:
        if output is not None and outcome.is_good:
            self.values[name] = output
        self.settle(self.frontier.end(name, outcome))

    def settle(self, settled: list[Settled]) -> None:
        """Tasks ended because of their inputs."""
        for each in settled:
            if each.outcome is Outcome.FALLBACK:
                self.values[each.task] = Stored(value=self.members[each.task].task.fallback)

    def may_retry(self, name: TaskId, attempt: int = 1) -> bool:
        """Whether a failed attempt may be followed by another."""
        return attempt < (self.members[name].task.retry or RETRY_DEFAULT).max_attempts

    def pause_of(self, name: TaskId) -> float:
        """Seconds before the second attempt."""
        return (self.members[name].task.retry or RETRY_DEFAULT).initial_seconds


def name_of(end: UnitEnd) -> TaskId:
    """What a task or item is called in its group."""
    return unit_name(end.task, end.index)


def begin_walk(job: GroupJob, before: GroupReply | None = None) -> GroupWalk:
    """A walk from its beginning, or from where an earlier attempt of the activity came to."""
    walk = GroupWalk(job, frontier=Frontier(job.parallel))
    outside = [Node(task) for task in job.outcomes]
    walk.frontier.add(outside)
    for name, outcome in job.outcomes.items():
        walk.frontier.settle(name, outcome)
    nodes: list[Node] = []
    names = {*job.outcomes, *(t.id for t in job.tasks)}
    for task in job.tasks:
        if task.id in job.items:
            for place, index in enumerate(job.items[task.id].indexes):
                name = unit_name(task.id, index)
                walk.members[name] = Member(task, index, place)
                nodes.append(Node(name))
        else:
            walk.members[task.id] = Member(task)
            nodes.append(node_of(task, [i for i in inputs_of(task) if i in names]))
    walk.settle(walk.frontier.add(nodes))
    for end in before.ends if before is not None else ():
        _repeat(walk, end)
    return walk


def _repeat(walk: GroupWalk, end: UnitEnd) -> None:
    """What an earlier attempt has seen end starts and ends here too, out of turn."""
    walk.frontier.open_group(BEFORE, [Unit(name_of(end))], [], 0)
    walk.end(end)
    walk.frontier.close_group(BEFORE)

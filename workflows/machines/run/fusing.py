"""Groups: cheap tasks that are ready together, and those that follow them, run as one activity.

The activity walks its part of the graph (`planner/walk/group.py`) and reports what ended. Here the
ends are applied one by one, in their order and at their times, as if each had been an activity of
its own. What the group left open starts when it may, by itself.

The items of a map are taken in ranges (`_add_units`); wide maps can grow from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from planloom.planner.contract.groups import GroupItems, GroupJob, GroupReply, UnitEnd
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import Bindings, JsonValue, Outcome, Stored, TaskId
from planloom.planner.walk.frontier import Unit
from planloom.planner.walk.group import name_of
from planloom.workflows.machines.run.batches import is_batch
from planloom.workflows.machines.run.bodies import amounts_of, key_of, urgency_of
from planloom.workflows.machines.run.groups import release_follower
from planloom.workflows.machines.run.record import Again
from planloom.workflows.machines.run.state import Doing, Group, Pending, Rule, RunState, Work
from planloom.workflows.machines.run.stopping import settle_stop
from planloom.workflows.machines.run.units import (
    body_ended,
    end_cancelled,
    end_unit,
    mark_tainted,
    unit_failed,
)
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.shared.commands import RunGroup
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.sizes import text_bytes

MEMBERS_MAX = 500
SECONDS_MAX = 0.5
"""Likely work of one group, all tasks added up: more goes to several groups, side by side."""
ITEM_SECONDS_MIN = 0.0002
"""What a call takes beside its tool."""
BYTES_MAX = 500_000
"""Of the tasks of a group, as they travel; a payload may hold 2 MiB."""
TASK_BYTES = 120
PARALLEL_MAX = 16
"""Calls that one group makes at once, each in a slot: they share one process."""
NAMES_MAX_CHARS = 300


@dataclass(slots=True)
class _Choice:
    """Who goes together, while it is being chosen."""

    run: RunState
    units: list[Unit] = field(default_factory=list)
    followers: list[TaskId] = field(default_factory=list)
    granted: dict[str, Amount] = field(default_factory=dict)
    seconds: float = 0.0
    size: int = 0
    slots: int = 0
    """How many of the units come before any that cannot join: only these take slots."""

    @property
    def is_full(self) -> bool:
        return (
            len(self.granted) >= MEMBERS_MAX
            or self.seconds >= SECONDS_MAX
            or self.size >= BYTES_MAX
        )

    def add(self, unit: Unit) -> bool:
        """Take a unit in, if there is room in the group and in the budget."""
        run, task, key = self.run, self.run.tasks[unit.task], key_of(unit)
        want, least = amounts_of(run, unit, task)
        if self.is_full:
            return False
        granted = run.account.ledger.reserve(key, want, least)
        if granted is None:
            return False
        self.granted[key] = granted
        node = run.frontier.entries[unit.task].node
        self.seconds += max(node.fuse_seconds or 0.0, ITEM_SECONDS_MIN)
        self.size += TASK_BYTES + (_bytes_of(task) if unit.index is None else 0)
        return True


def may_join(run: RunState, unit: Unit) -> bool:
    """Whether a unit that may start can run in a group."""
    entry, task = run.frontier.entries[unit.task], run.tasks[unit.task]
    if entry.node.fuse_seconds is None or entry.node.is_ahead or unit.mode != "body":
        return False
    if is_batch(run, unit):
        return False
    is_map_itself = task.map is not None and unit.index is None
    return not is_map_itself and key_of(unit) not in run.records[unit.task].again


def start_group(run: RunState, step: Step, first: Unit) -> bool:
    """Start `first` and others that can go with it as one group; False when it stands alone."""
    if not may_join(run, first):
        return False
    choice = _Choice(run)
    _choose(choice)
    if len(choice.granted) < 2 or first not in choice.units[:1]:
        for key in choice.granted:
            account.refund(run.account, key)
        return False
    run.account.ledger.check()
    run.groups_made += 1
    key = f"group.{run.groups_made}"
    slots = min(choice.slots, PARALLEL_MAX, run.frontier.slots_free)
    run.frontier.open_group(key, choice.units, choice.followers, slots)
    now, tainted = run.seconds(step.now), run.tainted
    group = run.groups[key] = Group(now)
    for unit in choice.units:
        mark_tainted(run, unit, tainted)
        record, name = run.records[unit.task], key_of(unit)
        if record.started is None or unit.index is None:
            record.ready = record.ready if record.ready is not None else now
            record.started = now
        run.works[name] = _work(unit, choice.granted[name], key)
        group.members[name] = unit
    for task in choice.followers:
        group.members[task] = Unit(task)
    run.pending[key] = Pending(Rule.GROUP, key)
    step.do(_command(run, key, choice, slots))
    return True


def _work(unit: Unit, granted: Amount, group: str) -> Work:
    return Work(unit, granted, Doing.GROUP, has_begun=True, group=group)


def _choose(choice: _Choice) -> None:
    """Who is ready, best first; then those whose inputs are all in the group or have ended."""
    run, is_first = choice.run, True
    for unit in run.frontier.waiting_units():
        if choice.is_full:
            return
        if may_join(run, unit):
            _add_units(choice, unit)
        elif run.account.ledger.caps.tasks is not None:
            return  # what is set aside for the group could be what this one lacks
        else:
            is_first = False
        if is_first:
            choice.slots = len(choice.units)
    _add_followers(choice)


def _add_followers(choice: _Choice) -> None:
    frontier = choice.run.frontier
    queue = [u.task for u in choice.units if u.index is None]
    ready, looked_at = len(queue), set[TaskId]()
    for n, task in enumerate(queue):  # grows while it is walked
        for dependent in frontier.dependents.get(task, ()):
            # All that are ready are in already: for them one look is enough.
            is_known = dependent in choice.granted or (n < ready and dependent in looked_at)
            if is_known or not _may_follow(choice, dependent):
                looked_at.add(dependent)
                continue
            if not choice.add(Unit(dependent)):
                return
            choice.followers.append(dependent)
            queue.append(dependent)


def _may_follow(choice: _Choice, task: TaskId) -> bool:
    run = choice.run
    entry = run.frontier.entries.get(task)
    if entry is None or entry.node.fuse_seconds is None or run.tasks[task].map is not None:
        return False
    return run.frontier.may_follow(task, choice.granted) and not run.records[task].again


def _bytes_of(task: Task) -> int:
    return text_bytes([dict(task.args), task.fallback, task.description])


def _add_units(choice: _Choice, unit: Unit) -> None:
    """A task, or the items of a map from one that may start on."""
    if unit.index is None:
        if choice.add(unit):
            choice.units.append(unit)
        return
    entry = choice.run.frontier.entries[unit.task]
    is_next = unit.index == entry.unit_next
    for index in range(unit.index, entry.unit_count if is_next else unit.index + 1):
        each = replace(unit, index=index)
        if index in entry.units_skipped:
            continue
        if not choice.add(each):
            return
        choice.units.append(each)


# -- the command ----------------------------------------------------------------------------


def _command(run: RunState, key: str, choice: _Choice, slots: int) -> RunGroup:
    items: dict[TaskId, list[int]] = {}
    plain: list[Task] = []
    for unit in choice.units:
        if unit.index is None:
            plain.append(run.tasks[unit.task])
        else:
            items.setdefault(unit.task, []).append(unit.index)
    plain += [run.tasks[t] for t in choice.followers]
    job = _job(run, plain, items, slots)
    first = run.tasks[choice.units[0].task]
    names = ", ".join([t.id for t in plain] + [_range_of(t, i) for t, i in items.items()])
    summary = f"{len(choice.granted)} tasks: {names[:NAMES_MAX_CHARS]}"
    return RunGroup(key, job, summary, urgency_of(run, first), run.catalog.tools_queue)


def _range_of(task: TaskId, indexes: list[int]) -> str:
    return f"{task}[{indexes[0]}]" if len(indexes) == 1 else f"{task}[{indexes[0]}-{indexes[-1]}]"


def _job(run: RunState, plain: list[Task], items: dict[TaskId, list[int]], slots: int) -> GroupJob:
    """What is not set does not travel: history has one of these for each group."""
    tasks = [*plain, *(_without_map(run.tasks[t]) for t in items)]
    names = {t.id for t in plain}
    more: dict[str, Any] = {}
    if items and run.lineage.first_index:
        more["first_index"] = run.lineage.first_index
    if items:
        more["items"] = {t: _items(run, t, indexes) for t, indexes in items.items()}
    if inputs := _values(run, tasks, names):
        more["values"] = Bindings(inputs=inputs)
    outside = {i: o for t in plain for i in run.inputs[t.id] if (o := run.frontier.outcome_of(i))}
    if outside:
        more["outcomes"] = outside
    versions = {t.id: v for t in tasks if (v := run.records[t.id].version) > 1}
    if versions:
        more["versions"] = versions
    request = run.request
    if request.cache != "off" or any(t.cache for t in tasks):
        more |= {"cache": request.cache, "cache_scope": run.root}
    if request.tenant is not None:
        more["tenant"] = request.tenant
    if request.tools is not None:
        more["allow"] = request.tools
    if request.on_failure == "fail":
        more["is_failing_fast"] = True
    return GroupJob(
        tasks=tasks, keys=run.identity.run_key, revision=run.revision, parallel=slots, **more
    )


def _without_map(task: Task) -> Task:
    """A literal list of a map is long, and its items travel by themselves."""
    return task.model_copy(update={"map": []})


def _items(run: RunState, task: TaskId, indexes: list[int]) -> GroupItems:
    source = run.records[task].items_source
    if source.is_inline:
        whole: JsonValue = source.value
        picked = [whole[i] for i in indexes] if isinstance(whole, list) else []
        source = Stored(value=picked)
    return GroupItems(indexes=indexes, source=source)


def _values(run: RunState, tasks: Iterable[Task], names: set[TaskId]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for task in tasks:
        roots = [*roots_of(dict(task.args))]
        if task.when is not None:
            roots += roots_of_condition(task.when)
        for root in roots:
            if root in found or root in names:
                continue
            stored = run.value_of(root)
            if stored is not None:
                found[root] = stored
    return found


# -- the end --------------------------------------------------------------------------------


def take_group(run: RunState, step: Step, key: str, found: GroupReply | Failure) -> None:
    """The activity of a group has ended: what it reports, one by one; the rest is given back."""
    group = run.groups[key]
    run.frontier.close_group(key)
    alone: dict[str, Again] = {}
    if isinstance(found, GroupReply):
        alone = _take_ends(run, step, key, group, found)
    is_cancelled = isinstance(found, Failure) and found.is_cancelled
    is_lost = isinstance(found, Failure) and not is_cancelled
    for name, unit in list(group.members.items()):
        if name not in run.works:
            release_follower(run, unit.task, key)
            run.frontier.give_back(unit)
        elif is_cancelled:
            end_cancelled(run, step, name)
        else:
            _give_back(run, name, Again() if is_lost else alone.get(name))
    del run.groups[key]


def _take_ends(
    run: RunState, step: Step, key: str, group: Group, reply: GroupReply
) -> dict[str, Again]:
    """What ended; gives what is to go on in its own activity, by name.

    One of the ends may stop the run: of what is cancelled then, only what had begun has run.
    """
    now, alone = run.seconds(step.now), dict[str, Again]()
    begin = max(group.since, now - reply.seconds)
    begun = {name_of(e) for e in reply.ends if e.has_begun}
    for name in group.members:
        if name in run.works:
            run.works[name].has_begun = name in begun
    for end in reply.ends:
        name = name_of(end)
        if name not in group.members:
            continue
        began, ended = (min(now, begin + s) for s in (end.began, end.ended))
        if name not in run.works and not _follow(run, key, end.task, began):
            continue
        record = run.records[end.task]
        if end.index is None:
            record.started = began
        if end.alone_in is not None:
            attempts = 0 if end.failed is None else 1
            alone[name] = Again(attempts, step.now + end.alone_in)
            continue
        at = Step(run.account.started + ended, step.commands)
        _take_end(run, at, name, end)
        settle_stop(run, step)
    return alone


def _follow(run: RunState, key: str, task: TaskId, began: float) -> bool:
    """A follower has run: from now on it is a unit at work like any other."""
    if not run.frontier.follow(task):
        return False
    granted = run.account.ledger.reserved[task]
    run.works[task] = _work(Unit(task), granted, key)
    mark_tainted(run, Unit(task), run.tainted)
    run.records[task].ready = began
    return True


def _take_end(run: RunState, step: Step, name: str, end: UnitEnd) -> None:
    if end.output is not None:
        body_ended(run, step, name, end.output)
    elif end.failed is not None:
        failed = end.failed
        run.works[name].has_begun = failed.has_begun
        unit_failed(run, step, name, Failure(failed.message, failed.error_class, 1, failed.usage))
    else:
        why = f"when: {run.tasks[end.task].when}"
        end_unit(run, step, name, Outcome.SKIPPED, None, reason=why)


def _give_back(run: RunState, name: str, again: Again | None) -> None:
    """A unit goes on without the group: in its own activity when `again` says so."""
    work = run.works.pop(name)
    run.groups[work.group].members.pop(name, None)
    account.refund(run.account, name)
    if again is not None:
        run.records[work.unit.task].again[name] = again
    run.frontier.give_back(work.unit)

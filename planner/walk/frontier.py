"""The frontier: which task may start now. A pure state machine, without Temporal or a clock.

States of a task: `waiting` (an input has not ended), `ready` (may start, in the heap), `running`,
then one of the seven outcomes. Inputs are of two kinds: `inputs` count for `requires`;
`conditions` (read only by `when` or by the alternative path) are merely waited for.

A map is one task whose items run as **units**; a plain task is one unit. Units compete for
`parallel` slots in order of priority, then upward rank, then plan order.

Some units run as a **group**, which holds slots for all of them: units that are ready, and
followers, tasks whose inputs will have ended once the group has walked that far.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Literal

from planloom.planner.language.values import Outcome, TaskId
from planloom.planner.walk.requires import judge_inputs
from planloom.planner.walk.units import Node, Settled, State, Unit

__all__ = [
    "Entry",
    "Frontier",
    "InvalidTransition",
    "Node",
    "Settled",
    "State",
    "Unit",
    "units_of",
]


@dataclass(slots=True)
class Entry:
    """A task in the frontier, and where it stands."""

    node: Node
    order: int
    state: State | Outcome = State.WAITING
    mode: Literal["body", "fallback"] = "body"
    """Which body runs, once it may start."""
    left: int | None = None
    """Inputs that have not ended; None: they are to be counted again."""
    good: int = 0
    """Inputs that ended well, as far as they are counted."""
    is_blocked: bool = False
    """Ended because of its inputs, so another round of those inputs reopens it."""
    is_held: bool = False
    """Waits for a person's yes, or for its condition, before it may start; holds no slot."""
    is_idle: bool = False
    """Runs, but only waits: it has given its slot back."""
    units_left: int = 0
    """Items of an expanded map that have not ended."""
    unit_next: int = 0
    """The next item to start."""
    unit_count: int = 0
    weight: int = 1
    """Slots that each of its units holds."""
    units_running: set[int] = field(default_factory=set)
    units_grouped: set[int] = field(default_factory=set)
    """Those of the running items that a group runs."""
    units_again: list[int] = field(default_factory=list)
    """Items that a group gave back: they start once more."""
    units_skipped: set[int] = field(default_factory=set)
    """Items behind the next one that are not to start."""
    group: str = ""
    """The group that runs it, or that it follows: it holds no slot itself."""


class InvalidTransition(Exception):
    """An event that does not fit the state: a bug in Planloom, with the task's story."""

    def __init__(self, task: TaskId, state: State | Outcome | None, event: str) -> None:
        super().__init__(f"frontier: {event} of task {task!r} in state {state}")


@dataclass(slots=True)
class Frontier:
    """The working set of a run. Every method is total over legal states and O(log N) a change.

    Invariants: a task is `ready` or later only when each of its inputs has ended, or its
    `requires` is met already; at most `parallel` slots are held; a task ends once per round.
    """

    parallel: int
    is_paused: bool = False
    is_stopped: bool = False
    is_closed: bool = False
    entries: dict[TaskId, Entry] = field(default_factory=dict)
    dependents: dict[TaskId, list[TaskId]] = field(default_factory=dict)
    heap: list[tuple[bool, int, float, int, int, Unit]] = field(default_factory=list)
    """What may start, best first. Of a map only the next item: it brings the one after it."""
    slots: int = 0
    groups: dict[str, int] = field(default_factory=dict)
    """How many of the slots each group holds."""
    open: int = 0
    """How many tasks have not ended."""
    added: int = 0
    """How many came in so far: each has its place in the order of the plan."""

    # -- what is asked ---------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """No task is left that could still run."""
        return self.is_closed and self.open == 0

    def state_of(self, task: TaskId) -> State | Outcome | None:
        entry = self.entries.get(task)
        return entry.state if entry else None

    def states(self) -> dict[TaskId, State | Outcome]:
        return {task: entry.state for task, entry in self.entries.items()}

    def outcome_of(self, task: TaskId) -> Outcome | None:
        state = self.state_of(task)
        return state if isinstance(state, Outcome) else None

    def outcomes(self) -> dict[TaskId, Outcome]:
        return {t: e.state for t, e in self.entries.items() if isinstance(e.state, Outcome)}

    def is_idle(self, task: TaskId) -> bool:
        entry = self.entries.get(task)
        return entry is not None and entry.is_idle

    def is_blocked(self, task: TaskId) -> bool:
        """Whether a task ended badly only because of its inputs."""
        entry = self.entries.get(task)
        if entry is None or not entry.is_blocked or not isinstance(entry.state, Outcome):
            return False
        return not entry.state.is_good

    def is_held(self, task: TaskId) -> bool:
        entry = self.entries.get(task)
        return entry is not None and entry.is_held

    def running(self) -> list[TaskId]:
        return [t for t, e in self.entries.items() if e.state is State.RUNNING]

    def unfinished(self) -> list[TaskId]:
        return [t for t, e in self.entries.items() if isinstance(e.state, State)]

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in self.entries.values():
            found[entry.state.value] = found.get(entry.state.value, 0) + 1
        return found

    # -- tasks come and go -----------------------------------------------------------------

    def add(self, nodes: Sequence[Node]) -> list[Settled]:
        """Take in tasks; their inputs are among them or known. One that ended badly may be redone.

        Raises:
            InvalidTransition: a task of that id is unfinished or has a value.
        """
        for node in nodes:
            known = self.entries.get(node.id)
            if known is not None and not (
                isinstance(known.state, Outcome) and not known.state.is_good
            ):
                raise InvalidTransition(node.id, known.state, "second add")
            if known is None:
                self.added += 1
            else:
                self._forget_inputs(known.node)
                self._count_again(node.id)
            self.entries[node.id] = Entry(node, known.order if known else self.added)
            self.open += 1
        for node in nodes:
            for needed in (*node.inputs, *node.conditions):
                self.dependents.setdefault(needed, []).append(node.id)
        return self._judge_all([*(node.id for node in nodes), *self._unready(nodes)])

    def _unready(self, nodes: Sequence[Node]) -> list[TaskId]:
        """What was ready although an input had ended badly that is tried again now: it waits."""
        found = dict.fromkeys(d for node in nodes for d in self.dependents.get(node.id, ()))
        again = [t for t in found if self.state_of(t) is State.READY]
        for task in again:
            self.entries[task].state = State.WAITING
        return again

    def close(self) -> None:
        """No more tasks will come (until `reopen`)."""
        self.is_closed = True

    def reopen(self) -> None:
        self.is_closed = False

    def settle(self, task: TaskId, outcome: Outcome) -> list[Settled]:
        """End a task that has not started: reused from another run, or cancelled, or dropped."""
        entry = self.entries[task]
        if entry.state not in (State.WAITING, State.READY):
            raise InvalidTransition(task, entry.state, f"settle {outcome}")
        return self._end(entry, outcome)

    def drop(self, tasks: Iterable[TaskId]) -> None:
        """Forget tasks that have not started: a new revision left them out."""
        for task in tasks:
            entry = self.entries.get(task)
            if entry is None:
                continue
            if entry.state not in (State.WAITING, State.READY):
                raise InvalidTransition(task, entry.state, "drop")
            # Who reads it is remembered: it may come back in other words, and they still wait.
            del self.entries[task]
            self.open -= 1
            self._forget_inputs(entry.node)

    def _forget_inputs(self, node: Node) -> None:
        for needed in (*node.inputs, *node.conditions):
            waiting = self.dependents.get(needed)
            if waiting and node.id in waiting:
                waiting.remove(node.id)

    def rerank(self, ranks: Mapping[TaskId, float]) -> None:
        """New ranks for what has not started: a longer plan is known now."""
        for task, rank in ranks.items():
            entry = self.entries.get(task)
            if entry is None or entry.node.rank == rank or isinstance(entry.state, Outcome):
                continue
            entry.node = replace(entry.node, rank=rank)
        fresh = [unit for *_, unit in self.heap if self._is_startable(unit)]
        self.heap = []
        for unit in fresh:
            self._push(unit)

    # -- starting --------------------------------------------------------------------------

    def _is_startable(self, unit: Unit) -> bool:
        entry = self.entries.get(unit.task)
        if entry is None:
            return False
        if unit.index is None:
            return entry.state is State.READY and unit.mode == entry.mode and not entry.group
        if entry.state is not State.RUNNING:
            return False
        is_next = unit.index == entry.unit_next < entry.unit_count
        return is_next or unit.index in entry.units_again

    def _peek(self) -> Unit | None:
        if self.is_paused or self.is_stopped:
            return None
        while self.heap and not self._is_startable(self.heap[0][-1]):
            heappop(self.heap)
        if not self.heap:
            return None
        unit = self.heap[0][-1]
        entry = self.entries[unit.task]
        # Always one, however few slots there are by now: else a wide unit would wait forever.
        if self.slots and self.slots + entry.weight > self.parallel and not entry.node.is_free:
            return None
        return unit

    def next_ready(self) -> Unit | None:
        """The unit that should start now, or None: nothing is ready, or no slot is free."""
        return self._peek()

    def start(self, unit: Unit) -> None:
        """The unit that `next_ready` gave has been started."""
        if self._peek() != unit:
            raise InvalidTransition(unit.task, self.state_of(unit.task), "start out of turn")
        heappop(self.heap)
        self._begin(unit)
        entry = self.entries[unit.task]
        if not entry.node.is_free:
            self.slots += entry.weight

    def _begin(self, unit: Unit) -> None:
        entry = self.entries[unit.task]
        entry.state = State.RUNNING
        if unit.index is None:
            return
        entry.units_running.add(unit.index)
        if unit.index in entry.units_again:
            entry.units_again.remove(unit.index)
            return
        entry.unit_next += 1
        self._push_next(entry)

    def _push_next(self, entry: Entry) -> None:
        while entry.unit_next in entry.units_skipped:
            entry.units_skipped.discard(entry.unit_next)
            entry.unit_next += 1
        if entry.unit_next < entry.unit_count:
            self._push(Unit(entry.node.id, entry.unit_next))

    def expand(self, task: TaskId, count: int, *, ended: int = 0, weight: int = 1) -> None:
        """A running map has `count` items: its own slot is freed, and its units become ready.

        The first `ended` of them have ended already, in an earlier round. Each holds `weight`
        slots.
        """
        entry = self.entries[task]
        if entry.state is not State.RUNNING or entry.unit_count:
            raise InvalidTransition(task, entry.state, "expand")
        self._release(entry)
        entry.unit_count, entry.unit_next, entry.units_left = count, ended, count - ended
        entry.weight = weight
        if ended < count:
            self._push(Unit(task, ended))

    def end_unit(self, task: TaskId, index: int) -> bool:
        """One item ended; True when it was the last, so that the map itself can end."""
        entry = self.entries[task]
        if entry.state is not State.RUNNING or index not in entry.units_running:
            raise InvalidTransition(task, entry.state, f"end of item {index}")
        entry.units_running.discard(index)
        entry.units_left -= 1
        if index in entry.units_grouped:
            entry.units_grouped.discard(index)
        else:
            self._release(entry)
        return entry.units_left == 0

    def skip_unit(self, task: TaskId, index: int) -> bool:
        """An item that has not started will not; True when none of its map is left."""
        entry = self.entries[task]
        if index in entry.units_again:
            entry.units_again.remove(index)
        elif index in range(entry.unit_next, entry.unit_count) and index not in entry.units_skipped:
            entry.units_skipped.add(index)
            self._push_next(entry)
        else:
            raise InvalidTransition(task, entry.state, f"skip of item {index}")
        entry.units_left -= 1
        return entry.units_left == 0

    def abandon_units(self, task: TaskId) -> int:
        """Items of a map that have not started will not: how many. The running ones still end."""
        entry = self.entries[task]
        waiting = entry.units_left - len(entry.units_running)
        entry.units_left = len(entry.units_running)
        entry.unit_count = entry.unit_next
        entry.units_again, entry.units_skipped = [], set()
        return waiting

    def hold(self, task: TaskId) -> None:
        """A task that was just started waits for a person first: it gives its slot back."""
        entry = self.entries[task]
        if entry.state is not State.RUNNING or entry.units_left:
            raise InvalidTransition(task, entry.state, "hold")
        self._release(entry)
        entry.state, entry.is_held = State.WAITING, True

    def idle(self, task: TaskId) -> None:
        """A running task has done its work and only waits now: others may have its slot."""
        entry = self.entries[task]
        if entry.state is not State.RUNNING or entry.units_left or entry.is_idle:
            raise InvalidTransition(task, entry.state, "idle")
        self._release(entry)
        entry.is_idle = True

    def release(self, task: TaskId) -> list[Settled]:
        """A held task may start now, if its inputs still let it."""
        entry = self.entries[task]
        if not entry.is_held:
            raise InvalidTransition(task, entry.state, "release")
        entry.is_held = False
        return self._judge_all([task])

    # -- groups ----------------------------------------------------------------------------

    @property
    def slots_free(self) -> int:
        return max(0, self.parallel - self.slots)

    def may_follow(self, task: TaskId, group: Collection[str]) -> bool:
        """Whether a waiting task could start once the tasks of a group have ended."""
        entry = self.entries.get(task)
        if entry is None or entry.state is not State.WAITING or entry.is_held or entry.group:
            return False
        if entry.node.is_ahead:
            return False
        if entry.left is not None and entry.left > len(group):
            return False  # of a task with thousands of inputs, most are not looked at
        needed = (*entry.node.inputs, *entry.node.conditions)
        return all(i in group or self._has_ended(i) for i in needed)

    def waiting_units(self) -> Iterator[Unit]:
        """All units that could start now if there were slots enough, best first.

        Whoever stops early need not pay for the order of all.
        """
        if self.is_paused or self.is_stopped:
            return
        heap, seen = list(self.heap), set[Unit]()
        while heap:
            unit = heappop(heap)[-1]
            if unit not in seen and self._is_startable(unit):
                seen.add(unit)
                yield unit

    def open_group(
        self, group: str, units: Sequence[Unit], followers: Sequence[TaskId], slots: int
    ) -> None:
        """Start units that may start now as a group that holds `slots`; `followers` run after them.
        Items of a map come in order, from the one that is next.
        """
        for unit in units:
            entry = self.entries[unit.task]
            if not self._is_startable(unit):
                raise InvalidTransition(unit.task, entry.state, f"start in {group}")
            self._begin(unit)
            if unit.index is None:
                entry.group = group
            else:
                entry.units_grouped.add(unit.index)
        for task in followers:
            entry = self.entries[task]
            if entry.state is not State.WAITING or entry.group:
                raise InvalidTransition(task, entry.state, f"follow {group}")
            entry.group = group
        self.groups[group] = slots
        self.slots += slots

    def close_group(self, group: str) -> None:
        """The group has ended, and gives its slots back; its units end or are given back."""
        self.slots -= self.groups.pop(group)

    def follow(self, task: TaskId) -> bool:
        """A follower has run, if its inputs let it: then it is running, and can end."""
        entry = self.entries[task]
        if entry.state is not State.READY or not entry.group:
            return False
        entry.state = State.RUNNING
        return True

    def give_back(self, unit: Unit) -> None:
        """A unit leaves its group without an outcome: it starts when it may, by itself."""
        entry = self.entries[unit.task]
        if unit.index is not None:
            entry.units_running.discard(unit.index)
            entry.units_grouped.discard(unit.index)
            entry.units_again.append(unit.index)
            self._push(unit)
            return
        entry.group = ""
        if entry.state is State.RUNNING:
            entry.state = State.READY
        if entry.state is State.READY:
            self._push(Unit(unit.task, mode=entry.mode))

    # -- ending ----------------------------------------------------------------------------

    def end(self, task: TaskId, outcome: Outcome, *, was_expanded: bool = False) -> list[Settled]:
        """A running task has ended; returns the tasks that its end settles in turn."""
        entry = self.entries[task]
        if entry.state is not State.RUNNING:
            raise InvalidTransition(task, entry.state, f"end {outcome}")
        if not was_expanded:
            self._release(entry)
        return self._end(entry, outcome)

    def retry_round(
        self, tasks: Iterable[TaskId], planned: Container[TaskId] | None = None
    ) -> tuple[list[TaskId], list[Settled]]:
        """Open failed tasks again, and with them all that their failure had settled.

        Of the latter only those that are `planned`: a revision may have left some out.
        Returns what was opened, and of that what another input, which stays failed, settles again.
        """
        again = [t for t in tasks if isinstance(self.state_of(t), Outcome)]
        opened = dict.fromkeys(again)
        while again:
            entry = self.entries[again.pop()]
            entry.state, entry.is_blocked = State.WAITING, False
            entry.unit_count = entry.unit_next = entry.units_left = 0
            entry.weight, entry.units_again, entry.units_skipped = 1, [], set()
            self.open += 1
            self._count_again(entry.node.id)
            for dependent in self.dependents.get(entry.node.id, ()):
                behind = self.entries.get(dependent)
                if behind is None or (planned is not None and dependent not in planned):
                    continue
                if behind.is_blocked and dependent not in opened:
                    opened[dependent] = None
                    again.append(dependent)
        in_order = sorted(opened, key=lambda t: self.entries[t].order)
        return in_order, self._judge_all(in_order)

    # -- inside ----------------------------------------------------------------------------

    def _release(self, entry: Entry) -> None:
        if not entry.node.is_free and not entry.is_idle and not entry.group:
            self.slots -= entry.weight

    def _push(self, unit: Unit) -> None:
        entry = self.entries[unit.task]
        if entry.group:
            return
        node, index = entry.node, unit.index if unit.index is not None else -1
        guesses = node.is_ahead and not self._is_decidable(entry)
        heappush(self.heap, (guesses, node.priority, -node.rank, entry.order, index, unit))

    def _is_decidable(self, entry: Entry) -> bool:
        return all(self._has_ended(i) for i in entry.node.conditions)

    def _end(self, entry: Entry, outcome: Outcome) -> list[Settled]:
        entry.state, entry.is_held, entry.is_idle, entry.group = outcome, False, False, ""
        self.open -= 1
        return self._judge_all(self._note_end(entry.node.id, outcome))

    def _note_end(self, task: TaskId, outcome: Outcome) -> Sequence[TaskId]:
        """A task has ended: what waits for it counts that, and is to be judged."""
        waiting = self.dependents.get(task, ())
        for dependent in waiting:
            entry = self.entries.get(dependent)
            if entry is not None and entry.left is not None and task not in entry.node.conditions:
                entry.left -= 1
                entry.good += outcome.is_good
        return waiting

    def _count_again(self, task: TaskId) -> None:
        """A task that had ended is open again."""
        for dependent in self.dependents.get(task, ()):
            if (entry := self.entries.get(dependent)) is not None:
                entry.left = None

    def _judge_all(self, tasks: Iterable[TaskId]) -> list[Settled]:
        """Judge tasks, and in turn those behind any that this settles."""
        settled: list[Settled] = []
        queue = list(tasks)
        for task in queue:  # grows while it is walked
            entry = self.entries.get(task)
            if entry is not None and entry.state is State.READY and entry.node.is_ahead:
                self._push(Unit(task))  # its condition may be known now: it guesses no more
            if entry is None or entry.state is not State.WAITING or entry.is_held:
                continue
            decided = self._judge(entry)
            if decided is None:
                continue
            settled.append(decided)
            entry.state, entry.is_blocked, entry.group = decided.outcome, True, ""
            self.open -= 1
            queue.extend(self._note_end(task, decided.outcome))
        return settled

    def _judge(self, entry: Entry) -> Settled | None:
        """Make a waiting task ready if it may run; say how it ends if it never can."""
        node = entry.node
        if entry.left is None:
            ended = [o for i in node.inputs if (o := self.outcome_of(i)) is not None]
            entry.left, entry.good = len(node.inputs) - len(ended), sum(o.is_good for o in ended)
        verdict = judge_inputs(node.requires, len(node.inputs), entry.good, entry.left)
        if verdict == "wait":
            return None
        if verdict == "run":
            if node.is_ahead or self._is_decidable(entry):
                entry.state, entry.mode = State.READY, "body"
                self._push(Unit(node.id))
            return None
        bad = tuple(i for i in node.inputs if (o := self.outcome_of(i)) and not o.is_good)
        match node.fallback:
            case "value":
                return Settled(node.id, Outcome.FALLBACK, bad)
            case "body":
                if all(self._has_ended(i) for i in (*node.inputs, *node.conditions)):
                    entry.state, entry.mode = State.READY, "fallback"
                    self._push(Unit(node.id, mode="fallback"))
                return None
            case None:
                outcome = Outcome.FAILED if node.on_error == "fail" else Outcome.SKIPPED
                return Settled(node.id, outcome, bad)

    def _has_ended(self, task: TaskId) -> bool:
        # An input that is not among the tasks was finished by an earlier revision.
        return not isinstance(self.state_of(task), State)

    def check(self) -> None:
        """Assert the invariants; tests call it after every step."""
        held = sum(
            (len(e.units_running) - len(e.units_grouped)) * e.weight
            if e.unit_count
            else not e.group
            for e in self.entries.values()
            if e.state is State.RUNNING and not e.node.is_free and not e.is_idle
        )
        assert held + sum(self.groups.values()) == self.slots, (held, self.groups, self.slots)
        assert self.open == len(self.unfinished())
        for task, entry in self.entries.items():
            assert entry.order >= 0
            ended = [o for i in entry.node.inputs if (o := self.outcome_of(i)) is not None]
            counted = (len(entry.node.inputs) - len(ended), sum(o.is_good for o in ended))
            assert entry.left is None or (entry.left, entry.good) == counted, task
            assert entry.units_grouped <= entry.units_running
            assert not entry.group or isinstance(entry.state, State), task
            if entry.state is State.READY and not entry.group:
                assert any(u.task == task for *_, u in self.heap), f"{task} is ready and lost"


def units_of(frontier: Frontier) -> Iterator[Unit]:
    """Start everything that may start now, in order (for tests and simulations)."""
    while (unit := frontier.next_ready()) is not None:
        frontier.start(unit)
        yield unit

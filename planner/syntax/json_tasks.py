"""The tasks of a JSON plan: checked as they come, given out when all they read is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import ValidationError

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import PLANNED_TASKS_MAX, Task
from planloom.planner.language.values import RESERVED_IDS, VALUE_NAMES, Problem, is_deeper
from planloom.planner.syntax.calls.text import call_text, is_same_call
from planloom.planner.syntax.documents import NESTING_MAX, problems_from_validation, too_deep
from planloom.planner.syntax.json_text import parse_json
from planloom.planner.syntax.parsed_plan import (
    Meant,
    ParsedEnd,
    as_literal,
    has_side_effects,
    read_places,
)


@dataclass(slots=True)
class _Waiting:
    """A task that reads tasks which are not written yet, or has side effects."""

    task: Task
    text: str
    inputs: dict[str, str]
    """First name read to the place where."""


class JsonTasks:
    """Task objects in, tasks out. Problems and counts go into `end`.

    `given` are ids of earlier plans or attempts with their calls, None where only the id is known;
    `kept` are tasks of the plan before that have not ended.
    """

    def __init__(
        self,
        tools: Mapping[str, ToolSpec],
        given: Mapping[str, str | None],
        kept: Collection[str],
        end: ParsedEnd,
        meant: Meant,
    ) -> None:
        self._meant = meant
        self._tools = tools
        self._given = given
        self._readable = {*given, *kept}
        self._end = end
        self.seen = 0
        """Task objects that came, good or not."""
        self._ids: dict[str, int] = {}
        self._calls: dict[str, str] = {}
        self._good: set[str] = set()
        self._failed: set[str] = set()
        self._waiting: dict[str, _Waiting] = {}
        self._held: dict[str, _Waiting] = {}
        """Tasks with side effects: they, and what reads them, wait for the document's end."""

    def _report(self, path: str, code: str, message: str, hint: str = "") -> None:
        self._end.problems.append(Problem(path=path, code=code, message=message, hint=hint))

    # -- one task ---------------------------------------------------------------------------

    def read(self, text: str) -> list[PlannedTask]:
        """The tasks that may be given out now that this one is here."""
        where, number = f"tasks[{self.seen}]", self.seen
        self.seen += 1
        if len(self._ids) >= PLANNED_TASKS_MAX:
            if not any(p.code == "too_many" for p in self._end.problems):
                message = f"more than {PLANNED_TASKS_MAX:,} tasks: the rest is left out"
                self._report("plan", "too_many", message)
            return []
        try:
            document = parse_json(text)
        except ValueError as error:
            self._report(where, "syntax", f"is not valid JSON: {error}")
            return []
        document = self._as_meant(document)
        name = document.get("id")
        if not isinstance(name, str):
            self._validated(document, where)
            return []
        if name in self._ids:
            self._read_twice(document, name, number)
            return []
        self._ids[name] = number
        if name in self._given:
            self._check_again(document, name)
            return []
        task = self._checked(document, name)
        if task is None:
            self._failed.add(name)
            return []
        self._calls[name] = call_text(task)
        inputs = {root: place for place, root in reversed(list(read_places(document)))}
        inputs = {r: p for r, p in inputs.items() if r not in (*VALUE_NAMES, *self._readable)}
        self._waiting[name] = _Waiting(task, text, inputs)
        return self._release([name])

    def _as_meant(self, document: dict[str, Any]) -> dict[str, Any]:
        """Without the nulls by which a strict endpoint says "none", arguments by their schema."""
        document = {k: v for k, v in document.items() if v is not None}
        args, spec = document.get("args"), self._tools.get(str(document.get("tool")))
        if spec is not None and isinstance(args, dict):
            document["args"] = self._meant(args, spec.parameters)
        return document

    def _read_twice(self, document: dict[str, Any], name: str, number: int) -> None:
        first = self._ids[name] + 1
        if (before := self._calls.get(name)) and _call_of(document) == before:
            self._end.warnings.append(f"task {number + 1} repeats task {first}; it was left out")
            return
        message = f'id "{name}" is used twice: tasks {first} and {number + 1}'
        hint = "Give the later one its own id."
        self._report(f"tasks.{name}", "duplicate_id", message, hint)

    def _validated(self, document: dict[str, Any], where: str) -> Task | None:
        if is_deeper(document, NESTING_MAX - 2):  # the plan stands around it
            self._end.problems.append(too_deep(where))
            return None
        try:
            return Task.model_validate(document)
        except ValidationError as error:
            self._end.problems += problems_from_validation(error, document, Task, where)
            return None

    def _checked(self, document: dict[str, Any], name: str) -> Task | None:
        where = f"tasks.{name}"
        task, is_good = self._validated(document, where), True
        if name in RESERVED_IDS:
            message = f'"{name}" is a reserved id ({", ".join(RESERVED_IDS)})'
            self._report(where, "reserved_id", message)
            is_good = False
        tool = document.get("tool")
        if self._tools and isinstance(tool, str) and tool not in self._tools:
            near = get_close_matches(tool, self._tools, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Tools: " + ", ".join(self._tools)
            self._report(f"{where}.tool", "unknown_tool", f'no tool "{tool}"', hint)
            is_good = False
        return task if is_good else None

    def _check_again(self, document: dict[str, Any], name: str) -> None:
        """A known id is written again: left out when it is the same call, else a problem."""
        before = self._given[name]
        if before is None:
            self._end.warnings.append(f'task "{name}" exists already; it was left out')
        elif not is_same_call(_call_of(document), before):
            hint = "Give the new task its own id."
            message = f'"{name}" exists already, as another call'
            self._report(f"tasks.{name}", "duplicate_id", message, hint)

    # -- giving out -------------------------------------------------------------------------

    def _release(self, names: Sequence[str], *, holds: bool = True) -> list[PlannedTask]:
        """Those of the tasks whose inputs are there, and the ones that waited for them."""
        released: list[PlannedTask] = []
        candidates = list(names)
        while candidates:
            name = candidates.pop(0)
            waiting = self._waiting.get(name)
            if waiting is None or any(i not in self._good for i in waiting.inputs):
                continue
            del self._waiting[name]
            if holds and has_side_effects(waiting.task, self._tools):
                self._held[name] = waiting
                continue
            self._good.add(name)
            self._end.tasks += 1
            released.append(PlannedTask(task=waiting.task, text=waiting.text))
            candidates += [n for n, w in self._waiting.items() if name in w.inputs]
        return released

    def release_held(self) -> list[PlannedTask]:
        """The document has closed: the tasks with side effects belong to the plan."""
        self._waiting = {**self._held, **self._waiting}
        names, self._held = list(self._held), {}
        return self._release(names, holds=False)

    def drop_held(self) -> None:
        """The text broke off: they, and what waits for them, are written again."""
        dropped = set(self._held)
        while more := {n for n, w in self._waiting.items() if dropped & w.inputs.keys()} - dropped:
            dropped |= more
        self._waiting = {n: w for n, w in self._waiting.items() if n not in dropped}
        self._held.clear()

    # -- the end ----------------------------------------------------------------------------

    def _cycle(self) -> list[str]:
        """Tasks that wait for each other, each reading the next; empty when none do."""
        graph = {n: [r for r in w.inputs if r != n] for n, w in self._waiting.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            names: list[str] = error.args[1]
            return names[:0:-1]
        return []

    def settle(self, *, is_cut_off: bool) -> None:
        """What still waits can never start: say why."""
        cycle = self._cycle()
        if cycle:
            path = " -> ".join([*cycle, cycle[0]])
            message = f"these tasks wait for each other: {path}"
            self._report("tasks", "cycle", message, "Leave one of these references out.")
        for name, waiting in self._waiting.items():
            for root, place in waiting.inputs.items():
                where = f"tasks.{name}.{place}"
                if root in cycle and name in cycle:
                    continue  # told already, all of them together
                if root == name:
                    self._report(where, "self_reference", f"{name} refers to itself")
                elif root in self._waiting:
                    message = f'reads "{root}", which cannot start either'
                    self._report(where, "input_not_accepted", message, f"Fix {root} first.")
                elif root in self._failed:
                    message = f'reads "{root}", which was not accepted'
                    self._report(where, "input_not_accepted", message, f"Fix {root} first.")
                elif root not in self._good:
                    message = f'no task "{root}"' + (" before the cut" if is_cut_off else "")
                    self._report(where, "missing_reference", message, self._near(root, name))
        self._failed |= set(self._waiting)

    def check_joined(self, place: str, root: str) -> None:
        """Whether the answer or join may read a name."""
        if root in self._good or root in self._readable or root == "params":
            return
        if root in self._ids:
            message = f'reads "{root}", which was not accepted'
            self._report(place, "input_not_accepted", message, f"Fix {root} first.")
        else:
            self._report(place, "missing_reference", f'no task "{root}"', self._near(root))

    def _near(self, root: str, name: str = "") -> str:
        names = [n for n in (*sorted(self._readable), *self._ids) if n != name]
        near = get_close_matches(root, names, n=1)
        if near:
            return f'Did you mean "{near[0]}"?'
        others = "Tasks: " + ", ".join(names[:12]) if names else "There are no other tasks"
        return f"{others}. {as_literal(root)}"


def _call_of(document: dict[str, Any]) -> str:
    try:
        return call_text(Task.model_validate(document))
    except ValidationError:
        return ""

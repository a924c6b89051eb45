"""The planner's syntax `json`: a plan document whose tasks are read while it streams.

The scanner follows strings and brackets only, so each task is given out by the chunk that holds its
closing brace, and no character is looked at twice. Text around the document is left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.plan import TASKS_MAX, Plan, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import RESERVED_IDS, VALUE_NAMES, Problem
from planloom.planner.syntax.calls.parser import ParsedEnd, read_places
from planloom.planner.syntax.calls.text import call_text, earlier_calls, is_same_call
from planloom.planner.syntax.documents import problems_from_validation
from planloom.planner.syntax.json_text import parse_json

REMARKS = ("thought", "thoughts", "reasoning", "explanation", "comment", "notes")
"""What models write beside a plan: left out, with a warning."""
_ID = re.compile(r'\{\s*"id"\s*:\s*"([^"\\]{1,100})"')
_HINT = 'Answer with one JSON object: {"tasks": [{"id": …, "tool": …, "args": {…}}], …}.'


class PlanScanner:
    """Characters in, task objects out: those of the list `tasks` of a document.

    The document may stand inside `{"plan": …}`, or be the bare list of tasks. `document` is its
    text once its last bracket has closed.
    """

    def __init__(self) -> None:
        self.document: str | None = None
        self._text: list[str] = []
        self._stack: list[str] = []
        """Open brackets, each with the key it is the value of: `{`, `[tasks`."""
        self._is_string = self._is_escaped = False
        self._string: list[str] = []
        self._key = ""
        self._task_at: int | None = None

    @property
    def is_open(self) -> bool:
        return bool(self._stack)

    @property
    def open_task(self) -> str | None:
        """The text of the task that is not closed yet."""
        return None if self._task_at is None else "".join(self._text[self._task_at :])

    def step(self, char: str) -> str | None:
        """Follow one character; the text of a task object when it closes."""
        if not self._stack:
            if char in "{[":
                self._text, self._key, self._task_at = [char], "", None
                self._stack.append(char)
            return None
        self._text.append(char)
        if self._is_string:
            self._in_string(char)
        elif char == '"':
            self._is_string, self._string = True, []
        elif char in "{[":
            if char == "{" and self._is_task_list():
                self._task_at = len(self._text) - 1
            self._stack.append(char + self._key)
            self._key = ""
        elif char in "}]":
            return self._close()
        elif char == ":":
            self._key = "".join(self._string)
        elif char == ",":
            self._key = ""
        return None

    def _in_string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == '"':
            self._is_string = False
            return
        if len(self._stack) <= 2:
            self._string.append(char)

    def _is_task_list(self) -> bool:
        return self._stack in (["["], ["{", "[tasks"], ["{", "{plan", "[tasks"])

    def _close(self) -> str | None:
        self._stack.pop()
        if not self._stack:
            self.document = "".join(self._text)
        if self._task_at is not None and self._is_task_list():
            done, self._task_at = "".join(self._text[self._task_at :]), None
            return done
        return None


@dataclass(slots=True)
class _Waiting:
    """A task that reads tasks which are not written yet."""

    task: Task
    text: str
    inputs: dict[str, str]
    """First name read to the place where."""


class JsonPlanParser:
    """Text in, tasks out, as they complete; `close` tells the rest. See `CallsParser`.

    A task that reads one written further down is given out with that one. Without `tools`, names of
    tools are not looked at.
    """

    def __init__(
        self,
        tools: Sequence[ToolSpec] = (),
        earlier: Sequence[str] | Mapping[str, str] = (),
        kept: Collection[str] = (),
    ) -> None:
        self._tools = [t.name for t in tools]
        self._given = earlier_calls(earlier)
        self._readable = {*self._given, *kept}
        self._scanner = PlanScanner()
        self._ids: dict[str, int] = {}
        self._good: set[str] = set()
        self._failed: set[str] = set()
        self._waiting: dict[str, _Waiting] = {}
        self._seen = 0
        self._end = ParsedEnd()
        self._why = ""
        self._is_over = False

    # -- text in ----------------------------------------------------------------------------

    def feed(self, text: str) -> list[PlannedTask]:
        """The tasks that this piece of text completes."""
        tasks: list[PlannedTask] = []
        scanner = self._scanner
        for char in text:
            if self._is_over:
                break
            done = scanner.step(char)
            if done is not None:
                tasks += self._read(done)
            elif scanner.document is not None:
                self._read_document(scanner.document)
                scanner.document = None
        return tasks

    def close(self, is_cut_off: bool = False) -> ParsedEnd:
        """No more text comes; `is_cut_off`: the model hit its length limit."""
        end = self._end
        self._settle(is_cut_off and not self._is_over)
        if not self._is_over and (is_cut_off or self._scanner.is_open):
            self._report_open("cut off" if is_cut_off else "not closed")
        elif not self._is_over and self._why and not end.problems:
            self._report("plan", "syntax", f"is no JSON: {self._why}", _HINT)
        if not self._seen and not end.problems and not end.has_answer:
            self._report("plan", "no_tasks", "no tasks in the answer", _HINT)
        return end

    def _report(self, path: str, code: str, message: str, hint: str = "") -> None:
        self._end.problems.append(Problem(path=path, code=code, message=message, hint=hint))

    def _report_open(self, verb: str) -> None:
        partial = self._scanner.open_task
        match = _ID.match(partial) if partial is not None else None
        if partial is None:
            self._report("plan", "cut_off", f"{verb} inside the document")
        elif match:
            message = f'{verb} inside task "{match[1]}"'
            self._report(f"tasks.{match[1]}", "cut_off", message)
        else:
            self._report("plan", "cut_off", f"{verb} inside task {self._seen + 1}")

    # -- one task ---------------------------------------------------------------------------

    def _read(self, text: str) -> list[PlannedTask]:
        where, number = f"tasks[{self._seen}]", self._seen
        self._seen += 1
        if self._end.tasks + len(self._waiting) >= TASKS_MAX:
            if not any(p.code == "too_many" for p in self._end.problems):
                message = f"more than {TASKS_MAX:,} tasks: the rest is left out"
                self._report("plan", "too_many", message)
            return []
        try:
            document = parse_json(text)
        except ValueError as error:
            self._report(where, "syntax", f"is no JSON: {error}")
            return []
        name = document.get("id")
        if not isinstance(name, str):
            self._validated(document, where)
            return []
        where = f"tasks.{name}"
        if name in self._ids:
            message = f'id "{name}" is used twice: tasks {self._ids[name] + 1} and {number + 1}'
            self._report(where, "duplicate_id", message, "Give the later one an id of its own.")
            return []
        self._ids[name] = number
        if name in self._given:
            self._check_again(document, name)
            return []
        task = self._checked(document, name)
        if task is None:
            self._failed.add(name)
            return []
        inputs = {root: place for place, root in reversed(list(read_places(document)))}
        inputs = {r: p for r, p in inputs.items() if r not in (*VALUE_NAMES, *self._readable)}
        self._waiting[name] = _Waiting(task, text, inputs)
        return self._release(name)

    def _validated(self, document: dict[str, Any], where: str) -> Task | None:
        try:
            return Task.model_validate(document)
        except ValidationError as error:
            self._end.problems += problems_from_validation(error, document, Task, where)
            return None

    def _checked(self, document: dict[str, Any], name: str) -> Task | None:
        task, where, has_problem = (
            self._validated(document, f"tasks.{name}"),
            f"tasks.{name}",
            False,
        )
        if name in RESERVED_IDS:
            message = f'"{name}" is a reserved id ({", ".join(RESERVED_IDS)})'
            self._report(where, "reserved_id", message)
            has_problem = True
        tool = document.get("tool")
        if self._tools and isinstance(tool, str) and tool not in self._tools:
            near = get_close_matches(tool, self._tools, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Tools: " + ", ".join(self._tools)
            self._report(f"{where}.tool", "unknown_tool", f'no tool "{tool}"', hint)
            has_problem = True
        return None if has_problem else task

    def _check_again(self, document: dict[str, Any], name: str) -> None:
        """A known id is written again: left out when it is the same call, else a problem."""
        before = self._given[name]
        if before is None:
            left_out = f'task "{name}" stands already; it was left out'
            self._end.warnings.append(left_out)
            return
        try:
            again = call_text(Task.model_validate(document))
        except ValidationError:
            again = ""
        if not is_same_call(again, before):
            hint = "Give the new task an id of its own."
            message = f'"{name}" stands already, as another call'
            self._report(f"tasks.{name}", "duplicate_id", message, hint)

    def _release(self, name: str) -> list[PlannedTask]:
        """The task if all it reads is there, and those that waited for it."""
        released: list[PlannedTask] = []
        candidates = [name]
        while candidates:
            waiting = self._waiting.get(candidates.pop(0))
            if waiting is None or any(i not in self._good for i in waiting.inputs):
                continue
            del self._waiting[waiting.task.id]
            self._good.add(waiting.task.id)
            self._end.tasks += 1
            released.append(PlannedTask(task=waiting.task, text=waiting.text))
            candidates += [n for n, w in self._waiting.items() if waiting.task.id in w.inputs]
        return released

    # -- the end ----------------------------------------------------------------------------

    def _cycle(self) -> list[str]:
        """Tasks that wait for each other, each reading the next; empty when none do."""
        for start in self._waiting:
            path = [start]
            while True:
                inputs = self._waiting[path[-1]].inputs
                following = next((r for r in inputs if r in self._waiting and r != path[-1]), None)
                if following is None:
                    break
                if following in path:
                    return path[path.index(following) :]
                path.append(following)
        return []

    def _settle(self, is_cut_off: bool) -> None:
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
                    self._report(where, "input_not_accepted", message, f"Mend {root} first.")
                elif root in self._failed:
                    message = f'reads "{root}", which was not accepted'
                    self._report(where, "input_not_accepted", message, f"Mend {root} first.")
                elif root not in self._good:
                    message = f'no task "{root}"' + (" before the cut" if is_cut_off else "")
                    self._report(where, "missing_reference", message, self._near(root, name))
        self._failed |= set(self._waiting)

    def _near(self, root: str, name: str = "") -> str:
        names = [n for n in (*sorted(self._readable), *self._ids) if n != name]
        near = get_close_matches(root, names, n=1)
        if near:
            return f'Did you mean "{near[0]}"?'
        return "Tasks: " + ", ".join(names[:12]) if names else "There are no other tasks."

    def _read_document(self, text: str) -> None:
        """A whole bracket has closed: the plan, or something that stood in prose."""
        try:
            document = parse_json(text)
        except ValueError as error:
            self._why = str(error)
            # What held tasks was the plan; a bracket in prose was not.
            self._is_over = self._seen > 0
            if self._is_over and not any(p.code == "syntax" for p in self._end.problems):
                self._report("plan", "syntax", f"is no JSON: {error}")
            return
        if isinstance(document, list):
            document = {"tasks": document}
            if not self._seen:
                return
        if isinstance(document.get("plan"), dict) and "tasks" not in document:
            document = document["plan"]
        if "tasks" not in document and "answer" not in document:
            self._why = 'it has no "tasks"'
            return
        self._is_over, self._why = True, ""
        self._read_rest(document)

    def _read_rest(self, document: dict[str, Any]) -> None:
        end = self._end
        tasks = document.get("tasks", [])
        if not isinstance(tasks, list):
            message = 'needs a list of tasks: [{"id": …, "tool": …, "args": {…}}]'
            self._report("tasks", "list_type", message)
        elif wrong := [n for n, t in enumerate(tasks) if not isinstance(t, dict)]:
            message = 'is no task: {"id": …, "tool": …, "args": {…}}'
            for n in wrong[:20]:
                self._report(f"tasks[{n}]", "model_type", message)
        rest = {k: v for k, v in document.items() if k != "tasks"}
        if remarks := [k for k in rest if k in REMARKS]:
            end.warnings.append(f"left out of the plan: {', '.join(remarks)}")
        rest = {k: v for k, v in rest.items() if k not in REMARKS}
        end.is_complete = bool(tasks) or "answer" in document
        try:
            checked = Plan.model_validate({**rest, "tasks": [{"id": "x", "tool": "x"}]})
        except ValidationError as error:
            end.problems += problems_from_validation(error, rest, Plan)
            return
        if checked.has_answer:
            end.answer, end.has_answer = checked.answer, True
        end.join_only = [str(j) for j in checked.join] if checked.join else None
        end.stop_when = checked.stop_when
        for place, roots in (("answer", roots_of(end.answer)), ("join", end.join_only or ())):
            for root in roots:
                self._check_joined(place, root)

    def _check_joined(self, place: str, root: str) -> None:
        if root in self._good or root in self._readable or root == "params":
            return
        if root in self._ids:
            message = f'reads "{root}", which was not accepted'
            self._report(place, "input_not_accepted", message, f"Mend {root} first.")
        else:
            message = f'no task "{root}"'
            self._report(place, "missing_reference", message, self._near(root))

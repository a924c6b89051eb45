"""The planner's syntax `json`: a plan document whose tasks are read while it streams.

The scanner follows strings and brackets only, so each task is given out by the chunk that holds its
closing brace, and no character is looked at twice. Text around the document is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from planner.calls import ParsedEnd
from planner.catalog import ToolSpec
from planner.conditions import roots_of_condition
from planner.documents import problems_from_validation
from planner.jobs import PlannedTask
from planner.plan import TASKS_MAX, Plan, Task
from planner.references import roots_of
from planner.values import Problem


class JsonPlanParser:
    """Text in, tasks out, as they complete; `close` tells the rest. See `CallsParser`."""

    def __init__(self, tools: Sequence[ToolSpec] = (), known: Sequence[str] = ()) -> None:
        self._known = set(known)
        self._ids: dict[str, int] = {}
        self._failed: set[str] = set()
        self._pieces: list[str] = []
        self._end = ParsedEnd()
        self._stack: list[str] = []
        self._is_open = False
        self._is_string = self._is_escaped = False
        self._string: list[str] = []
        self._key = ""
        self._tasks_depth = 0
        self._task: list[str] | None = None
        self._is_over = False

    def feed(self, text: str) -> list[PlannedTask]:
        """The tasks that this piece of text completes."""
        tasks: list[PlannedTask] = []
        for char in text:
            if self._is_over:
                break
            if not self._is_open:
                if char != "{":
                    continue
                self._is_open = True
            self._pieces.append(char)
            done = self._step(char)
            if done is not None:
                tasks += self._read(done)
        return tasks

    def _step(self, char: str) -> str | None:
        """Follow one character; the text of a task object when it closes."""
        if self._task is not None:
            self._task.append(char)
        if self._is_string:
            self._in_string(char)
            return None
        match char:
            case '"':
                self._is_string, self._string = True, []
            case "{" | "[":
                if char == "[" and len(self._stack) == 1 and self._key == "tasks":
                    self._tasks_depth = 2
                if char == "{" and len(self._stack) == self._tasks_depth == 2:
                    self._task = [char]
                self._stack.append(char)
            case "}" | "]":
                return self._closed()
            case ":" if len(self._stack) == 1:
                self._key = "".join(self._string)
            case _:
                pass
        return None

    def _in_string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == '"':
            self._is_string = False
            return
        if len(self._stack) == 1:
            self._string.append(char)

    def _closed(self) -> str | None:
        if self._stack:
            self._stack.pop()
        depth = len(self._stack)
        if depth == 0:
            self._is_over = True
        if depth == 1:
            self._tasks_depth = 0
        if self._task is not None and depth == 2:
            done, self._task = "".join(self._task), None
            return done
        return None

    def _read(self, text: str) -> list[PlannedTask]:
        end = self._end
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            where = f"tasks[{len(self._ids)}]"
            message = f"is no JSON: {error.msg}"
            end.problems.append(Problem(path=where, code="syntax", message=message))
            return []
        name = document.get("id")
        where = f"tasks.{name}" if isinstance(name, str) else f"tasks[{len(self._ids)}]"
        if isinstance(name, str):
            if name in self._known:
                self._ids.setdefault(name, len(self._ids))
                return []  # a model that goes on may write what it has written before
            if name in self._ids:
                message = f'id "{name}" is used twice'
                end.problems.append(Problem(path=where, code="duplicate_id", message=message))
                return []
            self._ids[name] = len(self._ids)
        if end.tasks >= TASKS_MAX:
            return []
        try:
            task = Task.model_validate(document)
        except ValidationError as error:
            end.problems += problems_from_validation(error, document, Task, where)
            self._failed.add(str(name))
            return []
        if problems := self._check_names(task, document, where):
            end.problems += problems
            self._failed.add(task.id)
            return []
        end.tasks += 1
        return [PlannedTask(task=task, text=text)]

    def _check_names(self, task: Task, document: dict[str, Any], where: str) -> list[Problem]:
        problems = []
        when = roots_of_condition(task.when) if task.when else ()
        for root in dict.fromkeys([*roots_of(document), *task.depends_on, *when]):
            if root in ("item", "index", "params"):
                continue
            if root == task.id:
                message = "refers to itself"
                problems.append(Problem(path=where, code="self_reference", message=message))
            elif root in self._failed:
                message = f'reads "{root}", which was not accepted'
                problems.append(Problem(path=where, code="input_not_accepted", message=message))
            elif root not in self._ids and root not in self._known:
                message = f'no task "{root}" is written before it'
                hint = "Write a task after those it reads."
                problems.append(
                    Problem(path=where, code="missing_reference", message=message, hint=hint)
                )
        return problems

    def close(self, is_cut_off: bool = False) -> ParsedEnd:
        """No more text comes; `is_cut_off`: the model hit its length limit."""
        end = self._end
        if self._is_over:
            self._read_rest("".join(self._pieces))
        elif is_cut_off or self._is_open:
            name = f"task {len(self._ids) + 1}" if self._task is not None else "the document"
            verb = "cut off" if is_cut_off else "not closed"
            end.problems.append(
                Problem(path="plan", code="cut_off", message=f"{verb} inside {name}")
            )
        if not end.tasks and not self._ids and not end.problems and not end.is_complete:
            message = "no tasks in the answer"
            hint = 'Answer with one JSON object: {"tasks": [{"id": …, "tool": …, "args": {…}}], …}.'
            end.problems.append(Problem(path="plan", code="no_tasks", message=message, hint=hint))
        return end

    def _read_rest(self, text: str) -> None:
        end = self._end
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            message = f"is no JSON: {error.msg} at line {error.lineno}"
            end.problems.append(Problem(path="plan", code="syntax", message=message))
            return
        end.is_complete = bool(document.get("tasks")) or "answer" in document
        rest = {k: v for k, v in document.items() if k != "tasks"}
        try:
            checked = Plan.model_validate({**rest, "tasks": [{"id": "x", "tool": "x"}]})
        except ValidationError as error:
            end.problems += problems_from_validation(error, document, Plan)
            return
        if checked.has_answer:
            end.answer, end.has_answer = checked.answer, True
        end.join_only = [str(j) for j in checked.join] if checked.join else None
        end.stop_when = checked.stop_when

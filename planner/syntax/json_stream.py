"""The planner's syntax `json`: a plan document whose tasks are read while it streams.

Each task is given out by the chunk that holds its closing brace; one with side effects, and those
that read it, when the whole document has closed. Text around the document is left out. A document
in the middle of prose may be an example: it is read when the text has ended, of several the last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.clean_text import TextCleaner
from planloom.planner.language.plan import Plan
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import Problem, is_deeper
from planloom.planner.syntax.calls.text import call_text, earlier_calls
from planloom.planner.syntax.documents import NESTING_MAX, problems_from_validation, too_deep
from planloom.planner.syntax.json_scan import PlanScanner
from planloom.planner.syntax.json_tasks import JsonTasks
from planloom.planner.syntax.json_text import json_in, parse_json
from planloom.planner.syntax.parsed_plan import (
    PLAN_TEXT_MAX_CHARS,
    Meant,
    ParsedEnd,
    as_written,
    too_long,
)

REMARKS = ("thought", "thoughts", "reasoning", "explanation", "comment", "notes")
"""What models write beside a plan: left out, with a warning."""
_ID = re.compile(r'\{\s*"id"\s*:\s*"([^"\\]{1,100})"')
_HINT = 'Answer with one JSON object: {"tasks": [{"id": …, "tool": …, "args": {…}}], …}.'


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
        meant: Meant = as_written,
    ) -> None:
        self._meant = meant
        self._tools = {t.name: t for t in tools}
        self._given = earlier_calls(earlier)
        self._kept = frozenset(kept)
        self._cleaner = TextCleaner()
        self._chars = 0
        self._texts: list[str] = []
        self._scanner = PlanScanner()
        self._started: dict[str, str] = {}
        """Tasks that were given out, with their calls: they stay, whatever follows."""
        self._begin_plan()

    def _begin_plan(self) -> None:
        """The text begins here, or again behind a thought."""
        self._end = ParsedEnd()
        self._tasks = JsonTasks(self._tools, self._given, self._kept, self._end, self._meant)
        self._why = ""
        self._is_over = False

    # -- text in ----------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the plan has ended: what may still come cannot change it."""
        return self._is_over or self._is_full

    @property
    def _is_full(self) -> bool:
        return self._chars > PLAN_TEXT_MAX_CHARS

    def feed(self, text: str) -> list[PlannedTask]:
        """The tasks that this part of text completes."""
        if self.is_over:
            return []
        before, self._chars = self._chars, self._chars + len(text)
        return self._step(self._cleaner.feed(text[: PLAN_TEXT_MAX_CHARS - before]))

    def _step(self, text: str) -> list[PlannedTask]:
        tasks: list[PlannedTask] = []
        self._texts.append(text)
        for at, char in enumerate(text):
            scanned = self._scanner.step(char)
            if scanned is None:
                continue
            match scanned.kind:
                case "task":
                    tasks += self._given_out(self._tasks.read(scanned.text))
                case "document":
                    tasks += self._read_document(scanned.text)
                case "thought_end":
                    self._texts = [text[at + 1 :]]
                    self._leave_thought()
            if self._is_over:
                break
        return tasks

    def _given_out(self, tasks: list[PlannedTask]) -> list[PlannedTask]:
        self._started |= {str(t.task.id): call_text(t.task) for t in tasks}
        return tasks

    def _leave_thought(self) -> None:
        """All of the text so far was a thought: only the tasks that have started are left."""
        self._given |= self._started
        self._begin_plan()
        if self._started:
            names = ", ".join(list(self._started)[:12])
            self._end.warnings.append(f"tasks of a thought had started when it ended: {names}")

    # -- the end ----------------------------------------------------------------------------

    def close(self, is_cut_off: bool = False) -> ParsedEnd:
        """No more text comes; `is_cut_off`: the model hit its length limit."""
        late = [] if self.is_over else self._step(self._cleaner.close())
        is_broken = is_cut_off or self._is_full
        if not self._is_over and not is_broken and not self._tasks.seen:
            late += self._read_last_document()
        end, tasks = self._end, self._tasks
        if not self._is_over:
            tasks.drop_held()
        tasks.settle(is_cut_off=is_broken and not self._is_over)
        if self._is_over:
            pass
        elif self._is_full:
            end.problems.append(too_long())
        elif is_cut_off or (self._scanner.is_open and tasks.seen):
            self._report_open("cut off" if is_cut_off else "not closed")
        elif self._why and not end.problems:
            self._report("plan", "syntax", f"is not valid JSON: {self._why}", _HINT)
        if not tasks.seen and not end.problems and not end.has_answer:
            self._report("plan", "no_tasks", "no tasks in the answer", _HINT)
        end.late = late
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
            self._report("plan", "cut_off", f"{verb} inside task {self._tasks.seen + 1}")

    def _read_last_document(self) -> list[PlannedTask]:
        """The last plan that stands somewhere in the text, behind examples and thoughts."""
        plans = [plan for found in json_in("".join(self._texts)) if (plan := _plan_in(found.value))]
        if not plans:
            self._why = self._why or self._why_no_plan()
            return []
        tasks: list[PlannedTask] = []
        listed = plans[-1].get("tasks")
        for task in listed if isinstance(listed, list) else []:
            if isinstance(task, dict):
                tasks += self._tasks.read(json.dumps(task, ensure_ascii=False))
        return self._given_out(tasks) + self._read_plan(plans[-1])

    def _why_no_plan(self) -> str:
        """What is wrong with the plan that the text seems to hold; empty when it holds none."""
        if self._scanner.is_open:
            return "a bracket is not closed"
        text = "".join(self._texts)
        begin, end = text.find("{"), text.rfind("}")
        if begin < 0 or end < begin or "tasks" not in text:
            return ""
        try:
            parse_json(text[begin : end + 1])
        except ValueError as error:
            return str(error)
        return ""

    def _read_document(self, text: str) -> list[PlannedTask]:
        """A whole bracket has closed: the plan, or something that stood in prose."""
        try:
            document = parse_json(text)
        except ValueError as error:
            self._why = str(error)
            # What held tasks was the plan; a bracket in prose was not.
            self._is_over = self._tasks.seen > 0
            if self._is_over and not any(p.code == "syntax" for p in self._end.problems):
                self._report("plan", "syntax", f"is not valid JSON: {error}")
            return []
        plan = _plan_in(document)
        if plan is None:
            is_empty = isinstance(document, dict) and "tasks" in document
            self._why = "" if is_empty else 'it has no "tasks"'
            return []
        return self._read_plan(plan)

    def _read_plan(self, plan: dict[str, Any]) -> list[PlannedTask]:
        self._is_over, self._why = True, ""
        held = self._given_out(self._tasks.release_held())
        self._read_rest(plan)
        return held

    def _read_rest(self, document: dict[str, Any]) -> None:
        """What a plan has beside its tasks: the answer, what the joiner is shown, the early end."""
        end = self._end
        tasks = document.get("tasks", [])
        if not isinstance(tasks, list):
            message = 'needs a list of tasks: [{"id": …, "tool": …, "args": {…}}]'
            self._report("tasks", "list_type", message)
        elif wrong := [n for n, t in enumerate(tasks) if not isinstance(t, dict)]:
            message = 'is not a task: {"id": …, "tool": …, "args": {…}}'
            for n in wrong[:20]:
                self._report(f"tasks[{n}]", "model_type", message)
        rest = {k: v for k, v in document.items() if k != "tasks"}
        if remarks := [k for k in rest if k in REMARKS]:
            end.warnings.append(f"left out of the plan: {', '.join(remarks)}")
        rest = {k: v for k, v in rest.items() if k not in REMARKS and v is not None}
        end.is_complete = bool(tasks) or "answer" in rest
        if is_deeper(rest, NESTING_MAX):
            end.problems.append(too_deep("plan"))
            return
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
                self._tasks.check_joined(place, root)


def _plan_in(document: Any) -> dict[str, Any] | None:
    """A document as a plan: itself, what stands in `{"plan": …}`, or a bare list of tasks.

    None when it is not one, such as `[1]` and `{"tasks": []}` without an answer.
    """
    if isinstance(document, list):
        return {"tasks": document} if any(isinstance(t, dict) for t in document) else None
    if not isinstance(document, dict):
        return None
    if isinstance(inner := document.get("plan"), dict) and "tasks" not in document:
        document = inner
    is_plan = document.get("answer") is not None or bool(document.get("tasks"))
    return document if is_plan else None

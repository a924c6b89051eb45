"""The planner's syntax `calls`: a streamed text becomes tasks, one at a time.

`a = search(query="…")` lines, ended by `join(…)`; LLMCompiler's own text (`1. search("…")`, `$1`)
is read by the same parser. Nothing is evaluated: Python's grammar gives literals and names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import TASKS_MAX, Task, is_body
from planloom.planner.language.references import roots_of, whole_reference
from planloom.planner.language.values import RESERVED_IDS, VALUE_NAMES, JsonValue, Problem
from planloom.planner.syntax.calls.body import POSITIONAL, BodyReader, holds_call
from planloom.planner.syntax.calls.numbered import JOINS, with_references
from planloom.planner.syntax.calls.scan import CallScanner, CallText, Prose, ScannedText
from planloom.planner.syntax.calls.text import (
    ID_OPTION,
    OPTIONS,
    call_text,
    earlier_calls,
    is_same_call,
)
from planloom.planner.syntax.calls.values import ArgumentError, parse_arguments
from planloom.planner.syntax.documents import problems_from_validation

"""First names that stand for no task."""
_LABEL = re.compile(r"(?:[-*•][ \t]+)?(?:(\d+)[.):]|\$?(\w+)[ \t]*=)")
_NOISE = re.compile(r"[\s`.,;:*)\]}]*\Z")
_DESCRIPTION_MAX_CHARS = 500

Parts = tuple[list[object], dict[str, object]]


@dataclass(slots=True)
class ParsedEnd:
    """What is known when the text has ended."""

    answer: JsonValue = None
    has_answer: bool = False
    join_only: list[str] | None = None
    stop_when: str | None = None
    is_complete: bool = False
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tasks: int = 0


class CallsParser:
    """Text in, tasks out, as they complete; `close` tells the rest.

    `earlier` are ids that may be referred to beside this text's own: finished tasks of an earlier
    revision, or those accepted from an earlier attempt. As a mapping it gives their calls too (by
    `call_text`, perhaps cut short): then a line that uses such an id for another call is a problem,
    while the same line again, as after a cut, is left out.
    `agents`, `teams` and `template_names` are the names that those bodies may use; None: any.
    `kept` are tasks of the plan before that have not ended: they may be read, or written anew.
    """

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        earlier: Sequence[str] | Mapping[str, str] = (),
        first_line: int = 1,
        *,
        agents: Collection[str] | None = None,
        teams: Collection[str] | None = None,
        template_names: Collection[str] | None = None,
        kept: Collection[str] = (),
    ) -> None:
        self._tools = {t.name: t for t in tools}
        self._bodies = BodyReader(self._tools, agents, teams, template_names)
        self._given = earlier_calls(earlier)
        self._readable = {*self._given, *kept}
        self._scanner = CallScanner(first_line)
        self._lines: dict[str, int] = {}
        self._failed: set[str] = set()
        self._ahead: list[tuple[int, str, str, Problem]] = []
        """References that named nothing when they were read: (line, task, name, problem)."""
        self._problems: list[tuple[int, Problem]] = []
        self._thought = ""
        self._prose: list[Prose] = []
        self._end = ParsedEnd()
        self._is_over = False
        self._ignored = 0
        self._last = ""

    # -- text in ----------------------------------------------------------------------------

    def feed(self, text: str) -> list[PlannedTask]:
        """The tasks that this part of text completes."""
        return self._take(self._scanner.feed(text))

    def close(self, is_cut_off: bool = False) -> ParsedEnd:
        """No more text comes; `is_cut_off`: the model hit its length limit."""
        end = self._end
        tail = self._scanner.close()
        late = self._take(tail)
        assert not late, "a call is complete with its bracket"
        open_call = self._scanner.open_call
        if not self._is_over and open_call is not None:
            self._report_open(open_call, is_cut_off)
        elif not self._is_over and is_cut_off:
            self._report_cut(tail)
        self._settle_references()
        end.problems = [p for _, p in sorted(self._problems, key=lambda entry: entry[0])]
        nothing = not end.tasks and not end.is_complete and not self._lines
        if nothing and not end.problems:
            beginning = self._prose[0].text[:80] if self._prose else ""
            message = "no tasks in the answer" + (f': it begins "{beginning}"' if beginning else "")
            hint = 'Write lines such as a = search(query="…"), then join(a).'
            end.problems.append(_problem("plan", "no_tasks", message, hint))
        elif len(self._prose) == 1:
            end.warnings.append(f"line {self._prose[0].line} is no call and was left out")
        elif self._prose:
            end.warnings.append(f"{len(self._prose)} lines that are no calls were left out")
        if self._ignored:
            end.warnings.append(f"calls after join were left out: {self._ignored}")
        return end

    def _take(self, scanned: list[ScannedText]) -> list[PlannedTask]:
        tasks: list[PlannedTask] = []
        for part in scanned:
            if isinstance(part, Prose):
                self._read_prose(part)
            elif self._is_over:
                self._ignored += 1
            else:
                tasks += self._read_call(part)
        return tasks

    def _read_prose(self, prose: Prose) -> None:
        match prose.kind:
            case "thought":
                self._thought = prose.text
            case "end":
                self._is_over = self._is_over or self._end.is_complete
            case "comment":
                self._end.warnings.append(f"line {prose.line}: comment dropped")
            case "suffix" if not self._is_over and self._last:
                place = _SUFFIX_WORD.match(prose.text)
                shown = self._last + (place[0] if place else "")
                message = f'line {prose.line}: what follows the call of "{self._last}" is not read'
                hint = f"Write {shown} where you use it."
                self._report(prose.line, f"tasks.{self._last}", "syntax", message, hint)
            case "suffix" | "text":
                if not self._is_over and not _NOISE.match(prose.text):
                    self._prose.append(prose)
            case "fence":
                pass

    def _report(self, line: int, path: str, code: str, message: str, hint: str = "") -> None:
        self._problems.append((line, _problem(path, code, message, hint)))

    def _report_open(self, call: CallText, is_cut_off: bool) -> None:
        name = call.label or call.tool
        if not is_cut_off:
            self._unclosed(call)
            return
        message = f"cut off inside task {name} (line {call.line})"
        self._report(call.line, f"tasks.{name}", "cut_off", message)
        self._failed.add(name)

    def _report_cut(self, tail: list[ScannedText]) -> None:
        """Cut off outside any bracket: perhaps in what was to become a call."""
        last = tail[-1] if tail else None
        label = _LABEL.match(last.text) if isinstance(last, Prose) else None
        if isinstance(last, Prose) and label and last in self._prose:
            self._prose.remove(last)
            name = label[1] or label[2]
            message = f"cut off inside task {name} (line {last.line})"
            self._report(last.line, f"tasks.{name}", "cut_off", message)
        else:
            message = "the answer was cut off before its join line"
            self._report(_LAST_LINE, "plan", "cut_off", message)

    def _unclosed(self, call: CallText) -> None:
        name = call.label or call.tool
        message = f"line {call.line}: the bracket of {call.tool}( is not closed"
        self._report(call.line, f"tasks.{name}", "unclosed", message)
        self._failed.add(name)
        self._lines.setdefault(name, call.line)

    # -- one call ---------------------------------------------------------------------------

    def _read_call(self, call: CallText) -> list[PlannedTask]:
        end = self._end
        is_join = call.tool.lower() in JOINS and call.tool not in self._tools
        is_join = is_join or call.tool == "join"
        is_stop = call.tool == "stop_when" and call.tool not in self._tools
        if call.label is None and not (is_join or is_stop or self._is_callable(call.tool)):
            self._prose.append(Prose("text", call.text, call.line))
            return []
        if call.shares_line:
            end.warnings.append(f"line {call.line}: two calls on one line")
        if not call.is_closed:
            self._unclosed(call)
        elif is_join:
            self._read_join(call)
        elif is_stop:
            self._read_stop(call)
        elif end.tasks >= TASKS_MAX:
            if not any(p.code == "too_many" for _, p in self._problems):
                message = f"more than {TASKS_MAX:,} tasks: the rest is left out"
                self._report(call.line, "plan", "too_many", message)
        else:
            planned = self._task(call)
            self._thought = ""
            if planned is not None:
                end.tasks += 1
                return [planned]
        return []

    def _is_callable(self, tool: str) -> bool:
        return tool in self._tools or tool in POSITIONAL

    def _task(self, call: CallText) -> PlannedTask | None:
        """The task of a call; None when it has problems, or stands already."""
        problems: list[Problem] = []
        # A name is needed for the paths of problems; `_id` in the arguments may give another.
        parts = self._parts(call, f"tasks.{call.label or call.tool}", problems)
        name = self._name_of(call, parts, problems)
        self._last = name
        if name in self._lines:
            message = f"id {name} is used twice: lines {self._lines[name]} and {call.line}"
            hint = "Give the later one an id of its own."
            self._report(call.line, f"tasks.{name}", "duplicate_id", message, hint)
            return None
        self._lines[name] = call.line
        document = self._document(call, name, parts, problems) if parts else None
        if name in self._given:
            self._check_again(call, name, None if problems else document)
            return None
        if name in RESERVED_IDS:
            reserved = ", ".join(RESERVED_IDS)
            message = f'"{name}" is a reserved id ({reserved})'
            problems.append(_problem(f"tasks.{name}", "reserved_id", message))
        self._problems += [(call.line, p) for p in problems]
        if document is not None and self._check_names(document, name, call.line) and not problems:
            task = self._validated(document, name, call.line)
            if task is not None:
                return PlannedTask(task=task, text=call.text)
        self._failed.add(name)
        return None

    def _name_of(self, call: CallText, parts: Parts | None, problems: list[Problem]) -> str:
        wanted = parts[1].get(ID_OPTION) if parts else None
        if call.label is not None:
            if wanted is not None and str(wanted) != call.label:
                message = f'line {call.line}: two ids, "{call.label}" and "{wanted}"'
                problems.append(_problem(f"tasks.{call.label}", "bad_argument", message))
            return call.label
        if wanted is not None:
            return str(wanted)
        number = 1
        while (name := f"{call.tool}_{number}") in self._lines or name in self._readable:
            number += 1
        self._end.warnings.append(f"line {call.line}: a call without a name; it is called {name}")
        return name

    def _check_again(self, call: CallText, name: str, document: dict[str, Any] | None) -> None:
        """A known id is written again: left out when it is the same call, else a problem."""
        before = self._given[name]
        if before is None:
            left_out = f'line {call.line}: "{name}" stands already; this line was left out'
            self._end.warnings.append(left_out)
            return
        try:
            again = call_text(Task.model_validate(document)) if document else ""
        except ValidationError:
            again = ""
        if not is_same_call(again, before):
            message = f'line {call.line}: "{name}" stands already, as another call'
            hint = "Give the new task an id of its own."
            self._report(call.line, f"tasks.{name}", "duplicate_id", message, hint)

    def _validated(self, document: dict[str, Any], name: str, line: int) -> Task | None:
        try:
            return Task.model_validate(document)
        except ValidationError as error:
            problems = problems_from_validation(error, document, Task, f"tasks.{name}")
            self._problems += [(line, p) for p in problems]
            return None

    def _parts(self, call: CallText, where: str, problems: list[Problem]) -> Parts | None:
        def text_of(text: str) -> str:
            return self._with_references(text, call)

        try:
            return parse_arguments(call.arguments, text_of, is_numbered=call.is_numbered)
        except ArgumentError as error:
            code, message = "bad_argument", str(error)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or type(error).__name__
            code, message = "syntax", f"{reason} in {call.text[:80]}"
        if call.is_numbered:
            # LLMCompiler takes the raw text as one argument.
            self._end.warnings.append(f"line {call.line}: unquoted argument taken as text")
            return [text_of(_raw_text(call.arguments))], {}
        hint = "Write literals, and names of earlier tasks, as arguments."
        problems.append(_problem(where, code, f"line {call.line}: {message}", hint))
        return None

    def _with_references(self, text: str, call: CallText) -> str:
        if not call.is_numbered:
            return text
        return with_references(
            text,
            lambda name: name in self._lines or name in self._readable,
            lambda message: self._end.warnings.append(f"line {call.line}: {message}"),
        )

    # -- from arguments to a task -----------------------------------------------------------

    def _document(
        self, call: CallText, name: str, parts: Parts, problems: list[Problem]
    ) -> dict[str, Any] | None:
        where = f"tasks.{name}"
        positional, keywords = parts
        options = {k: v for k, v in keywords.items() if k in OPTIONS}
        plain = {k: v for k, v in keywords.items() if k not in OPTIONS and k != ID_OPTION}
        body = self._bodies.body(call.tool, positional, plain, where, problems)
        if body is None:
            return None
        document: dict[str, Any] = {"id": name, **body}
        if self._thought:
            document["description"] = self._thought[:_DESCRIPTION_MAX_CHARS]
        for option, value in options.items():
            document[OPTIONS[option]] = self._bodies.option(option, value, where, problems)
        return document

    def _check_names(self, document: dict[str, Any], name: str, line: int) -> bool:
        """Whether references name tasks written before, or known ones."""
        seen: set[str] = set()
        is_good = True
        for place, root in read_places(document):
            if root in VALUE_NAMES or root in seen:
                continue
            seen.add(root)
            where = f"tasks.{name}.{place}"
            if root == name:
                self._report(line, where, "self_reference", f"line {line}: {name} refers to itself")
            elif root in self._failed:
                message = f'line {line}: it reads "{root}", which was not accepted'
                hint = f"Mend {root} first."
                self._report(line, where, "input_not_accepted", message, hint)
            elif root not in self._lines and root not in self._readable:
                names = [n for n in (*sorted(self._readable), *self._lines) if n != name]
                near = get_close_matches(root, sorted(names), n=1)
                hint = f'Did you mean "{near[0]}"?' if near else _listed(names)
                message = f'line {line}: no task "{root}"'
                problem = _problem(where, "missing_reference", message, hint)
                self._ahead.append((line, name, root, problem))
            else:
                continue
            is_good = False
        return is_good

    def _settle_references(self) -> None:
        """Now that all lines are known: was a missing name only written later?"""
        for line, name, root, problem in self._ahead:
            if root in self._lines:
                later = self._lines[root]
                message = f'line {line}: {name} refers to "{root}", which is written later '
                message += f"(line {later})"
                update = {"code": "forward_reference", "message": message}
                hint = f"Write {root} first."
                self._problems.append((line, problem.model_copy(update=update | {"hint": hint})))
            else:
                self._problems.append((line, problem))

    # -- the end of a plan ------------------------------------------------------------------

    def _read_join(self, call: CallText) -> None:
        end = self._end
        end.is_complete, self._is_over = True, True
        parts = self._join_parts(call)
        if parts is None:
            return
        names: list[str] = []
        texts: list[object] = []
        for value in parts[0]:
            joined = _pure_names(value)
            if joined is None:
                texts.append(value)
            else:
                names += joined
        for key, value in parts[1].items():
            if key == "answer":
                self._set_answer(call, value)
            else:
                end.warnings.append(f'line {call.line}: join has no "{key}"; write answer=…')
                names += roots_of(value)  # type: ignore[arg-type]
        if texts and not end.has_answer:
            self._read_join_text(call, names, texts)
        if names and not end.has_answer:
            end.join_only = list(dict.fromkeys(names))
        for name in dict.fromkeys([*names, *(roots_of(end.answer) if end.has_answer else ())]):
            self._check_joined(call, name)

    def _join_parts(self, call: CallText) -> Parts | None:
        """What stands in its brackets; None when only that can be left out."""
        try:
            return parse_arguments(call.arguments, lambda text: self._with_references(text, call))
        except (ArgumentError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if "answer" in call.arguments and not call.is_numbered:
                reason = getattr(error, "msg", None) or str(error)
                message = f"line {call.line}: join: {reason}"
                hint = "Write literals, and names of tasks, in the answer."
                self._report(call.line, "join", "syntax", message, hint)
            else:
                self._end.warnings.append(f"line {call.line}: text in join was left out")
            return None

    def _read_join_text(self, call: CallText, names: list[str], texts: list[object]) -> None:
        """A value in join that is no name: the answer when it can be meant as one."""
        reads = bool(roots_of(texts[0]))  # type: ignore[arg-type]
        is_only = len(texts) == 1 and not names and not call.is_numbered
        if is_only and (reads or not (self._lines or self._readable)):
            self._set_answer(call, texts[0])
        else:
            left_out = f"line {call.line}: text in join was left out; write answer=…"
            self._end.warnings.append(left_out)

    def _set_answer(self, call: CallText, value: object) -> None:
        if holds_call(value):
            message = f"line {call.line}: join: the answer holds a call"
            hint = "Give the call a line and a name of its own."
            self._report(call.line, "join", "bad_argument", message, hint)
        else:
            self._end.answer, self._end.has_answer = value, True  # type: ignore[assignment]

    def _check_joined(self, call: CallText, name: str) -> None:
        if name == "params" or (
            (name in self._lines or name in self._readable) and name not in self._failed
        ):
            return
        if name in self._failed:
            code, why, hint = "input_not_accepted", f'"{name}" was not accepted', ""
        else:
            names = [*sorted(self._readable), *self._lines]
            near = get_close_matches(name, names, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else _listed(names)
            code, why = "missing_reference", f'no task "{name}"'
        self._report(call.line, "join", code, f"line {call.line}: join: {why}", hint)

    def _read_stop(self, call: CallText) -> None:
        problems: list[Problem] = []
        parts = self._parts(call, "stop_when", problems)
        if parts is not None:
            values = [*parts[0], *parts[1].values()]
            if len(values) == 1 and isinstance(values[0], str):
                self._end.stop_when = values[0]
            else:
                message = f"line {call.line}: stop_when takes one condition, as text"
                hint = 'Write for example stop_when("${a.value} > 10").'
                problems.append(_problem("stop_when", "bad_argument", message, hint))
        self._problems += [(call.line, p) for p in problems]


_LAST_LINE = 1 << 60
_SUFFIX_WORD = re.compile(r"[\w.\[\]'\"]+")


def _problem(path: str, code: str, message: str, hint: str = "") -> Problem:
    return Problem(path=path, code=code, message=message, hint=hint)


def _listed(names: Sequence[str]) -> str:
    return "Tasks: " + ", ".join(names[:12]) if names else "There is no task before it."


def read_places(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where in a task document which first names are read."""
    for key, value in document.items():
        if key == "plan":
            continue  # its references are to its own tasks
        if key == "fallback" and is_body(value):
            yield from ((f"{key}.{place}", root) for place, root in read_places(value))
            continue
        if key in ("args", "ask", "human") and isinstance(value, dict):
            for inner, part in value.items():
                yield from ((f"{key}.{inner}", root) for root in roots_of(part))
        elif key == "depends_on":
            yield from ((key, root) for root in value)
        elif key == "when" and isinstance(value, str):
            yield from ((key, root) for root in roots_of_condition(value))
        elif key not in ("id", "description"):
            yield from ((key, root) for root in roots_of(value))


def _pure_names(value: object) -> list[str] | None:
    """The tasks a value names when it is nothing but names, in lists or not."""
    if isinstance(value, list):
        inner = [_pure_names(v) for v in value]
        return [n for names in inner for n in names or ()] if value and all(inner) else None
    whole = whole_reference(value) if isinstance(value, str) else None
    return [whole.root] if whole else None


__all__ = ["OPTIONS", "CallsParser", "ParsedEnd", "call_text", "read_places"]


def _raw_text(arguments: str) -> str:
    """Arguments that are no literals as one text: `'it's'` is meant as it's."""
    raw = arguments.strip()
    quote, inner = raw[:1], raw[1:-1]
    is_quoted = len(raw) > 1 and quote in ("'", '"') and raw[-1] == quote
    return inner if is_quoted and f"{quote}," not in inner else raw

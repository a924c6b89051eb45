"""A call of the planner's text as a task, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.plan import Task
from planloom.planner.language.values import RESERVED_IDS, VALUE_NAMES, Problem
from planloom.planner.syntax.calls.body import BodyReader
from planloom.planner.syntax.calls.numbered import with_references
from planloom.planner.syntax.calls.reading import Reading, problem
from planloom.planner.syntax.calls.scan import CallText
from planloom.planner.syntax.calls.text import ID_OPTION, OPTIONS, call_text, is_same_call
from planloom.planner.syntax.calls.values import ArgumentError, parse_arguments
from planloom.planner.syntax.documents import problems_from_validation
from planloom.planner.syntax.parsed_plan import read_places

_DESCRIPTION_MAX_CHARS = 500

Parts = tuple[list[object], dict[str, object]]


class TaskReader:
    """Reads calls into tasks; names and problems are kept in the `Reading` that it is given."""

    def __init__(self, bodies: BodyReader) -> None:
        self._bodies = bodies

    def read(self, call: CallText, thought: str, reading: Reading) -> PlannedTask | None:
        """The task of a call; None when it has problems, or was written before."""
        problems: list[Problem] = []
        # A name is needed for the paths of problems; `_id` in the arguments may give another.
        parts = self.parts(call, f"tasks.{call.label or call.tool}", problems, reading)
        name = _name_of(call, parts, problems, reading)
        document = self._document(call, name, parts, thought, problems) if parts else None
        if name in reading.lines:
            self._read_twice(call, name, None if problems else document, reading)
            return None
        reading.lines[name] = call.line
        if name in reading.given:
            _check_again(call, name, None if problems else document, reading)
            return None
        if name in RESERVED_IDS:
            reserved = ", ".join(RESERVED_IDS)
            message = f'"{name}" is a reserved id ({reserved})'
            problems.append(problem(f"tasks.{name}", "reserved_id", message))
        reading.problems += [(call.line, p) for p in problems]
        has_names = document is not None and _check_names(document, name, call.line, reading)
        task = None
        if document is not None and has_names and not problems:
            task = _validated(document, name, call.line, reading)
        if task is None:
            reading.failed.add(name)
            return None
        return PlannedTask(task=task, text=call.text)

    def parts(
        self, call: CallText, where: str, problems: list[Problem], reading: Reading
    ) -> Parts | None:
        """The arguments of a call; None when they cannot be read."""

        def text_of(text: str) -> str:
            return references_of(text, call, reading)

        try:
            return parse_arguments(call.arguments, text_of, is_numbered=call.is_numbered)
        except ArgumentError as error:
            code, message = "bad_argument", str(error)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or type(error).__name__
            code, message = "syntax", f"{reason} in {call.text[:80]}"
        if call.is_numbered:
            # LLMCompiler takes the raw text as one argument.
            reading.warn(f"line {call.line}: unquoted argument taken as text")
            return [text_of(_raw_text(call.arguments))], {}
        hint = "Write literals, and names of earlier tasks, as arguments."
        problems.append(problem(where, code, f"line {call.line}: {message}", hint))
        return None

    def _document(
        self, call: CallText, name: str, parts: Parts, thought: str, problems: list[Problem]
    ) -> dict[str, Any] | None:
        where = f"tasks.{name}"
        positional, keywords = parts
        options = {k: v for k, v in keywords.items() if k in OPTIONS}
        plain = {k: v for k, v in keywords.items() if k not in OPTIONS and k != ID_OPTION}
        body = self._bodies.body(call.tool, positional, plain, where, problems)
        if body is None:
            return None
        document: dict[str, Any] = {"id": name, **body}
        if thought:
            document["description"] = thought[:_DESCRIPTION_MAX_CHARS]
        for option, value in options.items():
            document[OPTIONS[option]] = self._bodies.option(option, value, where, problems)
        return document

    def _read_twice(
        self, call: CallText, name: str, document: dict[str, Any] | None, reading: Reading
    ) -> None:
        """A name of this text is written again: models repeat lines, and mean nothing by it."""
        first = reading.lines[name]
        if (before := reading.calls.get(name)) and _text_again(document) == before:
            reading.warn(f"line {call.line} repeats line {first}; it was left out")
            return
        message = f"id {name} is used twice: lines {first} and {call.line}"
        hint = "Give the later one its own id."
        reading.report(call.line, f"tasks.{name}", "duplicate_id", message, hint)


def references_of(text: str, call: CallText, reading: Reading) -> str:
    """A text of LLMCompiler's form with `$1` as `${1}`; other texts as they are."""
    if not call.is_numbered:
        return text
    return with_references(
        text,
        reading.is_readable,
        lambda message: reading.warn(f"line {call.line}: {message}"),
    )


def _name_of(call: CallText, parts: Parts | None, problems: list[Problem], reading: Reading) -> str:
    wanted = parts[1].get(ID_OPTION) if parts else None
    if call.label is not None:
        if wanted is not None and str(wanted) != call.label:
            message = f'line {call.line}: two ids, "{call.label}" and "{wanted}"'
            problems.append(problem(f"tasks.{call.label}", "bad_argument", message))
        return call.label
    if wanted is not None:
        return str(wanted)
    number = 1
    while reading.is_readable(name := f"{call.tool}_{number}"):
        number += 1
    return name


def _check_again(
    call: CallText, name: str, document: dict[str, Any] | None, reading: Reading
) -> None:
    """An earlier id is written again: left out when it is the same call, else a problem."""
    before = reading.given[name]
    if before is None:
        reading.warn(f'line {call.line}: "{name}" exists already; this line was left out')
    elif not is_same_call(_text_again(document), before):
        message = f'line {call.line}: "{name}" exists already, as another call'
        hint = "Give the new task its own id."
        reading.report(call.line, f"tasks.{name}", "duplicate_id", message, hint)


def _text_again(document: dict[str, Any] | None) -> str:
    try:
        return call_text(Task.model_validate(document)) if document else ""
    except ValidationError:
        return ""


def _validated(document: dict[str, Any], name: str, line: int, reading: Reading) -> Task | None:
    try:
        return Task.model_validate(document)
    except ValidationError as error:
        problems = problems_from_validation(error, document, Task, f"tasks.{name}")
        reading.problems += [(line, p) for p in problems]
        return None


def _check_names(document: Mapping[str, Any], name: str, line: int, reading: Reading) -> bool:
    """Whether references name tasks written before, or earlier ones."""
    seen: set[str] = set()
    is_good = True
    for place, root in read_places(document):
        if root in VALUE_NAMES or root in seen:
            continue
        seen.add(root)
        where = f"tasks.{name}.{place}"
        if root == name:
            message = f"line {line}: {name} refers to itself"
            reading.report(line, where, "self_reference", message)
        elif root in reading.failed:
            message = f'line {line}: it reads "{root}", which was not accepted'
            hint = f"Fix {root} first."
            reading.report(line, where, "input_not_accepted", message, hint)
        elif not reading.is_readable(root):
            message = f'line {line}: no task "{root}"'
            missing = problem(where, "missing_reference", message, reading.near(root, name))
            reading.ahead.append((line, name, root, missing))
        else:
            continue
        is_good = False
    return is_good


def _raw_text(arguments: str) -> str:
    """Arguments that are no literals as one text: `'it's'` is meant as it's."""
    raw = arguments.strip()
    quote, inner = raw[:1], raw[1:-1]
    is_quoted = len(raw) > 1 and quote in ("'", '"') and raw[-1] == quote
    return inner if is_quoted and f"{quote}," not in inner else raw

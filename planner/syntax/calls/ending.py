"""The lines that end a plan: `join(…)` with what is shown or answered, and `stop_when(…)`."""

from __future__ import annotations

from planloom.planner.language.references import roots_of, whole_reference
from planloom.planner.language.values import Problem
from planloom.planner.syntax.calls.body import holds_call
from planloom.planner.syntax.calls.reading import Reading, problem
from planloom.planner.syntax.calls.scan import CallText
from planloom.planner.syntax.calls.tasks import Parts, TaskReader, references_of
from planloom.planner.syntax.calls.values import ArgumentError, parse_arguments


def read_join(call: CallText, reading: Reading) -> None:
    """The plan is complete; what stands in the brackets says what is shown, or is the answer."""
    end = reading.end
    end.is_complete = True
    parts = _join_parts(call, reading)
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
            _set_answer(call, value, reading)
        else:
            reading.warn(f'line {call.line}: join has no "{key}"; write answer=…')
            names += roots_of(value)  # type: ignore[arg-type]
    if texts and not end.has_answer:
        _read_text(call, names, texts, reading)
    if names and not end.has_answer:
        end.join_only = list(dict.fromkeys(names))
    for name in dict.fromkeys([*names, *(roots_of(end.answer) if end.has_answer else ())]):
        _check_joined(call, name, reading)


def _join_parts(call: CallText, reading: Reading) -> Parts | None:
    """What stands in its brackets; None when only that can be left out."""
    try:
        return parse_arguments(call.arguments, lambda text: references_of(text, call, reading))
    except (ArgumentError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if "answer" in call.arguments and not call.is_numbered:
            reason = getattr(error, "msg", None) or str(error)
            message = f"line {call.line}: join: {reason}"
            hint = "Write literals, and names of tasks, in the answer."
            reading.report(call.line, "join", "syntax", message, hint)
        else:
            reading.warn(f"line {call.line}: text in join was left out")
        return None


def _read_text(call: CallText, names: list[str], texts: list[object], reading: Reading) -> None:
    """A value in join that is not a name: the answer, if it can be meant as one."""
    reads = bool(roots_of(texts[0]))  # type: ignore[arg-type]
    is_only = len(texts) == 1 and not names and not call.is_numbered
    has_tasks = bool(reading.lines or reading.given or reading.kept)
    if is_only and (reads or not has_tasks):
        _set_answer(call, texts[0], reading)
    else:
        reading.warn(f"line {call.line}: text in join was left out; write answer=…")


def _set_answer(call: CallText, value: object, reading: Reading) -> None:
    if holds_call(value):
        message = f"line {call.line}: join: the answer holds a call"
        hint = "Give the call its own line and name."
        reading.report(call.line, "join", "bad_argument", message, hint)
    else:
        reading.end.answer, reading.end.has_answer = value, True  # type: ignore[assignment]


def _check_joined(call: CallText, name: str, reading: Reading) -> None:
    if name == "params" or (reading.is_readable(name) and name not in reading.failed):
        return
    if name in reading.failed:
        code, why, hint = "input_not_accepted", f'"{name}" was not accepted', ""
    else:
        code, why, hint = "missing_reference", f'no task "{name}"', reading.near(name)
    reading.report(call.line, "join", code, f"line {call.line}: join: {why}", hint)


def read_stop(call: CallText, tasks: TaskReader, reading: Reading) -> None:
    """The condition that ends the run early."""
    problems: list[Problem] = []
    parts = tasks.parts(call, "stop_when", problems, reading)
    if parts is not None:
        values = [*parts[0], *parts[1].values()]
        if len(values) == 1 and isinstance(values[0], str):
            reading.end.stop_when = values[0]
        else:
            message = f"line {call.line}: stop_when takes one condition, as text"
            hint = 'Write for example stop_when("${a.value} > 10").'
            problems.append(problem("stop_when", "bad_argument", message, hint))
    reading.problems += [(call.line, p) for p in problems]


def _pure_names(value: object) -> list[str] | None:
    """The tasks a value names when it is nothing but names, in lists or not."""
    if isinstance(value, list):
        inner = [_pure_names(v) for v in value]
        return [n for names in inner for n in names or ()] if value and all(inner) else None
    whole = whole_reference(value) if isinstance(value, str) else None
    return [whole.root] if whole else None

"""The planner's syntax `calls`: a streamed text becomes tasks, one at a time.

`a = search(query="…")` lines, ended by `join(…)`; LLMCompiler's own text (`1. search("…")`, `$1`)
is read by the same parser. Nothing is evaluated: Python's grammar gives literals and names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from planner.calls_scan import CallScanner, CallText, Piece, Prose
from planner.calls_values import ArgumentError, NestedCall, parse_arguments
from planner.catalog import ToolSpec
from planner.documents import problems_from_validation
from planner.jobs import PlannedTask
from planner.plan import TASKS_MAX, Body, Task
from planner.references import references_in, roots_of
from planner.values import RESERVED_IDS, JsonValue, Problem

OPTIONS = {
    "_when": "when",
    "_map": "map",
    "_after": "depends_on",
    "_requires": "requires",
    "_fallback": "fallback",
    "_note": "description",
    "_description": "description",
    "_timeout": "timeout",
    "_retry": "retry",
    "_on_error": "on_error",
    "_estimate": "estimate",
    "_speculate": "speculate",
    "_approval": "approval",
    "_priority": "priority",
}
"""Task fields as keywords of a call."""
JOINS = ("join", "finish")
_POSITIONAL: dict[str, tuple[str, ...]] = {
    "ask": ("prompt", "context"),
    "agent": ("agent", "task", "context"),
    "team": ("team", "task", "context"),
    "plan": ("plan",),
    "human": ("question", "schema"),
}
_ASK_FIELDS = ("prompt", "context", "system", "model", "max_tokens", "output_schema")
_BARE = re.compile(r"\$(\$\{|\{\w+\}|\w+)")


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

    `known` are ids that may be referred to beside this text's own: finished tasks of an earlier
    revision, or those accepted from an earlier attempt.
    """

    def __init__(
        self, tools: Sequence[ToolSpec], known: Sequence[str] = (), first_line: int = 1
    ) -> None:
        self._tools = {t.name: t for t in tools}
        self._given = set(known)
        self._scanner = CallScanner(first_line)
        self._lines: dict[str, int] = {}
        self._failed: set[str] = set()
        self._ahead: list[tuple[str, str, Problem]] = []
        """References that named nothing when they were read: (task, name, problem)."""
        self._thought = ""
        self._prose: list[Prose] = []
        self._end = ParsedEnd()
        self._is_over = False
        self._ignored = 0

    # -- text in ----------------------------------------------------------------------------

    def feed(self, text: str) -> list[PlannedTask]:
        """The tasks that this piece of text completes."""
        return self._take(self._scanner.feed(text))

    def close(self, is_cut_off: bool = False) -> ParsedEnd:
        """No more text comes; `is_cut_off`: the model hit its length limit."""
        late = self._take(self._scanner.close())
        assert not late, "a call is complete with its bracket"
        end, open_call = self._end, self._scanner.open_call
        if open_call is not None and not self._is_over:
            self._report_open(open_call, is_cut_off)
        elif is_cut_off and not end.is_complete:
            message = "the answer was cut off before its join line"
            end.problems.append(_problem("plan", "cut_off", message))
        self._settle_references()
        nothing = not end.tasks and not end.is_complete
        if not end.problems and nothing and not self._lines:
            said = self._prose[0].text[:80] if self._prose else ""
            message = "no tasks in the answer" + (f': it begins "{said}"' if said else "")
            hint = 'Write lines such as a = search(query="…"), then join(a).'
            end.problems.append(_problem("plan", "no_tasks", message, hint))
        elif self._prose:
            end.warnings.append(f"{len(self._prose)} lines that are no calls were left out")
        if self._ignored:
            end.warnings.append(f"{self._ignored} calls after join were left out")
        return end

    def _take(self, pieces: list[Piece]) -> list[PlannedTask]:
        tasks: list[PlannedTask] = []
        for piece in pieces:
            if isinstance(piece, Prose):
                self._read_prose(piece)
            elif self._is_over:
                self._ignored += 1
            else:
                tasks += self._read_call(piece)
        return tasks

    def _read_prose(self, prose: Prose) -> None:
        match prose.kind:
            case "thought":
                self._thought = prose.text
            case "end":
                self._is_over = self._is_over or self._end.is_complete
            case "comment" | "fence":
                if prose.kind == "comment":
                    self._end.warnings.append(f"line {prose.line}: comment dropped")
            case "text":
                if not self._is_over:
                    self._prose.append(prose)

    def _report_open(self, call: CallText, is_cut_off: bool) -> None:
        name = call.label or call.tool
        if is_cut_off:
            message = f"cut off inside task {name} (line {call.line})"
            self._end.problems.append(_problem(f"tasks.{name}", "cut_off", message))
        else:
            self._unclosed(call)
        self._failed.add(name)

    def _unclosed(self, call: CallText) -> None:
        name = call.label or call.tool
        message = f"line {call.line}: the bracket of {call.tool}( is not closed"
        self._end.problems.append(_problem(f"tasks.{name}", "unclosed", message))
        self._failed.add(name)

    # -- one call ---------------------------------------------------------------------------

    def _read_call(self, call: CallText) -> list[PlannedTask]:
        end = self._end
        if call.shares_line:
            end.warnings.append(f"line {call.line}: two calls on one line")
        if not call.is_closed:
            self._unclosed(call)
            return []
        if call.label is None and not self._is_plain_call(call):
            self._prose.append(Prose("text", call.text, call.line))
            return []
        if call.tool in JOINS and (call.tool == "join" or call.tool not in self._tools):
            self._read_join(call)
            return []
        if call.tool == "stop_when":
            self._read_stop(call)
            return []
        name = call.label or self._name_for(call)
        if end.tasks >= TASKS_MAX:
            if not any(p.code == "too_many" for p in end.problems):
                message = f"more than {TASKS_MAX:,} tasks"
                end.problems.append(_problem("plan", "too_many", message))
            return []
        planned = self._task(call, name)
        self._thought = ""
        if planned is None:
            if name not in self._given:  # else the model wrote again what stands already
                self._failed.add(name)
            return []
        end.tasks += 1
        return [planned]

    def _is_plain_call(self, call: CallText) -> bool:
        return call.tool in {*self._tools, *_POSITIONAL, *JOINS, "stop_when"}

    def _name_for(self, call: CallText) -> str:
        number = 1
        while f"{call.tool}_{number}" in self._lines:
            number += 1
        self._end.warnings.append(
            f"line {call.line}: a call without a name; it is called {call.tool}_{number}"
        )
        return f"{call.tool}_{number}"

    def _task(self, call: CallText, name: str) -> PlannedTask | None:
        problems: list[Problem] = []
        where = f"tasks.{name}"
        if name in self._lines or (name in self._given and name in self._lines):
            message = f"id {name} is used twice: lines {self._lines[name]} and {call.line}"
            self._end.problems.append(_problem(where, "duplicate_id", message))
            return None
        if name in self._given:
            self._lines[name] = call.line
            return None  # a model that goes on may write what it has written before
        self._lines[name] = call.line
        if name in RESERVED_IDS:
            problems.append(_problem(where, "reserved_id", f'"{name}" is a reserved id'))
        parts = self._parts(call, where, problems)
        document = self._document(call, name, parts, where, problems) if parts else None
        if document is not None:
            self._check_names(document, name, call, where, problems)
        if document is None or problems:
            self._end.problems += problems
            return None
        if self._ahead and self._ahead[-1][0] == name:
            return None
        try:
            task = Task.model_validate(document)
        except ValidationError as error:
            found = problems_from_validation(error, document, Task, where)
            self._end.problems += found
            return None
        return PlannedTask(task=task, text=call.text)

    def _parts(
        self, call: CallText, where: str, problems: list[Problem]
    ) -> tuple[list[object], dict[str, object]] | None:
        def text_of(text: str) -> str:
            return self._with_references(text, call)

        try:
            return parse_arguments(call.arguments, text_of)
        except ArgumentError as error:
            if not call.is_numbered:
                problems.append(_problem(where, "bad_argument", f"line {call.line}: {error}"))
                return None
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if not call.is_numbered:
                said = getattr(error, "msg", None) or type(error).__name__
                message = f"line {call.line}: {said} in {call.text[:80]}"
                hint = "Write literals, and names of earlier tasks, as arguments."
                problems.append(_problem(where, "syntax", message, hint))
                return None
        # LLMCompiler takes the raw text as one argument.
        self._end.warnings.append(f"line {call.line}: unquoted argument taken as text")
        return [text_of(call.arguments.strip())], {}

    def _with_references(self, text: str, call: CallText) -> str:
        """`$1` of LLMCompiler's text as `${1}`; what names no task stays as it is."""
        if not call.is_numbered or "$" not in text:
            return text

        def written(found: re.Match[str]) -> str:
            inner = found[1]
            if inner == "${":
                return found[0]
            name = inner.strip("{}")
            is_whole, is_braced = found[0] == text.strip(), inner.startswith("{")
            if name in self._lines or name in self._given or is_whole or is_braced:
                return f"${{{name}}}"
            self._end.warnings.append(f'line {call.line}: "{found[0]}" names no task; kept as text')
            return found[0]

        return _BARE.sub(written, text)

    # -- from arguments to a task -----------------------------------------------------------

    def _document(
        self,
        call: CallText,
        name: str,
        parts: tuple[list[object], dict[str, object]],
        where: str,
        problems: list[Problem],
    ) -> dict[str, Any] | None:
        positional, keywords = parts
        options = {k: v for k, v in keywords.items() if k in OPTIONS}
        plain = {k: v for k, v in keywords.items() if k not in OPTIONS}
        body = self._body(call.tool, positional, plain, where, problems)
        if body is None:
            return None
        document: dict[str, Any] = {"id": name, **body}
        if self._thought:
            document["description"] = self._thought[:500]
        for option, value in options.items():
            document[OPTIONS[option]] = self._option(option, value, where, problems)
        return document

    def _option(self, option: str, value: object, where: str, problems: list[Problem]) -> object:
        if option == "_after":
            names = value if isinstance(value, list) else [value]
            return [_bare_name(str(n)) for n in names]
        if isinstance(value, NestedCall):
            if option == "_fallback":
                place = f"{where}.fallback"
                return self._body(value.tool, value.positional, value.keywords, place, problems)
            message = f"{option} cannot be a call"
            problems.append(_problem(where, "bad_argument", message))
            return None
        return value

    def _body(
        self,
        tool: str,
        positional: list[object],
        keywords: dict[str, object],
        where: str,
        problems: list[Problem],
    ) -> dict[str, Any] | None:
        spec = self._tools.get(tool)
        if spec is None and tool not in _POSITIONAL:
            known = [*self._tools, *_POSITIONAL]
            near = get_close_matches(tool, known, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Tools: " + ", ".join(self._tools)
            problems.append(_problem(f"{where}.tool", "unknown_tool", f'no tool "{tool}"', hint))
            return None
        if any(_holds_call(v) for v in [*positional, *keywords.values()]):
            message = f"{tool}: a call inside a call; give it a line and a name of its own"
            problems.append(_problem(where, "bad_argument", message))
            return None
        is_special = tool in _POSITIONAL and (spec is None or tool == "ask")
        names = _POSITIONAL[tool] if is_special else _parameters(spec)
        if len(positional) > len(names):
            message = f"{tool} takes {len(names)} arguments ({', '.join(names)}); "
            message += f"{len(positional)} were given"
            problems.append(_problem(f"{where}.args", "too_many_arguments", message))
            return None
        args: dict[str, Any] = dict(zip(names, positional, strict=False))
        for key, value in keywords.items():
            if key in args:
                message = f'{tool}: "{key}" is given twice'
                problems.append(_problem(f"{where}.args.{key}", "bad_argument", message))
            args[key] = value
        return _special(tool, args) if is_special else {"tool": tool, "args": args}

    def _check_names(
        self,
        document: dict[str, Any],
        name: str,
        call: CallText,
        where: str,
        problems: list[Problem],
    ) -> None:
        """References must name tasks written before, or known ones."""
        after = [str(d) for d in document.get("depends_on") or []]
        for root in dict.fromkeys([*roots_of(document), *after]):
            if root in ("item", "index", "params"):
                continue
            if root == name:
                message = f"line {call.line}: {name} refers to itself"
                problems.append(_problem(where, "self_reference", message))
            elif root in self._failed:
                message = f'line {call.line}: it reads "{root}", which was not accepted'
                problems.append(_problem(where, "input_not_accepted", message))
            elif root not in self._lines and root not in self._given:
                known = [n for n in (*self._given, *self._lines) if n != name]
                near = get_close_matches(root, sorted(known), n=1)
                hint = f'Did you mean "{near[0]}"?' if near else ""
                message = f'line {call.line}: no task "{root}"'
                found = _problem(where, "missing_reference", message, hint)
                self._ahead.append((name, root, found))

    def _settle_references(self) -> None:
        """Now that all lines are known: was a missing name only written later?"""
        for name, root, problem in self._ahead:
            if root in self._lines:
                problem = problem.model_copy(
                    update={
                        "code": "forward_reference",
                        "message": f'{name} refers to "{root}", which is written later '
                        f"(line {self._lines[root]})",
                        "hint": f"Write {root} first.",
                    }
                )
            self._end.problems.append(problem)

    # -- the end of a plan ------------------------------------------------------------------

    def _read_join(self, call: CallText) -> None:
        end = self._end
        end.is_complete, self._is_over = True, True
        problems: list[Problem] = []
        parts = self._parts(call, "join", problems)
        if parts is None:
            end.problems += problems
            return
        positional, keywords = parts
        if "answer" in keywords:
            end.answer, end.has_answer = keywords["answer"], True  # type: ignore[assignment]
        elif len(positional) == 1 and not _is_name(positional[0]):
            end.answer, end.has_answer = positional[0], True  # type: ignore[assignment]
        names = [_bare_name(str(p)) for p in positional if _is_name(p)]
        known = {*self._lines, *self._given} - self._failed
        wanted = [*names, *(roots_of(end.answer) if end.has_answer else ())]
        for name in wanted:
            if name not in known and name != "params":
                failed = name in self._failed
                code = "input_not_accepted" if failed else "missing_reference"
                why = f'"{name}" was not accepted' if failed else f'no task "{name}"'
                end.problems.append(_problem("join", code, f"line {call.line}: join: {why}"))
        if names and not end.has_answer:
            end.join_only = list(dict.fromkeys(names))

    def _read_stop(self, call: CallText) -> None:
        problems: list[Problem] = []
        parts = self._parts(call, "stop_when", problems)
        if parts is not None and parts[0] and isinstance(parts[0][0], str):
            self._end.stop_when = parts[0][0]
        self._end.problems += problems


def _problem(path: str, code: str, message: str, hint: str = "") -> Problem:
    return Problem(path=path, code=code, message=message, hint=hint)


def _parameters(spec: ToolSpec | None) -> tuple[str, ...]:
    properties = spec.parameters.get("properties") if spec else None
    return tuple(properties) if isinstance(properties, Mapping) else ()


def _holds_call(value: object) -> bool:
    match value:
        case NestedCall():
            return True
        case list():
            return any(_holds_call(v) for v in value)
        case dict():
            return any(_holds_call(v) for v in value.values())
        case _:
            return False


def _special(tool: str, args: dict[str, Any]) -> dict[str, Any]:
    """The bodies that are no tools, written as calls."""
    match tool:
        case "ask" if isinstance(args.get("prompt"), str) and set(args) <= set(_ASK_FIELDS):
            return {"ask": args}
        case "ask":
            return {"tool": "ask", "args": args}
        case "human":
            return {"human": args}
        case _:
            return {tool: args.pop(tool, args.pop("name", None)), "args": args}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"\$\{[\w-]+\}", value))


def _bare_name(text: str) -> str:
    found = references_in(text)
    return found[0].root if found else text


# -- a task written back -------------------------------------------------------------------


def call_text(task: Task) -> str:
    """A task as one line of `calls`; reading it again gives the same task."""
    options: dict[str, Any] = {}
    document = task.model_dump(mode="json", exclude_unset=True, by_alias=True)
    for keyword, name in OPTIONS.items():
        if name in document and keyword != "_description":
            options[keyword] = document[name]
    parts = _body_parts(task) + [f"{k}={_option_text(k, v)}" for k, v in options.items()]
    return f"{task.id} = {_callable(task)}({', '.join(parts)})"


def _callable(body: Body) -> str:
    return body.tool or body.kind


def _body_parts(body: Body) -> list[str]:
    match body.kind:
        case "tool":
            fields = dict(body.args)
        case "ask":
            fields = body.ask_body().model_dump(mode="json", exclude_unset=True)
        case "human":
            fields = body.human_body().model_dump(mode="json", exclude_unset=True, by_alias=True)
        case kind:
            named = getattr(body, kind)
            shown = (
                named
                if isinstance(named, str)
                else named.model_dump(mode="json", exclude_unset=True)
            )
            fields = {kind: shown, **body.args}
    return [f"{k}={_text_of(v)}" for k, v in fields.items()]


def _option_text(keyword: str, value: JsonValue) -> str:
    if keyword == "_after" and isinstance(value, list):
        return "[" + ", ".join(f'"{v}"' for v in value) + "]"
    if keyword == "_fallback" and isinstance(value, dict):
        try:
            body = Body.model_validate(value)
        except ValidationError:
            return _text_of(value)
        return f"{_callable(body)}({', '.join(_body_parts(body))})"
    return _text_of(value)


def _text_of(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


__all__ = ["OPTIONS", "CallsParser", "ParsedEnd", "call_text"]

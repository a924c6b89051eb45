"""What a call does: its tool or special callable and its arguments as a task's body."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.references import references_in, whole_reference
from planloom.planner.language.values import Problem
from planloom.planner.syntax.calls.text import ID_OPTION, OPTIONS
from planloom.planner.syntax.calls.values import NestedCall
from planloom.planner.syntax.parsed_plan import Meant, as_written

POSITIONAL: dict[str, tuple[str, ...]] = {
    "ask": ("prompt", "context"),
    "agent": ("agent", "task", "context"),
    "team": ("team", "task", "context"),
    "plan": ("plan",),
    "human": ("question", "schema"),
}
_ASK_FIELDS = ("prompt", "context", "system", "model", "max_tokens", "output_schema")


class BodyReader:
    """Knows the tools, and the names of agents, teams and templates (None: any)."""

    def __init__(
        self,
        tools: Mapping[str, ToolSpec],
        agents: Collection[str] | None,
        teams: Collection[str] | None,
        template_names: Collection[str] | None,
        meant: Meant = as_written,
    ) -> None:
        self._meant = meant
        self._tools = tools
        self._names = {"agent": agents, "team": teams, "plan": template_names}

    def option(self, option: str, value: object, where: str, problems: list[Problem]) -> object:
        if isinstance(value, NestedCall) and option == "_fallback":
            place = f"{where}.fallback"
            return self.body(value.tool, value.positional, value.keywords, place, problems)
        if holds_call(value):
            problems.append(_problem(where, "bad_argument", f"{option} cannot be a call"))
            return None
        is_number = isinstance(value, int) and not isinstance(value, bool)
        match option:
            case "_after":
                names = value if isinstance(value, list) else [value]
                return [_bare_name(str(n)) for n in names]
            case "_requires" if is_number:
                return {"at_least": value}
            case "_retry" if is_number:
                return {"max_attempts": value}
            case _:
                return value

    def body(
        self,
        tool: str,
        positional: list[object],
        keywords: dict[str, object],
        where: str,
        problems: list[Problem],
    ) -> dict[str, Any] | None:
        spec = self._tools.get(tool)
        if spec is None and tool not in POSITIONAL:
            near = get_close_matches(tool, [*self._tools, *POSITIONAL], n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Tools: " + ", ".join(self._tools)
            problems.append(_problem(f"{where}.tool", "unknown_tool", f'no tool "{tool}"', hint))
            return None
        is_special = tool in POSITIONAL and (spec is None or tool == "ask")
        names = POSITIONAL[tool] if is_special else _parameters(spec)
        if not keywords and _are_arguments(positional, names, spec):
            positional, keywords = [], dict(positional[0])  # type: ignore[call-overload]
        problems_before = len(problems)
        for key, value in [*zip(names, positional, strict=False), *keywords.items()]:
            if holds_call(value):
                message = f"{tool}: a call inside a call; give it its own line and name"
                problems.append(_problem(f"{where}.args.{key}", "bad_argument", message))
        for key in keywords:
            if key in names[: len(positional)]:
                message = f'{tool}: "{key}" is given twice'
                problems.append(_problem(f"{where}.args.{key}", "bad_argument", message))
            elif key.startswith("_") and key not in names:
                problems.append(_unknown_option(key, where))
        if len(positional) > len(names):
            message = f"{tool} takes {len(names)} arguments ({', '.join(names)}); "
            message += f"{len(positional)} were given"
            problems.append(_problem(f"{where}.args", "too_many_arguments", message))
        if len(problems) > problems_before:
            return None
        args: dict[str, Any] = dict(zip(names, positional, strict=False)) | keywords
        if not is_special:
            parameters = spec.parameters if spec is not None else {}
            return {"tool": tool, "args": self._meant(args, parameters)}
        return self._special(tool, args, where, problems)

    def _special(
        self, tool: str, args: dict[str, Any], where: str, problems: list[Problem]
    ) -> dict[str, Any] | None:
        """The bodies that are no tools, written as calls."""
        match tool:
            case "ask" if isinstance(args.get("prompt"), str) and set(args) <= set(_ASK_FIELDS):
                return {"ask": args}
            case "ask":
                return {"tool": "ask", "args": args}
            case "human":
                return {"human": args}
        alias = "template" if tool == "plan" else "name"
        named = args.pop(tool) if tool in args else args.pop(alias, None)
        if named is None:
            message = f'{tool} needs a name first: {tool}("…", …)'
            problems.append(_problem(f"{where}.{tool}", "bad_argument", message))
            return None
        if isinstance(named, str) and (whole := whole_reference(named)):
            named = whole.root  # agent(researcher) means agent("researcher")
        names = self._names[tool]
        if isinstance(named, str) and names is not None and named not in names:
            what = "template" if tool == "plan" else tool
            near = get_close_matches(named, list(names), n=1)
            listed = f"{what.capitalize()}s: " + (", ".join(list(names)[:12]) or "none")
            hint = f'Did you mean "{near[0]}"?' if near else listed
            message = f'no {what} "{named}"'
            problems.append(_problem(f"{where}.{tool}", f"unknown_{what}", message, hint))
            return None
        return {tool: named, "args": args}


def _problem(path: str, code: str, message: str, hint: str = "") -> Problem:
    return Problem(path=path, code=code, message=message, hint=hint)


def _unknown_option(key: str, where: str) -> Problem:
    near = get_close_matches(key, [*OPTIONS, ID_OPTION], n=1)
    hint = f'Did you mean "{near[0]}"?' if near else "Options: " + ", ".join(OPTIONS)
    return _problem(f"{where}.args.{key}", "bad_argument", f'no option "{key}"', hint)


def _parameters(spec: ToolSpec | None) -> tuple[str, ...]:
    properties = spec.parameters.get("properties") if spec else None
    return tuple(properties) if isinstance(properties, Mapping) else ()


def _are_arguments(positional: list[object], names: tuple[str, ...], spec: ToolSpec | None) -> bool:
    """Whether one object stands for all arguments: `look({"q": "x"})`."""
    if len(positional) != 1 or not isinstance(given := positional[0], dict) or not given:
        return False
    properties = spec.parameters.get("properties") if spec is not None else None
    first = properties.get(names[0]) if isinstance(properties, Mapping) and names else None
    is_text = spec is None or (isinstance(first, Mapping) and first.get("type") == "string")
    return is_text and set(given) <= set(names)


def holds_call(value: object) -> bool:
    match value:
        case NestedCall():
            return True
        case list():
            return any(holds_call(v) for v in value)
        case dict():
            return any(holds_call(v) for v in value.values())
        case _:
            return False


def _bare_name(text: str) -> str:
    references = references_in(text)
    return references[0].root if references else text

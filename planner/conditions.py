"""`when` and `stop_when`: JMESPath conditions over outcomes.

Three forms, freely mixed: JMESPath over `{id: {outcome, output, error}}`, where an object's own
fields are also reached directly (`check.ok`); `${ref}` alone, true when its value is; `${ref}` in
an expression, with plain literals (`${fr.value} > 10`), which stand for `fr.output.value` and
`` `10` ``. False are: false, null, "", [], {} and, when it is the whole condition, 0.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from planner.references import Reference, references_in
from planner.values import JsonValue, Problem

_TOKEN = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?:\\.|[^`\\])*`|\$\{[^}]*\}|
        (?<![\w.\[\]`'"])-?\d+(?:\.\d+)?(?![\w\]`])|[A-Za-z_][\w-]*|.""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?$")
_WORDS = ("true", "false", "null")


class ConditionError(ValueError):
    """A condition that does not parse or does not fit its values."""


def _path_of(reference: Reference, given: Collection[str]) -> str:
    name = f'"{reference.root}"' + ("" if reference.root in given else ".output")
    path = reference.path
    if not path:
        return f"({name})"
    return f"({name}{path if path[0] in '.[|' else '.' + path})"


@lru_cache(maxsize=1024)
def _translated(condition: str) -> str:
    """The condition as pure JMESPath."""
    pieces: list[str] = []
    depth = 0
    for token in _TOKEN.findall(condition):
        if token.startswith("${"):
            found = references_in(token)
            pieces.append(_path_of(found[0], ("params", "item", "index")) if found else token)
            continue
        depth += (token == "[") - (token == "]")
        before = "".join(pieces).rstrip()[-1:] if pieces else ""
        is_member = before in ".:@&" and before != "" and not "".join(pieces).endswith("&&")
        is_bare_number = depth == 0 and _NUMBER.match(token) and before not in ".["
        if is_bare_number or (token in _WORDS and not is_member):
            pieces.append(f"`{token}`")
        else:
            pieces.append(token)
    return "".join(pieces)


@lru_cache(maxsize=1024)
def _compiled(condition: str) -> ParsedResult:
    try:
        return jmespath.compile(_translated(condition))
    except JMESPathError as error:
        raise ConditionError(
            f'"{condition}" is no condition: {str(error).splitlines()[0][:160]}'
        ) from None


def evaluate(
    condition: str,
    outcomes: Mapping[str, str],
    outputs: Mapping[str, JsonValue],
    extra: Mapping[str, JsonValue] | None = None,
) -> bool:
    """Whether a condition holds. `outputs` without an outcome are given values, such as `params`.

    Raises:
        ConditionError: it does not parse, or does not fit the values.
    """
    scope: dict[str, Any] = dict(extra or {})
    for name in [*outcomes, *outputs]:
        value = outputs.get(name)
        if name not in outcomes:
            scope[name] = value
            continue
        fields = dict(value) if isinstance(value, dict) else {}
        scope[name] = {**fields, "outcome": outcomes[name], "output": value}
    try:
        found = _compiled(condition).search(scope)
    except JMESPathError as error:
        raise ConditionError(f'"{condition}": {str(error).splitlines()[0][:160]}') from None
    return bool(found)


def _identifiers(node: Any, found: list[str]) -> None:
    """First names that an expression reads from its root."""
    kind, children = node["type"], node.get("children", [])
    if kind == "field":
        found.append(node["value"])
        return
    if kind in ("subexpression", "index_expression", "pipe") or kind.endswith("projection"):
        _identifiers(children[0], found)
        if kind == "filter_projection":
            return
        return
    for child in children:
        if isinstance(child, dict):
            _identifiers(child, found)


def roots_of_condition(condition: str, known: Collection[str] = ()) -> tuple[str, ...]:
    """The tasks and values that a condition reads, in order; unknown names are left out."""
    try:
        parsed: Any = _compiled(condition).parsed
    except ConditionError:
        return ()
    found: list[str] = []
    _identifiers(parsed, found)
    names = dict.fromkeys(found)
    return tuple(n for n in names if not known or n in known)


def check_condition(condition: str, known: Collection[str], where: str) -> list[Problem]:
    """Whether a condition parses and reads only what is known."""
    try:
        _compiled(condition)
    except ConditionError as error:
        return [
            Problem(
                path=where,
                code="bad_condition",
                message=str(error),
                hint="Write for example \"check.outcome == 'succeeded' && ${check.score} > 3\".",
            )
        ]
    problems = []
    for name in roots_of_condition(condition):
        if name not in known and name != "params":
            near = get_close_matches(name, list(known), n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Tasks: " + ", ".join(list(known)[:12])
            message = f'no task "{name}" in "{condition}"'
            problems.append(
                Problem(path=where, code="missing_reference", message=message, hint=hint)
            )
    return problems

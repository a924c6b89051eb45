"""`when` and `stop_when`: JMESPath conditions over outcomes.

Three forms, freely mixed: JMESPath over `{id: {outcome, output}}`, where an object's own
fields are also reached directly (`check.ok`); `${ref}` alone, true when its value is; `${ref}` in
an expression, with plain literals (`${fr.value} > 10`), which stand for `fr.output.value` and
`` `10` ``. Ids with a hyphen and numeric ids stand as they are; others that JMESPath would not
take as a name go in double quotes (`"a.b".outcome`). False are: false, null, "", [], {} and, when
it is the whole condition, 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from itertools import pairwise
from typing import Any

from planloom.planner.language.expressions import (
    BadPathError,
    Expression,
    Meter,
    TooMuchWorkError,
    compiled_expression,
    shortened,
)
from planloom.planner.language.references import (
    Reference,
    end_of_reference,
    references_in,
    rename,
)
from planloom.planner.language.values import VALUE_NAMES, JsonValue, Problem

CONDITION_MAX_CHARS = 4_000

_TOKEN = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?:\\.|[^`\\])*`|\d[\w-]*(?=\.[A-Za-z_])|
        -?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w`])|[A-Za-z_][\w-]*|.""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_NAME = re.compile(r"[A-Za-z_]\w*")
_ID = re.compile(r"\d[\w-]*|[A-Za-z_][\w-]*")
_WORDS = ("true", "false", "null")


class ConditionError(ValueError):
    """A condition that does not parse or does not fit its values."""


def _tokens(condition: str) -> Iterator[str]:
    at = 0
    while at < len(condition):
        end = end_of_reference(condition, at + 2) + 1 if condition.startswith("${", at) else 0
        if end <= 0:
            match = _TOKEN.match(condition, at)
            assert match is not None  # its last branch takes any character
            end = match.end()
        yield condition[at:end]
        at = end


def _path_of(reference: Reference) -> str:
    name = json.dumps(reference.root) + ("" if reference.root in VALUE_NAMES else ".output")
    return f"({name}{reference.path})"


@lru_cache(maxsize=1024)
def _translated(condition: str) -> str:
    """The condition as pure JMESPath."""
    parts: list[str] = []
    before = ""  # the last two characters that are no space
    tokens = [*_tokens(condition), ""]
    for token, following in pairwise(tokens):
        references = references_in(token) if token.startswith("${") else ()
        is_member = before[-1:] in (".", ":", "@") or (before[-1:] == "&" and before != "&&")
        if references:
            parts.append(_path_of(references[0]))
        elif _NUMBER.fullmatch(token) and following != ".":
            # After an operator it is a value; elsewhere an index, or a mistake.
            is_value = before[-1:] in ("", "(", "<", ">", "=", "&", "|", ",")
            parts.append(f"`{token}`" if is_value else token)
        elif token in _WORDS and not is_member:
            parts.append(f"`{token}`")
        elif _ID.fullmatch(token) and not _NAME.fullmatch(token) and not is_member:
            parts.append(f'"{token}"')  # ids such as my-task or 1; JMESPath has no minus
        else:
            parts.append(token)
        before = (before + token.strip())[-2:]
    return "".join(parts)


@lru_cache(maxsize=1024)
def _compiled(condition: str) -> Expression:
    shown = shortened(condition)
    if len(condition) > CONDITION_MAX_CHARS:
        raise ConditionError(
            f'"{shown}" has {len(condition):,} characters; at most {CONDITION_MAX_CHARS:,}'
        )
    if not condition.strip():
        raise ConditionError("the condition is empty")
    try:
        return compiled_expression(_translated(condition))
    except BadPathError as error:
        raise ConditionError(f'"{shown}" is not a condition: {error}') from None


def readable_condition(condition: str) -> str:
    """The condition itself.

    Raises:
        ConditionError: it does not parse.
    """
    _compiled(condition)
    return condition


def evaluate(
    condition: str,
    outcomes: Mapping[str, str],
    outputs: Mapping[str, JsonValue],
    extra: Mapping[str, JsonValue] | None = None,
    meter: Meter | None = None,
) -> bool:
    """Whether a condition holds. `outputs` without an outcome are given values, such as `params`.

    `meter` bounds the work; without it the bounds are those of workflow code.

    Raises:
        ConditionError: it does not parse, or does not fit the values.
        TooMuchWorkError: it takes too much work.
    """
    scope: dict[str, Any] = dict(extra or {})
    for name in [*outcomes, *outputs]:
        value = outputs.get(name)
        if name not in outcomes:
            scope[name] = value
            continue
        fields = dict(value) if isinstance(value, dict) else {}
        scope[name] = {**fields, "outcome": outcomes[name], "output": value}
    compiled = _compiled(condition)
    try:
        found = compiled.search(scope, meter or Meter())
    except TooMuchWorkError as error:
        raise TooMuchWorkError(f'"{shortened(condition)}": {error}') from None
    except BadPathError as error:
        raise ConditionError(f'"{shortened(condition)}": {error}') from None
    return bool(found)


def _identifiers(node: Any, names: list[str]) -> None:
    """First names that an expression reads from its root."""
    kind, children = node["type"], node.get("children", [])
    if kind == "field":
        names.append(node["value"])
    elif kind in ("subexpression", "index_expression", "pipe") or kind.endswith("projection"):
        _identifiers(children[0], names)  # what follows is read from its result
    elif kind != "expref":  # `&score` is read from each item
        for child in children:
            if isinstance(child, dict):
                _identifiers(child, names)


def roots_of_condition(condition: str, among: Collection[str] = ()) -> tuple[str, ...]:
    """The tasks and values that a condition reads, in order; unknown names are left out."""
    try:
        parsed: Any = _compiled(condition).tree
    except ConditionError:
        return ()
    roots: list[str] = []
    _identifiers(parsed, roots)
    names = dict.fromkeys(roots)
    return tuple(n for n in names if not among or n in among)


def check_condition(condition: str, ids: Collection[str], where: str) -> list[Problem]:
    """Whether a condition parses and reads only these ids."""
    try:
        _compiled(condition)
    except ConditionError as error:
        return [
            Problem(path=where, code="bad_condition", message=str(error), hint=_mend(condition))
        ]
    problems = []
    for token in _tokens(condition):
        if token[0] in "'\"`" and references_in(token):
            message = f"{shortened(token)} is text: a reference in quotes is not replaced"
            hint = "Write ${…} without the quotes."
            problems.append(
                Problem(path=where, code="quoted_reference", message=message, hint=hint)
            )
    for name in roots_of_condition(condition):
        if name not in ids and name != "params":
            message = f'no task "{shortened(name)}" in "{shortened(condition)}".'
            hint = _nearest(name, condition, list(ids))
            problems.append(
                Problem(path=where, code="missing_reference", message=message, hint=hint)
            )
    return problems


def _mend(condition: str) -> str:
    if re.search(r"\b(and|or|not)\b", condition):
        return "Write && for and, || for or, ! for not."
    if re.search(r"\bin\b", condition):
        return "Write contains(list, value) for in."
    return (
        "Write for example \"check.outcome == 'succeeded' && ${check.score} > 3\": == compares, "
        "&& is and, || is or, ! is not."
    )


def _nearest(name: str, condition: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    if near:
        return f'Did you mean "{near[0]}"?'
    if f'"{name}"' in condition:
        return f"If it is text, write it in single quotes: '{shortened(name)}'."
    return "Tasks: " + (", ".join(names[:12]) or "none") + "."


def rename_in_condition(condition: str, names: Mapping[str, str]) -> str:
    """The condition with the tasks that it reads replaced, in `${…}` and outside.

    Names read from something else stay: members, function names, what stands in a filter `[?…]`
    or behind a pipe.
    """
    parts: list[str] = []
    before, is_inner = "", [False]
    tokens = list(_tokens(condition))
    for n, token in enumerate(tokens):
        rest = "".join(tokens[n + 1 : n + 3]).lstrip()[:2]
        match token:
            case "(" | "{" | "[":
                is_inner.append(is_inner[-1] or before[-1:] == "." or rest[:1] == "?")
            case ")" | "}" | "]" if len(is_inner) > 1:
                is_inner.pop()
            case "|" if rest[:1] != "|" and before[-1:] != "|":
                is_inner[-1] = True
            case _:
                token = _renamed(token, names, is_inner[-1], before, rest)
        parts.append(token)
        before = (before + token.strip())[-2:]
    return "".join(parts)


def _renamed(token: str, names: Mapping[str, str], inner: bool, before: str, rest: str) -> str:
    if token.startswith("${"):
        return str(rename(token, names))
    name = token[1:-1] if token.startswith('"') and len(token) > 2 else token
    is_member = inner or before[-1:] == "." or (before[-1:] == "&" and before != "&&")
    is_call = rest[:1] == "(" or (rest[:1] == ":" and rest != "::")
    if name not in names or is_member or is_call or token[0] in "'`":
        return token
    new = names[name]
    return new if _ID.fullmatch(new) else json.dumps(new)

"""A task written back as one line of the syntax `calls`."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from planloom.planner.language.plan import Body, Task
from planloom.planner.language.values import JsonValue

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
    "_fuse": "fuse",
    "_approval": "approval",
    "_priority": "priority",
    "_cache": "cache",
}
"""Task fields as keywords of a call."""

ID_OPTION = "_id"
"""Names a task whose id cannot stand before `=`."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CUT_FROM_CHARS = 100
_NUMBERED_DOLLAR = re.compile(r"\$[\w$]")


def call_text(task: Task) -> str:
    """A task as one line of `calls`; reading it again gives the same task, but its description."""
    document = task.model_dump(mode="json", exclude_unset=True, by_alias=True)
    options = {
        option: document[name]
        for option, name in OPTIONS.items()
        if name in document and name != "description"
    }
    parts = [*_body_parts(task), *(f"{k}={_option_text(k, v)}" for k, v in options.items())]
    name, called = str(task.id), task.tool or task.kind
    if _NAME.match(name):
        return f"{name} = {called}({', '.join(parts)})"
    # In a numbered line `$1` would be read as a reference.
    if name.isdecimal() and not any(_NUMBERED_DOLLAR.search(p) for p in parts):
        return f"{name}. {called}({', '.join(parts)})"
    return f"{called}({', '.join([*parts, f'{ID_OPTION}={_text_of(name)}'])})"


def _body_parts(body: Body) -> list[str]:
    match body.kind:
        case "tool":
            fields: Mapping[str, Any] = body.args
        case "ask":
            fields = body.ask_body().model_dump(mode="json", exclude_unset=True)
        case "human":
            fields = body.human_body().model_dump(mode="json", exclude_unset=True, by_alias=True)
        case kind:
            named = getattr(body, kind)
            if not isinstance(named, str):
                named = named.model_dump(mode="json", exclude_unset=True, by_alias=True)
            return [_text_of(named), *_keywords(body.args)]
    return _keywords(fields)


def _keywords(fields: Mapping[str, JsonValue]) -> list[str]:
    """`name=value` parts; names that are not identifiers go into one `**{…}`."""
    named = {k: v for k, v in fields.items() if _NAME.match(k) or keyword.iskeyword(k)}
    other = {k: v for k, v in fields.items() if k not in named}
    parts = [f"{k}={_text_of(v)}" for k, v in named.items()]
    return [*parts, f"**{_text_of(other)}"] if other else parts


def _option_text(option: str, value: JsonValue) -> str:
    if option == "_fallback" and isinstance(value, dict):
        try:
            body = Body.model_validate(value)
        except ValidationError:
            return _text_of(value)
        return f"{body.tool or body.kind}({', '.join(_body_parts(body))})"
    return _text_of(value)


def _text_of(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


def earlier_calls(earlier: Sequence[str] | Mapping[str, str]) -> dict[str, str | None]:
    """Earlier ids with their calls, None where only the id is given."""
    if isinstance(earlier, Mapping):
        return {name: call or None for name, call in earlier.items()}
    return dict.fromkeys(earlier)


def is_same_call(call: str, before: str) -> bool:
    """Whether `call` is the same call as `before`, which may be cut short."""
    return bool(call) and (
        call == before or (len(before) > _CUT_FROM_CHARS and call.startswith(before))
    )

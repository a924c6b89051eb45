"""The JSON Schema that a planner's JSON plan is held to, made from what its run may use. Pure.

Each tool is its own form of task: its name, its arguments by its own schema, where any value
may be a reference. Everything is closed (`additionalProperties: false`) and bounded. Only keywords
are used that llama.cpp's converter, llguidance and xgrammar take; `strict_form` makes OpenAI's
strict subset of it. What the schema leaves open, the compiler checks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from planloom.planner.language.catalog import ToolSpec

TASKS_MAX = 256
"""Tasks of one answer: a model in a loop ends there."""
SCHEMA_MAX_BYTES = 60_000
"""A longer schema names the tools only, and leaves their arguments to the compiler."""
DEPTH_MAX = 6
"""Levels of an argument's own schema; what is deeper may be any JSON."""

# Neither quotes nor backslashes: a server may match a pattern against the encoded text.
_REFERENCE = r"^\$\{[A-Za-z0-9_][A-Za-z0-9_.@|?!=<>&*'`,:()\[\] -]*\}$"
_ID = r"^[A-Za-z_][A-Za-z0-9_]{0,39}$"

Schema = dict[str, Any]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _closed(properties: Mapping[str, Schema], required: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


_SCALARS: list[Schema] = [
    {"type": "string"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
]
_DEFS: dict[str, Schema] = {
    "id": {"type": "string", "pattern": _ID},
    "reference": {"type": "string", "pattern": _REFERENCE},
    "any": {
        "anyOf": [
            *_SCALARS,
            {"type": "array", "items": _ref("any")},
            {"type": "object", "additionalProperties": _ref("any")},
        ]
    },
}
_OPEN_ARGS: Schema = {"type": "object", "additionalProperties": _ref("any")}
_OPTIONS: dict[str, Schema] = {
    "depends_on": {"type": "array", "items": {"type": "string"}},
    "when": {"type": "string"},
    "map": _ref("reference"),
    "requires": {"type": "string", "enum": ["all", "any", "best_effort"]},
    "fallback": {"anyOf": _SCALARS[:3]},
    "timeout": {"type": "string"},
    "description": {"type": "string"},
}


def plan_schema(
    tools: Sequence[ToolSpec],
    *,
    agents: Collection[str] = (),
    teams: Collection[str] = (),
    template_names: Collection[str] = (),
) -> Schema:
    """The schema of a plan that uses these, and no others."""
    defs = dict(_DEFS)
    bodies = [_tool_body(tool, defs) for tool in tools]
    bodies += _helper_bodies(agents, teams, template_names)
    made = _plan(bodies, defs)
    if len(json.dumps(made)) > SCHEMA_MAX_BYTES:
        names = [tool.name for tool in tools]
        body = {"tool": {"type": "string", "enum": names}, "args": _OPEN_ARGS}
        helpers = _helper_bodies(agents, teams, template_names)
        made = _plan([body, *helpers] if names else helpers, dict(_DEFS))
    own: Schema = json.loads(json.dumps(made))  # the caller's to change
    return own


def _plan(bodies: Sequence[Mapping[str, Schema]], defs: dict[str, Schema]) -> Schema:
    forms: list[Schema] = []
    for body in bodies:
        plain = {"id": _ref("id"), **body}
        forms += [_closed(plain, list(plain)), _closed({**plain, **_OPTIONS}, list(plain))]
    tasks: Schema = {"type": "array", "items": {"anyOf": forms}, "maxItems": TASKS_MAX}
    if not forms:
        tasks = {"type": "array", "items": _closed({}, []), "maxItems": 0}
    properties = {"tasks": tasks, "answer": _ref("any"), "stop_when": {"type": "string"}}
    return {**_closed(properties, ["tasks"]), "$defs": defs}


def _helper_bodies(
    agents: Collection[str], teams: Collection[str], template_names: Collection[str]
) -> list[dict[str, Schema]]:
    words = _closed({"task": {"type": "string"}, "context": _ref("any")}, ["task"])
    bodies: list[dict[str, Schema]] = []
    for kind, names in (("agent", agents), ("team", teams)):
        if names:
            bodies.append({kind: {"type": "string", "enum": sorted(names)}, "args": words})
    if template_names:
        named: Schema = {"type": "string", "enum": sorted(template_names)}
        bodies.append({"plan": named, "args": _OPEN_ARGS})
    return bodies


# A tool's arguments.


def _tool_body(tool: ToolSpec, defs: dict[str, Schema]) -> dict[str, Schema]:
    shared = f"args-{len(defs)}"
    defs[shared] = {}  # taken before the tool's own definitions
    defs[shared] = _Arguments(tool, defs).schema()
    return {"tool": {"type": "string", "enum": [tool.name]}, "args": _ref(shared)}


class _Arguments:
    """Rewrites one tool's parameters: references allowed, closed, with few keywords."""

    def __init__(self, tool: ToolSpec, defs: dict[str, Schema]) -> None:
        self._root: Mapping[str, Any] = tool.parameters
        self._prefix = f"t{len(defs)}-"
        self._defs = defs

    def schema(self) -> Schema:
        if not isinstance(self._root.get("properties"), Mapping):
            is_open = self._root.get("additionalProperties") not in (None, False)
            return _OPEN_ARGS if is_open else _closed({}, [])
        return self._object(self._root, 0)

    def _object(self, schema: Mapping[str, Any], depth: int) -> Schema:
        properties = schema.get("properties")
        more = schema.get("additionalProperties")
        if not isinstance(properties, Mapping) or not properties:
            inner = self._value(more, depth + 1) if isinstance(more, Mapping) else _ref("any")
            is_closed = more is False
            return (
                _closed({}, []) if is_closed else {"type": "object", "additionalProperties": inner}
            )
        required = schema.get("required")
        required = [r for r in required if r in properties] if isinstance(required, list) else []
        made = _closed({n: self._value(s, depth + 1) for n, s in properties.items()}, required)
        if isinstance(more, Mapping):
            made["additionalProperties"] = self._value(more, depth + 1)
        elif more is True:
            made["additionalProperties"] = _ref("any")
        return made

    def _value(self, schema: Any, depth: int) -> Schema:
        """A value by the schema, or a reference to one."""
        forms = self._forms(schema, depth)
        if _ref("any") in forms:
            return _ref("any")
        if not any(form == {"type": "string"} for form in forms):
            forms.append(_ref("reference"))
        unique = [f for n, f in enumerate(forms) if f not in forms[:n]]
        return unique[0] if len(unique) == 1 else {"anyOf": unique}

    def _forms(self, schema: Any, depth: int) -> list[Schema]:
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
            return [_ref("any")]
        if isinstance(options := schema.get("anyOf", schema.get("oneOf")), list) and options:
            return [form for option in options for form in self._forms(option, depth)]
        if isinstance(target := schema.get("$ref"), str):
            return self._shared(target, depth)
        if isinstance(values := schema.get("enum"), list) and values:
            return _enum(values)
        if "const" in schema:
            return _enum([schema["const"]])
        kinds = schema.get("type")
        listed = kinds if isinstance(kinds, list) else [kinds]
        return [self._of_type(kind, schema, depth) for kind in listed]

    def _of_type(self, kind: Any, schema: Mapping[str, Any], depth: int) -> Schema:
        match kind:
            case "string" | "number" | "integer" | "boolean" | "null":
                return {"type": kind}
            case "array":
                items = schema.get("items")
                return {
                    "type": "array",
                    "items": self._value(items, depth + 1) if items is not None else _ref("any"),
                }
            case "object":
                return self._object(schema, depth)
            case _:
                return _ref("any")

    def _shared(self, target: str, depth: int) -> list[Schema]:
        """A definition of the tool's own, which may refer to itself."""
        name = target.rsplit("/", 1)[-1]
        shared = self._root.get("$defs", self._root.get("definitions"))
        if not isinstance(shared, Mapping) or name not in shared:
            return [_ref("any")]
        own = self._prefix + "".join(c if c.isascii() and c.isalnum() else "-" for c in name)
        # No "_" in it: llama.cpp's converter loses a rule of such a name that refers to itself.
        if own not in self._defs:
            self._defs[own] = {}  # taken, should it refer to itself
            self._defs[own] = self._value(shared[name], depth + 1)
        return [_ref(own)]


def _enum(values: Sequence[Any]) -> list[Schema]:
    """The values by their types; one that is a list or object leaves it open."""
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    by_kind: dict[str, list[Any]] = {}
    for value in values:
        kind = kinds.get(type(value))
        if kind is None:
            return [_ref("any")]
        by_kind.setdefault(kind, []).append(value)
    return [{"type": kind, "enum": listed} for kind, listed in by_kind.items()]

"""Tools, and plans that a planner of these tools may and may not write, for tests of its schema."""

from __future__ import annotations

from typing import Any

from planloom.planner.language.catalog import ToolSpec
from planloom.planner.syntax.plan_schema import plan_schema

TREE = {
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/Node"}},
    "required": ["node"],
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "inner": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name"],
        }
    },
}
TOOLS = [
    ToolSpec(
        name="look",
        parameters={
            "type": "object",
            "properties": {"q": {"type": "string"}, "limit": {"type": "integer", "default": 5}},
            "required": ["q"],
            "additionalProperties": False,
        },
    ),
    ToolSpec(
        name="total",
        parameters={
            "type": "object",
            "properties": {
                "values": {"type": "array", "items": {"type": "number"}},
                "how": {"enum": ["sum", "mean"]},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            "required": ["values"],
        },
    ),
    ToolSpec(name="ping", parameters={}),
    ToolSpec(name="tree", parameters=TREE),
    ToolSpec(
        name="store",
        parameters={
            "type": "object",
            "properties": {"record": {"type": "object", "additionalProperties": True}},
            "required": ["record"],
        },
    ),
]
SCHEMA = plan_schema(TOOLS, agents=["researcher"], teams=["panel"], template_names=["report"])


def task(id: str, tool: str, **args: Any) -> dict[str, Any]:
    return {"id": id, "tool": tool, "args": args}


FULL = {
    "tasks": [
        task("a", "look", q="population of France"),
        task("b", "look", q='${a.items[0].name | [?n > `3`]} and "more" \\ é 😀', limit=3),
        task("c", "look", q="x", limit="${a.n}"),
        task("d", "total", values=["${a.n}", 2.5, -1e3], how="sum"),
        task("e", "total", values="${b.rows[*].n}", how="${a.how}", note=None),
        {**task("f", "ping"), "depends_on": ["a"], "when": "a.outcome == 'succeeded'"},
        {**task("g", "look", q="${item}"), "map": "${b.list}", "requires": "any"},
        {**task("h", "look", q="x"), "fallback": "none", "timeout": "30s", "description": "why"},
        task("i", "tree", node={"name": "x", "inner": [{"name": "y"}, "${a.node}"]}),
        task("j", "store", record={"any": {"thing": [1, None]}}),
        {"id": "k", "agent": "researcher", "args": {"task": "do ${a}", "context": ["${b}"]}},
        {"id": "l", "team": "panel", "args": {"task": "discuss"}},
        {"id": "m", "plan": "report", "args": {"title": "x", "rows": "${b}"}},
    ],
    "answer": {"total": "${d}", "all": ["${e}", None, True, 1]},
    "stop_when": "${d} > 3",
}
GOOD: dict[str, Any] = {
    "a full plan": FULL,
    "one task": {"tasks": [task("a", "look", q="x")]},
    "an answer in words": {"tasks": [task("a", "ping")], "answer": "it is ${a}"},
    "no task": {"tasks": [], "answer": "42"},
}
BAD: dict[str, Any] = {
    "an unknown tool": {"tasks": [task("a", "nope", q="x")]},
    "an unknown argument": {"tasks": [task("a", "look", q="x", zz=1)]},
    "a missing argument": {"tasks": [task("a", "look", limit=3)]},
    "a wrong type": {"tasks": [task("a", "total", values=["x"])]},
    "an unknown option": {"tasks": [task("a", "total", values=[1], how="median")]},
    "no arguments": {"tasks": [{"id": "a", "tool": "ping"}]},
    "an unknown field": {"tasks": [{**task("a", "ping"), "arguments": {}}]},
    "an unknown agent": {"tasks": [{"id": "k", "agent": "nobody", "args": {"task": "x"}}]},
    "an id with blanks": {"tasks": [task("a b", "ping")]},
    "a bad map": {"tasks": [{**task("a", "ping"), "map": "the list"}]},
    "more beside the tasks": {"tasks": [], "thought": "hm"},
    "no tasks field": {"answer": 1},
    "a list": [task("a", "ping")],
}


def strict_plan() -> dict[str, Any]:
    """A plan as a strict endpoint writes it: what is left out is null."""
    none = {"depends_on": None, "when": None, "map": None, "requires": None, "fallback": None}
    none |= {"timeout": None, "description": None}
    return {
        "tasks": [
            task("a", "look", q="x", limit=None),
            {**task("b", "total", values=["${a.n}"], how=None, note=None), **none},
            {**task("c", "ping"), **none, "depends_on": ["a"]},
            {"id": "k", "agent": "researcher", "args": {"task": "do ${a}", "context": None}},
        ],
        "answer": None,
        "stop_when": None,
    }

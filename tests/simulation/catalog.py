"""What the simulated worker knows: tools, pools, prices, helpers and templates."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from planloom.planner.contract.jobs import PrepareJob
from planloom.planner.language.catalog import Catalog, PoolSpec, ToolSpec
from planloom.planner.language.values import JsonValue


def _schema(*names: str) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": {n: {} for n in names},
        "required": [names[0]],
        "additionalProperties": False,
    }


TOOLS = [
    ToolSpec(name="ask", parameters=_schema("prompt", "context")),
    ToolSpec(name="search", parameters=_schema("query", "more")),
    ToolSpec(name="work", parameters=_schema("key", "more")),
    ToolSpec(name="calc", parameters=_schema("expression"), local=True),
    ToolSpec(name="pay", parameters=_schema("key"), cost_usd=0.01),
    ToolSpec(name="slow", parameters=_schema("key"), timeout_seconds=30.0),
    ToolSpec(name="elsewhere", parameters=_schema("key"), pool="backup"),
    ToolSpec(name="put", parameters=_schema("key", "more"), side_effects=True),
    ToolSpec(name="post", parameters=_schema("key", "more"), side_effects=True, idempotent=False),
]
AGENTS = {"helper": "helps", "critic": "criticises"}
TEAMS = {"panel": "three who discuss"}
TEMPLATES: dict[str, Any] = {
    "pair": {
        "params": {"topic": {"type": "string", "default": "x"}},
        "tasks": [
            {"id": "a", "tool": "work", "args": {"key": "${params.topic}"}},
            {"id": "b", "tool": "post", "args": {"key": "${a.value}"}},
        ],
        "answer": "${b}",
    },
    "deep": {
        "tasks": [
            {"id": "who", "human": {"question": "who?"}},
            {"id": "inner", "plan": "pair", "args": {"topic": "${who}"}},
            {"id": "yes", "tool": "put", "args": {"key": "k"}, "approval": True},
        ],
    },
}
PRICES = {"m1": (100, 400)}


def catalog_for(job: PrepareJob, random: Random) -> Catalog:
    """What the worker answers; the rest of its settings are `random`."""
    templates = _with_named(job.templates)
    tools = _tools_of(list(templates.values()))
    known = bool(templates)
    reserved = random.random() < 0.1
    model = "m1" if random.random() < 0.8 else "m2"  # nobody knows the price of m2
    return Catalog(
        tools=[
            t
            for t in TOOLS
            if (t.name in {*job.tools, *tools, "ask"} or (job.is_goal and not job.tools))
            and (job.allow is None or t.name in job.allow or t.name == "ask")
        ],
        tool_names=[t.name for t in TOOLS],
        pools=[
            PoolSpec(
                name="main",
                task_queue="main",
                fallback="backup",
                is_reserved=reserved,
                capacity_id="planloom-capacity-main" if reserved else "",
                max_calls=random.choice([None, 4]),
            ),
            PoolSpec(name="backup", models=["b*"], task_queue="backup"),
        ],
        models=dict.fromkeys(("planner", "joiner", "judge", "worker"), model),
        prices=PRICES,
        agents=AGENTS if job.is_goal or job.agents or known else {},
        teams=TEAMS if job.is_goal or job.teams or known else {},
        templates=templates,
        template_names=list(TEMPLATES),
        dag_retry=random.choice([None, None, None, ["tool", "timeout"]]),
        tenants={"acme": 2.0},
        tool_seconds={"search": 4.0, "slow": 20.0, "work": 0.01},
    )


def _with_named(names: Sequence[str]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    queue = [n for n in names if n in TEMPLATES]
    for name in queue:  # grows while it is walked: a template may name another
        if name not in found:
            found[name] = TEMPLATES[name]
            tasks = TEMPLATES[name]["tasks"]
            queue += [t["plan"] for t in tasks if isinstance(t.get("plan"), str)]
    return found


def _tools_of(documents: Sequence[Any]) -> list[str]:
    return [t["tool"] for d in documents for t in d["tasks"] if "tool" in t]

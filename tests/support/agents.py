"""An agent machine that has begun, and what a model and its tools answer it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planloom.planner.contract.jobs import (
    AgentCall,
    TurnReply,
)
from planloom.planner.contract.requests import AgentRequest
from planloom.planner.contract.results import AgentResult
from planloom.planner.language.catalog import Catalog, PoolSpec, ToolSpec
from planloom.planner.language.values import Stored, Usage
from planloom.workflows.machines.agent import machine
from planloom.workflows.machines.agent.state import AgentState
from planloom.workflows.machines.shared.machine import Identity
from tests.support.driving import Driver

CATALOG = Catalog(
    tools=[ToolSpec(name="echo"), ToolSpec(name="dear", cost_usd=0.5)],
    tool_names=["echo", "dear", "nap"],
    pools=[PoolSpec(name="default", task_queue="llm")],
    tools_queue="tools",
    models={"worker": "m"},
    prices={"m": (0, 0)},
)
ME = Identity("w", "w/first")


def agent(tools: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "helper", "system": "You help.", "tools": tools, **more}


def drive(catalog: Catalog = CATALOG, /, **request: Any) -> Driver[AgentState]:
    """An agent that has begun and knows its worker."""
    made = driver(**request)
    made.begin()
    if "prepare" in made.flight:
        made.returns("prepare", catalog)
    return made


def driver(me: Identity = ME, **request: Any) -> Driver[AgentState]:
    me = replace(me, lineage=request.pop("lineage", me.lineage))
    parsed = AgentRequest.model_validate({"agent": agent(["echo"]), "task": "do it", **request})
    return Driver(machine, machine.begin(parsed, me, 1_000.0))


def calls(*asked: tuple[str, dict[str, Any]], usage: int = 100, **more: Any) -> TurnReply:
    made = [
        AgentCall(id=f"c{n}", name=name, args=args, fingerprint=f"{name} {args}", **more)
        for n, (name, args) in enumerate(asked)
    ]
    return TurnReply(transcript=Stored(blob="t"), calls=made, usage=used(usage))


def says(text: str, usage: int = 100, **more: Any) -> TurnReply:
    return TurnReply(
        transcript=Stored(blob="t"), text=Stored(value=text), usage=used(usage), **more
    )


def used(tokens: int) -> Usage:
    return Usage(input_tokens=tokens - 1, output_tokens=1, model_calls=1)


def result(made: Driver[AgentState]) -> AgentResult:
    found = made.ended
    assert isinstance(found, AgentResult), found
    return found

"""The three kinds of workflow: machine, state, request, and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from planloom.planner.contract.requests import AgentRequest, Common, RunRequest, TeamRequest
from planloom.planner.contract.results import OpenWait
from planloom.workflows.machines.agent import host
from planloom.workflows.machines.agent import machine as agent_machine
from planloom.workflows.machines.agent.state import AgentState
from planloom.workflows.machines.run import machine as run_machine
from planloom.workflows.machines.run import view as run_view
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.machines.team import machine as team_machine
from planloom.workflows.machines.team.plan import is_running
from planloom.workflows.machines.team.state import TeamState
from tests.simulation.host_oracle import HostOracle
from tests.simulation.oracle import Oracle
from tests.simulation.watcher import Watcher


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of workflow."""

    machine: Any
    adapter: TypeAdapter[Any]
    request: type[Common]
    watcher: Callable[[Any], Watcher]


KINDS = {
    "DagWorkflow": Kind(run_machine, TypeAdapter(RunState), RunRequest, Oracle),
    "AgentWorkflow": Kind(agent_machine, TypeAdapter(AgentState), AgentRequest, HostOracle),
    "TeamWorkflow": Kind(team_machine, TypeAdapter(TeamState), TeamRequest, HostOracle),
}


def kind_of(request: Common) -> str:
    """The workflow type that takes a request."""
    return next(name for name, kind in KINDS.items() if type(request) is kind.request)


def run_in(state: Any) -> RunState | None:
    """The run that a state is, or has: the plan of a team on a graph."""
    if isinstance(state, RunState):
        return state
    if isinstance(state, TeamState) and is_running(state):
        return state.plan
    return None


def waits_of(state: Any, now: float) -> list[OpenWait]:
    """What a workflow shows that it waits for."""
    run = run_in(state)
    return run_view.open_waits(run, now) if run is not None else host.open_waits(state, now)


def reserved_for(state: Any, key: str) -> Amount:
    """What is set aside for a command in flight."""
    run = run_in(state)
    if run is not None and key in run.pending:
        pending = run.pending[key]
        key = pending.subject if pending.rule.value == "body" else key
    reserved: Amount = state.account.ledger.reserved[key]
    return reserved


def pending_of(state: Any) -> list[str]:
    """Keys of what a workflow waits for."""
    run = run_in(state)
    own = [] if run is state else list(state.pending)
    return [*own, *(run.pending if run is not None else ())]

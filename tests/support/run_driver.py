"""Drives a run's machine by hand: events in, commands out, and everything checked in between."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.controls import CONTROLS
from planloom.planner.contract.jobs import PlannedBatch, PlannedTask, PlanReply, TaskOutput
from planloom.planner.contract.requests import Lineage, RunRequest
from planloom.planner.language.catalog import Catalog, PoolSpec, ToolSpec
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Outcome, Stored, Usage
from planloom.workflows.machines.run import machine
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared.commands import Answer, Command, Refuse
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    ControlTaken,
    Event,
    Failure,
    PlanWritten,
    Returned,
    TimeReached,
)
from planloom.workflows.machines.shared.machine import Identity
from tests.simulation.invariants import check_invariants

START = 1_000.0
_ARGS: dict[str, Any] = {
    "type": "object",
    "properties": {"key": {}, "more": {}},
    "required": ["key"],
    "additionalProperties": False,
}
CATALOG = Catalog(
    tools=[
        ToolSpec(name="work", parameters=_ARGS),
        ToolSpec(name="pay", parameters=_ARGS, cost_usd=0.01),
        ToolSpec(name="post", parameters=_ARGS, side_effects=True, idempotent=False),
    ],
    tool_names=["work", "pay", "post"],
    pools=[PoolSpec(name="main")],
    models={"worker": "m", "planner": "m", "joiner": "m"},
    prices={"m": (1, 4)},
    agents={"helper": "helps"},
    teams={"panel": "discusses"},
)


def work(id: str, key: Any = None, **fields: Any) -> dict[str, Any]:
    """A task of the tool `work`; without `key` no other is the same call."""
    given = f"of {id}" if key is None else key
    return {"id": id, "tool": "work", "args": {"key": given}, **fields}


def plan(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A plan of these tasks."""
    return {"tasks": list(tasks), **fields}


class Drive:
    """One run, driven by hand. `commands` are those of the last step."""

    def __init__(self, catalog: Catalog = CATALOG, **request: Any) -> None:
        identity = Identity("run", "run/first", request.pop("lineage", Lineage()))
        made = RunRequest.model_validate(request)
        self.now = START
        self.run: RunState = machine.begin(made, identity, self.now)
        self.commands: list[Command] = []
        self.catalog = catalog
        self.token = 0

    # -- events -----------------------------------------------------------------------------

    def send(self, event: Event, after: float = 0.0) -> list[Command]:
        """One event, `after` seconds later than the last; the state must fit together after it."""
        self.now += after
        self.commands = machine.step(self.run, event, self.now)
        check_invariants(self.run)
        return self.commands

    def begin(self, after: float = 0.0) -> list[Command]:
        """The run starts, and the worker says `after` seconds later what it knows."""
        self.send(Begun())
        return self.send(Returned("prepared", self.catalog), after)

    def ends(self, key: str, value: Any = None, **fields: Any) -> list[Command]:
        """The body of a unit ends with an output; `fields` are more of its `TaskOutput`."""
        output = TaskOutput(output=Stored(value=value), **fields)
        return self.send(Returned(f"{key}#body", output))

    def returns(self, key: str, value: Any) -> list[Command]:
        """A command ends with any result."""
        return self.send(Returned(key, value))

    def breaks(self, key: str, error_class: str = "tool", **fields: Any) -> list[Command]:
        """A command fails."""
        return self.send(Broke(key, Failure("it failed", error_class, **fields)))

    def cancelled(self, key: str, usage: Usage | None = None) -> list[Command]:
        """A command that was cancelled has ended."""
        return self.send(Broke(key, Failure("cancelled", "cancelled", usage=usage or Usage())))

    def fires(self, key: str, after: float = 0.0) -> list[Command]:
        """A timer fires."""
        return self.send(TimeReached(key), after)

    def control(self, name: str, **payload: Any) -> Answer | Refuse | None:
        """A person sends an update; its answer, if it comes at once."""
        self.token += 1
        token = self.token
        self.send(ControlTaken(name, CONTROLS[name].model_validate(payload), token))
        answers = (c for c in self.commands if isinstance(c, Answer | Refuse))
        return next((c for c in answers if c.token == token), None)

    def signal(self, name: str, **payload: Any) -> list[Command]:
        """A person sends a signal."""
        return self.send(ControlTaken(name, CONTROLS[name].model_validate(payload)))

    # -- the planner ------------------------------------------------------------------------

    def writes(self, *tasks: dict[str, Any], call: int = 1, seq: int = 0) -> list[Command]:
        """The planner has finished writing some tasks."""
        return self.send(
            PlanWritten(PlannedBatch(call=call, attempt=1, seq=seq, tasks=planned(*tasks)))
        )

    def wrote(self, *tasks: dict[str, Any], call: int = 1, **fields: Any) -> list[Command]:
        """A planner call has ended."""
        reply = PlanReply(tasks=planned(*tasks), **fields)
        return self.send(Returned(f"planner.{call}", reply))

    # -- what is to be seen -----------------------------------------------------------------

    def sent(self, kind: type[Any]) -> list[str]:
        """Keys of the commands of one kind in the last step."""
        return [c.key for c in self.commands if isinstance(c, kind)]

    def command(self, kind: type[Any]) -> Any:
        """The one command of a kind in the last step."""
        found = [c for c in self.commands if isinstance(c, kind)]
        assert len(found) == 1, found
        return found[0]

    def command_of(self, key: str) -> Any:
        """The command of a key in the last step."""
        return next(c for c in self.commands if getattr(c, "key", None) == key)

    def outcome(self, task: str) -> Outcome | None:
        return self.run.frontier.outcome_of(task)  # type: ignore[arg-type]

    @property
    def result(self) -> Any:
        assert self.run.result is not None, f"it goes on: {self.run.stage}"
        return self.run.result


def planned(*tasks: dict[str, Any]) -> list[PlannedTask]:
    """Tasks as a planner hands them over."""
    return [PlannedTask(task=Task.model_validate(t), text=f"{t['id']} = …") for t in tasks]

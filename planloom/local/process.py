"""The shell of one machine on asyncio: it feeds events, carries out commands, and decides nothing.

It is the counterpart of `workflows/shell/shell.py`, without history, replay or continue-as-new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from planloom.local.effects import Effects
from planloom.local.parts import LocalParts
from planloom.planner.contract.requests import Lineage
from planloom.workflows.machines.agent import machine as agent_machine
from planloom.workflows.machines.agent import view as agent_view
from planloom.workflows.machines.agent.messages import AGENT_CONTROLS, AGENT_NOTICES
from planloom.workflows.machines.run import machine as run_machine
from planloom.workflows.machines.run import view as run_view
from planloom.workflows.machines.run.messages import RUN_CONTROLS, RUN_NOTICES, RUN_QUESTIONS
from planloom.workflows.machines.shared.commands import (
    Answer,
    Cancel,
    Command,
    DropTimer,
    Refuse,
    SetTimer,
    StartChild,
    Tell,
)
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    CancelRequested,
    ControlTaken,
    Event,
    Failure,
    Returned,
    TimeReached,
)
from planloom.workflows.machines.shared.machine import Failed, Identity, Machine
from planloom.workflows.machines.shared.messages import (
    Control,
    Notice,
    Question,
    read_payload,
)
from planloom.workflows.machines.shared.requests import read_agent, read_run, read_team
from planloom.workflows.machines.team import machine as team_machine
from planloom.workflows.machines.team import view as team_view
from planloom.workflows.machines.team.messages import TEAM_CONTROLS
from planloom.workflows.shell.child_inputs import inputs_for
from planloom.workflows.shell.ends import CommandFailed, failure_of


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of workflow: its machine, how its request is read, and what is sent to it."""

    read: Callable[[Any], Any]
    begin: Callable[[Any, Identity, float], Any]
    machine: Machine[Any]
    progress: Callable[[Any, float], Any]
    controls: Sequence[Control]
    notices: Sequence[Notice] = ()
    questions: Sequence[Question] = ()


KINDS = {
    "DagWorkflow": Kind(
        read_run,
        run_machine.begin,
        run_machine,
        run_view.progress_of,
        RUN_CONTROLS,
        RUN_NOTICES,
        RUN_QUESTIONS,
    ),
    "AgentWorkflow": Kind(
        read_agent,
        agent_machine.begin,
        agent_machine,
        agent_view.progress,
        AGENT_CONTROLS,
        AGENT_NOTICES,
    ),
    "TeamWorkflow": Kind(
        read_team,
        team_machine.begin,
        team_machine,
        team_view.progress,
        TEAM_CONTROLS,
        RUN_NOTICES,
        RUN_QUESTIONS,
    ),
}


class World:
    """All processes of one local run, by workflow id; signals between them go through it."""

    def __init__(self, parts: LocalParts) -> None:
        self.parts = parts
        self.processes: dict[str, Process] = {}
        self.changed = asyncio.Event()
        """Set after every event of any process."""
        self.starting: dict[str, asyncio.Future[None]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing will happen unless somebody outside does something."""
        return not any(p.is_busy for p in self.processes.values())

    def begin(self, kind: str, request: Any, id: str, lineage: Lineage | None = None) -> Process:
        """A process that has begun."""
        identity = Identity(id, f"{id}/local", lineage or Lineage())
        state = KINDS[kind].begin(request, identity, time.time())
        process = self.processes[id] = Process(self, kind, id, state)
        process.apply(Begun())
        return process

    async def tell(self, tell: Tell) -> None:
        """A signal to another process. One that has ended, or is gone, needs it no more."""
        if (started := self.starting.get(tell.run)) is not None:
            await started
        if (process := self.processes.get(tell.run)) is not None:
            process.take(tell.signal, tell.payload)

    async def close(self) -> None:
        """End everything that is still at work."""
        jobs = [job for process in self.processes.values() for job in process.drop_all()]
        await asyncio.gather(*jobs, return_exceptions=True)
        await self.parts.close()

    # What the planner's activity needs of Temporal's client.

    def get_workflow_handle(self, workflow_id: str, *, run_id: str | None = None) -> Any:
        return _Handle(self.processes[workflow_id])


@dataclass(frozen=True, slots=True)
class _Handle:
    process: Process

    async def signal(self, name: str, payload: Any = None) -> None:
        self.process.take(name, payload)

    async def execute_update(self, name: str, payload: Any, **_: Any) -> Any:
        try:
            return await self.process.ask(name, payload)
        except ApplicationError as error:
            raise WorkflowUpdateFailedError(error) from None


@dataclass(slots=True)
class Process:
    """One workflow: the state of its machine, and what it has in flight."""

    world: World
    kind: str
    id: str
    state: Any
    jobs: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    replies: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    children: dict[str, Process] = field(default_factory=dict)
    """By the key of the command that started them."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    bug: BaseException | None = None
    tokens: int = 0

    @property
    def machine(self) -> Machine[Any]:
        return KINDS[self.kind].machine

    @property
    def is_busy(self) -> bool:
        waits = set(self.children)  # a child is at work, or waits, by itself
        return bool(self.timers) or any(key not in waits for key in self.jobs)

    def progress(self) -> Any:
        return KINDS[self.kind].progress(self.state, time.time())

    # -- events -----------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """The only place where the state changes."""
        if self.bug is not None:
            return
        try:
            commands = self.machine.step(self.state, event, time.time())
        except Exception as bug:
            self.bug = bug
            self.over.set()
            self.world.changed.set()
            return
        for command in commands:
            self._carry_out(command)
        if self.machine.ended(self.state) is not None and not self.over.is_set():
            self.drop_all()
            self.over.set()
        self.world.changed.set()

    def take(self, name: str, payload: Any) -> None:
        """A signal. What cannot be read was not written by us."""
        kind = KINDS[self.kind]
        if (notice := next((n for n in kind.notices if n.name == name), None)) is not None:
            self.apply(notice.event(_read(notice.model, payload)))
        elif (control := next((c for c in kind.controls if c.name == name), None)) is not None:
            self.apply(ControlTaken(name, _read(control.model, payload)))

    async def ask(self, name: str, payload: Any) -> Any:
        """An update: checked, applied and answered.

        Raises:
            ApplicationError: the refusal, with the contract's type.
        """
        kind = KINDS[self.kind]
        event: Event
        self.tokens += 1
        token = self.tokens
        question = next((q for q in kind.questions if q.name == name), None)
        if question is not None:
            event = question.event(_read(question.model, payload), token)
        else:
            control = next((c for c in kind.controls if c.name == name), None)
            if control is None:
                listed = ", ".join(c.name for c in kind.controls)
                raise ApplicationError(f'there is no "{name}" here. There are: {listed}')
            found = _read(control.model, payload)
            refusal = self.machine.check(self.state, name, found, time.time())
            if refusal is not None:
                raise ApplicationError(refusal.message, type=refusal.type)
            event = ControlTaken(name, found, token)
        reply = self.replies[token] = asyncio.get_running_loop().create_future()
        self.apply(event)
        return await reply

    # -- commands ---------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        loop = asyncio.get_running_loop()
        match command:
            case Answer():
                self._reply(command.token).set_result(command.reply)
            case Refuse():
                self._reply(command.token).set_exception(
                    ApplicationError(command.message, type=command.type)
                )
            case Tell():
                self._start(f"tell:{id(command)}", self.world.tell(command))
            case SetTimer():
                self._drop_timer(command.key)
                left = max(0.001, command.at - time.time())
                self.timers[command.key] = loop.call_later(left, self._fire, command.key)
            case DropTimer():
                self._drop_timer(command.key)
            case Cancel():
                if (child := self.children.get(command.key)) is not None:
                    loop.call_soon(child.apply, CancelRequested())
                elif (job := self.jobs.get(command.key)) is not None:
                    job.cancel()
            case _:
                self._start(command.key, self._end(command))

    def _reply(self, token: int) -> asyncio.Future[Any]:
        return self.replies.pop(token)

    def _start(self, key: str, work: Any) -> None:
        job = self.jobs[key] = asyncio.create_task(work)
        job.add_done_callback(lambda done: self._done(key, done))

    def _done(self, key: str, job: asyncio.Task[None]) -> None:
        if self.jobs.get(key) is job:
            del self.jobs[key]
            if job.cancelled() and not self.over.is_set():  # before its first step
                self.apply(Broke(key, Failure("cancelled", "cancelled")))
        if not job.cancelled() and (bug := job.exception()) is not None and self.bug is None:
            self.bug = bug
            self.over.set()
            self.world.changed.set()

    def _fire(self, key: str) -> None:
        self.timers.pop(key, None)
        self.apply(TimeReached(key))

    def _drop_timer(self, key: str) -> None:
        if (timer := self.timers.pop(key, None)) is not None:
            timer.cancel()

    def drop_all(self) -> list[asyncio.Task[None]]:
        """Stop timers and jobs: nobody hears of them any more."""
        for key in list(self.timers):
            self._drop_timer(key)
        jobs = [j for j in self.jobs.values() if j is not asyncio.current_task()]
        self.jobs.clear()
        for job in jobs:
            job.cancel()
        return jobs

    async def _end(self, command: Any) -> None:
        """Carry a command out to its end, which is one event."""
        effects = Effects(self.world.parts, self.world, self.id)
        event: Event
        try:
            if isinstance(command, StartChild):
                event = Returned(command.key, await self._child(command, effects))
            else:
                event = Returned(command.key, await effects.end_of(command))
        except BaseException as error:
            event = Broke(command.key, failure_of(error))
        if self.jobs.get(command.key) is asyncio.current_task():
            del self.jobs[command.key]
            self.apply(event)

    async def _child(self, command: StartChild, effects: Effects) -> Any:
        """A child run's result.

        Raises:
            CommandFailed: its arguments cannot be made, or it failed.
        """
        started = self.world.starting[command.id] = asyncio.get_running_loop().create_future()
        try:
            request, lineage = await inputs_for(command, effects.resolved)
            child = self.world.begin(command.kind, request, command.id, lineage)
            self.children[command.key] = child
        finally:
            self.world.starting.pop(command.id, None)
            started.set_result(None)
        try:
            await child.over.wait()
        finally:
            self.children.pop(command.key, None)
        if child.bug is not None:
            raise child.bug
        ended = child.machine.ended(child.state)
        if isinstance(ended, Failed):
            lines = "; ".join(p.line() for p in ended.problems[:10])
            raise CommandFailed(Failure(lines, ended.type))
        return ended


def _read(model: Any, payload: Any) -> Any:
    if isinstance(payload, model):
        return payload
    found = read_payload(model, [] if payload is None else [payload])
    if isinstance(found, list):
        raise ApplicationError("; ".join(p.line() for p in found), type="InvalidRequest")
    return found

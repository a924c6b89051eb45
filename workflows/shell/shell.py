"""The one shell of all machines: it feeds events, carries out commands, and decides nothing.

Which event wins when several are ready in one workflow task: Temporal applies signals and updates
before the ends of activities, and each in the order of history; every one of them is one `step`.
A cancellation of the workflow comes after all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from planloom.planner.contract.names import INVALID_REQUEST, STALE
from planloom.planner.language.values import Stored
from planloom.workflows.machines.shared.commands import (
    Answer,
    Cancel,
    Command,
    DropTimer,
    Refuse,
    RunTool,
    SetTimer,
    StartChild,
    Tell,
)
from planloom.workflows.machines.shared.events import (
    Begun,
    Broke,
    CancelRequested,
    Continued,
    Event,
    Failure,
    HistoryLong,
    Returned,
    SignalIgnored,
    TimeReached,
)
from planloom.workflows.machines.shared.machine import Failed, Machine, State
from planloom.workflows.shell import activities
from planloom.workflows.shell.carried import carry, packed_state, read_state
from planloom.workflows.shell.children import (
    ChildEnded,
    Children,
    cancel_adopted,
    until_alone,
)
from planloom.workflows.shell.effects import EFFECTS, Literals, long_texts_stored
from planloom.workflows.shell.ends import error_of, failure_of, is_cancelled
from planloom.workflows.shell.family import ENDED, checked, of_a_child, secret_for
from planloom.workflows.shell.outgoing import Outgoing, size_of
from planloom.workflows.shell.publish import Publisher, live_details
from planloom.workflows.shell.runner import EVENTS_FAR_TOO_MANY
from planloom.workflows.shell.signals import Signals

S = TypeVar("S", bound=State)
R = TypeVar("R")

CROWD = 16
"""So many activities that are let go at the end may still report, each of them while the last
workflow task is under way: the server then refuses to close the workflow, and its whole history is
replayed for the next try. A run of 3,000 items took 12 s to be cancelled."""
CALM_SECONDS = 0.25
PAUSE_SECONDS = 0.001
CALM_TRIES = 20
EVENTS_OF_A_SLEEP = 6
PARENT = "shell:parent"


def _is_start_of(command: Command, id: str) -> bool:
    return isinstance(command, StartChild) and command.id == id


def _attempts_of(command: Any) -> int:
    """How many attempts a command has had that failed for good."""
    if isinstance(command, RunTool):
        return command.job.attempts_before + command.retry.max_attempts
    return 1


def live_state(shell: Shell[S] | None) -> S:
    """The state of a workflow whose request holds.

    Raises:
        ApplicationError: `InvalidRequest`: it was refused; `Stale`: its state is not read yet.
    """
    if shell is None:
        raise ApplicationError("the request was refused", type=INVALID_REQUEST, non_retryable=True)
    if not shell.is_read:
        message = "the run goes on with a large state, which is being read: ask again in a second"
        raise ApplicationError(message, type=STALE, non_retryable=True)
    return shell.state


def _length() -> int:
    return workflow.info().get_current_history_length()


class Shell(Generic[S]):
    """Drives one workflow. Made in `@workflow.init`, as a signal may come before `run` starts."""

    def __init__(
        self,
        machine: Machine[S],
        adapter: TypeAdapter[S],
        state: S | None,
        *,
        search_attributes: Callable[[S], list[str]],
        is_continued: bool = False,
        parts: Sequence[Stored] = (),
        reports: bool = False,
    ) -> None:
        self.machine = machine
        if state is not None:
            self.state: S = state
        self.is_read = state is not None
        """The state is there. Until then it is in `parts`, and what comes waits."""
        self._parts = parts
        self._local = activities.LocalWork()
        self.take_context()
        self.reports = reports
        """The parent has continued as new: the result goes to it by signal."""
        self._adapter = adapter
        self._known = search_attributes
        self._is_continued = is_continued
        self._has_begun = False
        self._early: list[tuple[Event, str]] = []
        self._ended_early: list[tuple[ChildEnded, str]] = []
        self._applied = 0
        """How many events have changed the state."""
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._tells: list[asyncio.Task[None]] = []
        self._signals = Signals()
        self._replies: dict[int, Answer | Refuse] = {}
        self._token = 0
        self._children = Children()
        self._let_go = (0, 0)
        """A workflow task, by its history length, and how many activities it cancelled."""
        self._is_alone = False
        """Its parent is gone."""
        self._is_cancelled = False
        self._is_draining = False
        self._literals = Literals()
        self._outgoing = Outgoing()
        self._backlog: list[Command] = []
        self._publisher = Publisher()
        workflow.set_current_details(live_details(self._details))
        self._bug: BaseException | None = None

    def take_context(self) -> None:
        """What is started from now on runs in the present context."""
        self.context = contextvars.copy_context()
        self.context.run(activities.LOCAL_WORK.set, self._local)

    # -- events -----------------------------------------------------------------------------

    def apply(self, event: Event, secret: str = "") -> None:
        """The only place where the state changes. Carrying a command out never applies an event.

        `secret` is what the sender of a signal named: see `family`.
        """
        if not self._has_begun:
            # A signal or update before `run`: it waits for `Begun`.
            self._early.append((event, secret))
            return
        self._applied += 1
        event = checked(self.state, event, secret)
        try:
            commands = self.machine.step(self.state, event, workflow.time())
        except Exception as bug:
            self._bug = self._bug or bug
            raise
        for command in commands:
            self._carry_out(command)
        self._publish()

    def begin(self) -> None:
        """The first event; then those that came before it."""
        self._has_begun = True
        early, self._early = self._early, []
        self.apply(Continued() if self._is_continued else Begun())
        for event, secret in early:
            self.apply(event, secret)
        for ended, secret in self._ended_early:
            self.child_ended(ended, secret)
        if self.state.identity.lineage.parent is not None:
            self._start(PARENT, self._watch_parent())

    def next_token(self) -> int:
        """The token of an update that is to be answered."""
        self._token += 1
        return self._token

    async def answer(self, token: int) -> Any:
        """The reply to an update.

        Raises:
            ApplicationError: the refusal, with the contract's type.
        """
        await workflow.wait_condition(lambda: token in self._replies or self._bug is not None)
        if self._bug is not None:
            raise self._bug
        reply = self._replies.pop(token)
        if isinstance(reply, Answer):
            return reply.reply
        details = [reply.details] if reply.details else []
        raise ApplicationError(reply.message, *details, type=reply.type, non_retryable=True)

    # -- commands ---------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        match command:
            case Answer() | Refuse():
                self._replies[command.token] = command
            case Tell() if any(_is_start_of(c, command.run) for c in self._backlog):
                self._backlog.append(command)  # behind it: nobody is there yet to hear it
            case Tell():
                job = self._task(self._tell(command))
                self._tells.append(job)
                job.add_done_callback(self._tells.remove)
            case SetTimer():
                self._drop(f"timer:{command.key}")
                self._start(f"timer:{command.key}", self._sleep(command))
            case DropTimer():
                self._drop(f"timer:{command.key}")
            case Cancel():
                self._cancel(command.key)
            case _ if not self._outgoing.has_room(workflow.info().get_current_history_length()):
                self._backlog.append(command)
                self._start("shell:backlog", self._send_later())
            case _:
                self._outgoing.add(size_of(command))
                self._start(command.key, self._end(command))

    def _start(self, key: str, work: Any) -> None:
        if key in self._jobs:
            work.close()
            return
        job = self._task(work)
        self._jobs[key] = job
        job.add_done_callback(lambda done: self._done(key, done))

    def _task(self, work: Any) -> asyncio.Task[None]:
        # A task may be started from a signal's handler: its spans still belong to the run.
        return asyncio.create_task(work, context=self.context)

    def _done(self, key: str, job: asyncio.Task[None]) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]
            if job.cancelled() and not key.startswith(("timer:", "shell:")):
                # Cancelled before its first step, so that nothing in it could see it.
                self.apply(Broke(key, failure_of(asyncio.CancelledError())))
        if not job.cancelled() and (bug := job.exception()):
            # `run` waits for this too: an exception nobody awaits is a run that hangs forever.
            self._bug = self._bug or bug

    def _drop(self, key: str) -> None:
        if (job := self._jobs.pop(key, None)) is not None:
            job.cancel()

    def _cancel(self, key: str) -> None:
        if key in self._jobs:
            self._jobs[key].cancel()
            self._let_go = (_length(), self._let_go_now() + 1)
        elif (id := self._children_now().get(key)) is not None:
            job = self._task(cancel_adopted(id))
            self._tells.append(job)
            job.add_done_callback(self._tells.remove)
        else:
            waiting = next((c for c in self._backlog if getattr(c, "key", "") == key), None)
            if waiting is not None:
                self._backlog.remove(waiting)
                self._start(key, self._end(waiting))
                self._jobs[key].cancel()

    async def _end(self, command: Any) -> None:
        """Carry a command out to its end, which is one event."""
        key = command.key
        event: Event
        try:
            if isinstance(command, StartChild):
                event = Returned(key, await self._children.run(command))
            else:
                event = Returned(key, await EFFECTS[type(command)](command, self._literals))
        except BaseException as error:
            event = Broke(key, failure_of(error, _attempts_of(command)))
        if self._jobs.get(key) is asyncio.current_task():  # else its end is known already
            del self._jobs[key]
            self.apply(event)

    async def _sleep(self, timer: SetTimer) -> None:
        left = max(0.001, timer.at - workflow.time())
        await workflow.sleep(left, summary=timer.summary or None)
        self._jobs.pop(f"timer:{timer.key}", None)
        self.apply(TimeReached(timer.key))

    async def _send_later(self) -> None:
        await workflow.sleep(0.001, summary="the rest goes in another workflow task")
        self._jobs.pop("shell:backlog", None)
        backlog, self._backlog = self._backlog, []
        for command in backlog:
            self._carry_out(command)

    async def _tell(self, tell: Tell) -> None:
        """A signal to another run. One that has ended, or is gone, needs it no more."""
        await self._children.until_started(tell.run)
        secret = secret_for(self.state, tell.signal)
        await self._signals.send(tell.run, tell.signal, tell.payload, secret)

    # -- children that report ---------------------------------------------------------------

    def child_ended(self, ended: ChildEnded, secret: str) -> None:
        """A child that was asked to report has ended."""
        if not self._has_begun:
            self._ended_early.append((ended, secret))
            return
        if not of_a_child(self.state, secret):
            self.apply(SignalIgnored(f"{ENDED}: the sender is no child of this run"))
            return
        key = next((k for k, id in self._children_now().items() if id == ended.child), None)
        if key is None:
            return
        self._jobs.pop(key, None)  # it is awaited here as well: the first word of its end counts
        value = ended.value()
        self.apply(Broke(key, value) if isinstance(value, Failure) else Returned(key, value))

    async def _watch_parent(self) -> None:
        """Without its parent a child is cancelled: a run that was terminated tells nobody."""
        await until_alone(self.state.identity.lineage)
        self._is_alone = True

    def _children_now(self) -> dict[str, str]:
        return self.machine.children(self.state)

    # -- the whole --------------------------------------------------------------------------

    async def run(self) -> Any:
        """Until the machine has ended.

        Raises:
            ApplicationError: the caller's mistake.
            ContinueAsNewError: another run goes on with the state.
        """
        if not self.is_read:
            await self._to_its_end(self._read())
        self.begin()
        while (ended := self.machine.ended(self.state)) is None:
            # The workflow's cancellation is an event: it is looked for below.
            with contextlib.suppress(asyncio.CancelledError):
                await workflow.wait_condition(self._is_due)
            if self._bug is not None:
                raise self._bug
            if self._is_to_be_cancelled():
                self._is_cancelled = True
                self.apply(CancelRequested())
            elif self._is_long() and not self._is_draining:
                self._is_draining = True
                self.apply(HistoryLong())
            elif self._may_continue():
                await self._continue()
        await self._leave(ended)
        if isinstance(ended, Failed):
            raise error_of(ended)
        return ended

    def _is_due(self) -> bool:
        return (
            self._bug is not None
            or self.machine.ended(self.state) is not None
            or self._is_to_be_cancelled()
            or (self._is_long() and not self._is_draining)
            or self._may_continue()
        )

    def _is_to_be_cancelled(self) -> bool:
        return (self._is_alone or is_cancelled()) and not self._is_cancelled

    def _is_long(self) -> bool:
        # While a local activity is at work, a replay may see another length: see `runner`.
        is_sure = not self._local.at_work or _length() > EVENTS_FAR_TOO_MANY
        return is_sure and workflow.info().is_continue_as_new_suggested()

    def _may_continue(self) -> bool:
        return (
            self._is_draining
            and not self._tells
            and not self._backlog
            and self.machine.may_continue(self.state)
            and workflow.all_handlers_finished()
        )

    async def _continue(self) -> None:
        """Go on as another run, unless something came while the children were told."""
        if self._children.has_unasked():
            await self._children.hand_over(self._signals)
            return
        # One more workflow task: what has come meanwhile is applied, and not lost with this run.
        pause = workflow.sleep(PAUSE_SECONDS, summary="before it continues as new")
        await self._to_its_end(pause)
        if not self._may_go():
            return
        texts = packed_state(self._adapter, self.state)
        parts: Sequence[str] | Sequence[Stored] = texts
        if len(texts) > 1:
            applied = self._applied
            parts = await self._to_its_end(long_texts_stored(texts))
            if applied != self._applied or not self._may_go():
                return  # what came meanwhile is not in them
        workflow.continue_as_new(carry(parts, reports=self.reports))

    def _may_go(self) -> bool:
        """Whether it may still continue as new, and every child at work reports by signal."""
        has_unasked = self._children.has_unasked()
        return self._may_continue() and not has_unasked and not self._is_to_be_cancelled()

    async def _read(self) -> None:
        """Read the state from its parts."""
        texts = [await activities.long_text(part) for part in self._parts]
        state = read_state(self._adapter, texts)
        if isinstance(state, Failed):
            raise error_of(state)
        self.state, self.is_read = state, True

    async def _to_its_end(self, work: Coroutine[Any, Any, R]) -> R:
        """A workflow that is cancelled meanwhile is cancelled after it: `run` looks for that."""
        job = asyncio.create_task(work, context=self.context)
        while not job.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(job)
        return job.result()

    async def _leave(self, ended: Any) -> None:
        """The last words: to the server, to the parent, and to whoever waits for an answer."""
        let_go = self._let_go_now() + sum(
            not k.startswith(("timer:", "shell:")) for k in self._jobs
        )
        for key in [key for key in self._jobs if key != PARENT]:  # its timer costs no event more
            self._drop(key)
        self._publish()
        if let_go >= CROWD:
            await self._calm()
        has_reported = False
        while True:
            if self.reports and not has_reported:
                has_reported = True
                await self._report(ended)
            await workflow.wait_condition(
                lambda: not self._tells and workflow.all_handlers_finished()
            )
            if has_reported or not self.reports:
                return  # else it was asked to report while it told its last words

    def _let_go_now(self) -> int:
        length, count = self._let_go
        return count if length == _length() else 0

    async def _calm(self) -> None:
        """Until those that were let go have reported: their cancels are on their way first."""
        for _ in range(CALM_TRIES):
            before = _length()
            await workflow.sleep(CALM_SECONDS, summary="the last activities report")
            if _length() - before <= EVENTS_OF_A_SLEEP:
                return

    async def _report(self, ended: Any) -> None:
        info = workflow.info()
        if info.parent is None:
            return
        report = {"child": info.workflow_id, "kind": info.workflow_type}
        if isinstance(ended, Failed):
            lines = "; ".join(p.line() for p in ended.problems[:10])
            report |= {"message": lines, "error_class": ended.type}
        else:
            report |= {"result": ended.model_dump(mode="json", exclude_unset=True)}
        secret = secret_for(self.state, ENDED)
        await self._signals.send(info.parent.workflow_id, ENDED, report, secret)

    def _details(self) -> str:
        return self.machine.details(self.state, workflow.time()) if self.is_read else ""

    def _publish(self) -> None:
        self._publisher.publish(self.machine.published(self.state), self._known(self.state))

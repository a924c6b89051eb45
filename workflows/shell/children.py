"""Child runs: started with resolved arguments, and adopted when their parent continues as new.

While a workflow run lasts, a child's result is awaited. Before it continues as new, each child at
work is asked to report its result by the signal `child_ended`, which reaches whichever run of the
parent is current. So nothing is lost, and a run that never continues pays nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from pydantic import BaseModel
from temporalio import workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ChildWorkflowHandle, ParentClosePolicy

from planloom.planner.contract.requests import Lineage
from planloom.planner.contract.results import RESULT_MODELS
from planloom.planner.language.values import Bindings, JsonValue, Stored
from planloom.workflows.machines.shared.commands import StartChild
from planloom.workflows.machines.shared.events import Failure
from planloom.workflows.machines.shared.metering import Metering
from planloom.workflows.shell.activities import look_at_run
from planloom.workflows.shell.child_inputs import inputs_for
from planloom.workflows.shell.effects import priority_of, resolved
from planloom.workflows.shell.signals import Signals

REPORT = "report_to_parent"
"""The signal that asks a child to report its result by signal."""
PARENT_LOOK_SECONDS = 30.0
PARENT_LOOK_MAX_SECONDS = 600.0
"""The longest between two looks of a child at its parent; the first comes soon, as money counts."""


class ChildEnded(BaseModel):
    """Signal `child_ended`: how a child that was asked to report has ended."""

    child: str
    kind: str
    result: dict[str, Any] | None = None
    message: str = ""
    """Why there is no result."""
    error_class: str = "unknown"

    def value(self) -> BaseModel | Failure:
        """The child's result, or the failure that it means."""
        if self.result is None:
            return Failure(self.message or "the child run failed", self.error_class)
        try:
            return RESULT_MODELS[self.kind].model_validate(self.result)
        except (KeyError, ValueError):
            message = f"the child run sent no result of a {self.kind[:40]}"
            return Failure(message, "unknown")


class Children:
    """The children of this workflow run, by workflow id."""

    def __init__(self) -> None:
        self._started: dict[str, asyncio.Future[ChildWorkflowHandle[Any, Any]]] = {}
        self._asked: list[str] = []
        """Those that were asked to report by signal."""
        self._metering = Metering()

    async def run(self, command: StartChild) -> Any:
        """Start a child and wait for its result.

        Raises:
            CommandFailed: its arguments cannot be made.
            ChildWorkflowError: it failed.
        """
        # From here on it is at work, also while its arguments are made: a continue-as-new at this
        # moment would go on with a child that nobody had started.
        started: asyncio.Future[ChildWorkflowHandle[Any, Any]] = asyncio.Future()
        self._started[command.id] = started
        try:
            handle = await workflow.start_child_workflow(
                command.kind,
                args=await inputs_for(command, self._resolved),
                id=command.id,
                result_type=RESULT_MODELS[command.kind],
                # It goes on when this run continues as new; a cancel is passed on by command.
                parent_close_policy=ParentClosePolicy.ABANDON,
                static_summary=command.summary,
                priority=priority_of(command.urgency),
            )
            started.set_result(handle)
            return await handle
        finally:
            self._started.pop(command.id, None)
            if not started.done():
                started.cancel()

    async def _resolved(self, value: JsonValue, bound: Bindings, limit: int | None) -> Stored:
        return await resolved(value, bound, self._metering.meter_at(workflow.time()), limit)

    async def until_started(self, id: str) -> None:
        """Wait until a signal can reach a child that is being started."""
        if (started := self._started.get(id)) is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(started)

    def has_unasked(self) -> bool:
        """Whether a child at work has not been asked to report by signal."""
        return any(id not in self._asked for id in self._started)

    async def hand_over(self, signals: Signals) -> None:
        """Ask every child at work to report by signal. One that has just ended is awaited still."""
        for id in [id for id in self._started if id not in self._asked]:
            await self.until_started(id)
            if id in self._started and await signals.send(id, REPORT):
                self._asked.append(id)


async def until_alone(lineage: Lineage) -> None:
    """Wait until the parent has ended or is gone. It tells its children of a cancellation only.

    The server could end them with it, but it would do so too when the parent continues as new.
    """
    assert lineage.parent is not None
    wait = PARENT_LOOK_SECONDS
    while True:
        await workflow.sleep(wait, summary="look at the parent run")
        with contextlib.suppress(FailureError):  # the server could not be asked: again later
            if await look_at_run(lineage.parent, lineage.parent_key) != "RUNNING":
                return
        wait = min(2 * wait, PARENT_LOOK_MAX_SECONDS)


async def cancel_adopted(id: str) -> None:
    """Cancel a child that an earlier run of this workflow started. One that is gone needs none."""
    with contextlib.suppress(FailureError):
        await workflow.get_external_workflow_handle(id).cancel()

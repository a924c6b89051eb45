"""A handle of one run alone: a later run with the same id is not meant by it."""

from __future__ import annotations

from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHistoryEventFilterType,
)
from temporalio.service import RPCError

from planloom import Client, Run
from planloom.planner.contract.results import Progress


class ThisRun(Run):
    """What is read and decided here is of the run that had the id first, also after it has
    continued with a new history. Once another run has the id, this one has ended: it can be read
    still, and every decision about it is refused.
    """

    def __init__(self, client: Client, id: str, first: str) -> None:
        super().__init__(client, id)
        self._first = self._seen = first
        # The server itself compares `first` when a decision comes.
        self._handle = client.temporal.get_workflow_handle(id, first_execution_run_id=first)

    @classmethod
    async def of(cls, client: Client, id: str) -> ThisRun:
        """The run that has the id now.

        Raises:
            NoSuchRun: no run of that id.
        """
        return cls(client, id, _first_of(await client.run(id)._described()))

    async def described(self) -> WorkflowExecutionDescription:
        """What the server says of it."""
        return await self._described()

    async def progress(self) -> Progress:
        await self._described()  # finds out whether the id is another run's by now
        return await super().progress()

    async def _described(self) -> WorkflowExecutionDescription:
        try:
            return await self._find()
        except RPCError as error:
            raise (await self._translated(error)) from error

    async def _status(self) -> WorkflowExecutionStatus | None:
        try:
            return (await self._find()).status
        except RPCError:
            return None

    async def _find(self) -> WorkflowExecutionDescription:
        described = await self._handle.describe()
        if _first_of(described) != self._first:
            while after := await self._continued_as(self._seen):
                self._seen = after
            temporal = self._client.temporal
            self._handle = temporal.get_workflow_handle(self.id, run_id=self._seen)
            described = await self._handle.describe()
        self._seen = described.run_id
        return described

    async def _continued_as(self, run_id: str) -> str:
        """The run that a run of the chain continued as; empty for the last one."""
        handle = self._client.temporal.get_workflow_handle(self.id, run_id=run_id)
        only = WorkflowHistoryEventFilterType.CLOSE_EVENT
        async for event in handle.fetch_history_events(event_filter_type=only):
            return event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        return ""


def _first_of(described: WorkflowExecutionDescription) -> str:
    return described.raw_description.workflow_execution_info.first_run_id

"""Whether a child run still runs: asked for children whose parent has continued as new."""

from __future__ import annotations

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode


class ChildActivities:
    """What a worker registers. `temporal` is the client of the worker's namespace."""

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal

    @activity.defn(name="look_at_child")
    async def look_at_child(self, id: str) -> str:
        """The server's word for the status of a workflow; `GONE` when it knows none of that id."""
        try:
            found = await self._temporal.get_workflow_handle(id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return "GONE"
            raise
        return found.status.name if found.status is not None else "RUNNING"

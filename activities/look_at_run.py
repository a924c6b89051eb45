"""Whether another run still runs: asked by a parent that has continued as new, and by a child."""

from __future__ import annotations

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode


class RunActivities:
    """What a worker registers. `temporal` is the client of the worker's namespace."""

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal

    @activity.defn(name="look_at_run")
    async def look_at_run(self, id: str, run_key: str | None = None) -> str:
        """The server's word for the status of a workflow; `GONE` when it knows none of that id.

        With `run_key` (the id with that of its first run), another workflow of that id is `GONE`.
        """
        try:
            found = await self._temporal.get_workflow_handle(id).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return "GONE"
            raise
        first = found.raw_info.first_run_id  # older servers do not say
        if run_key is not None and first and run_key != f"{id}/{first}":
            return "GONE"
        return found.status.name if found.status is not None else "RUNNING"

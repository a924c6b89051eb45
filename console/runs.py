"""Finding runs, their Web UI pages and their workers: what several commands share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import quote

from rich.table import Table
from rich.text import Text
from temporalio.service import RPCError

from planloom import Client, Refused
from planloom.console.views import WIDE_COLUMNS, short_seconds
from planloom.planner.contract.results import LiveStatus, RunStatus

STATUSES = (*get_args(LiveStatus), *get_args(RunStatus))
UI_PORT_ABOVE = 1000


def ui_address(client: Client, run_id: str) -> str:
    """The run's page in the Web UI; empty where nobody said where that is.

    A development server, Planloom's or Temporal's, has it a thousand ports above.
    """
    import os

    base = os.environ.get("TEMPORAL_UI_ADDRESS", "")
    host, _, port = client.address.rpartition(":")
    if not base and host in ("127.0.0.1", "localhost", "[::1]") and port.isdigit():
        base = f"http://{host}:{int(port) + UI_PORT_ABOVE}"
    path = f"namespaces/{client.temporal.namespace}/workflows/{quote(run_id, safe='')}"
    return f"{base.rstrip('/')}/{path}" if base else ""


async def list_runs(client: Client, status: str | None, limit: int = 50) -> list[dict[str, Any]]:
    """Runs by visibility, newest first.

    Raises:
        Refused: the server does not know what they are looked for by.
    """
    kinds = '"DagWorkflow", "AgentWorkflow", "TeamWorkflow"'
    query = f"WorkflowType IN ({kinds})"
    if status:
        query += f' AND PlanloomStatus = "{status}"'
    if status in get_args(LiveStatus):  # a run that was refused or terminated keeps its last word
        query += ' AND ExecutionStatus = "Running"'
    rows: list[dict[str, Any]] = []
    try:
        async for run in client.temporal.list_workflows(query, limit=limit):
            attributes = {k.name: v for k, v in run.typed_search_attributes}
            state = run.status.name if run.status else ""
            word = attributes.get("PlanloomStatus", "")
            is_stale = state != "RUNNING" and word in get_args(LiveStatus)
            rows.append(
                {
                    "id": run.id,
                    "type": run.workflow_type,
                    "state": state,
                    "status": "" if is_stale else word,
                    "awaiting": ", ".join(attributes.get("PlanloomAwaiting", []) or []),
                    "revision": attributes.get("PlanloomRevision"),
                    "started": run.start_time.isoformat(timespec="seconds"),
                }
            )
    except RPCError as error:
        # Where PlanloomStatus is not registered, nothing can be found by it.
        raise Refused(f"the server refuses the list: {error.message}") from None
    return rows


def runs_table(rows: list[dict[str, Any]], width: int, now: datetime | None = None) -> Table:
    """A row a run. Ids are shown whole; a narrow terminal (`width`) sees fewer columns."""
    now = now or datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "status", "awaiting", "age", *(("type",) if width >= WIDE_COLUMNS else ())):
        table.add_column(name, no_wrap=True)
    for row in rows:
        age = short_seconds((now - datetime.fromisoformat(row["started"])).total_seconds())
        cells = [row["id"], shown_status(row), row["awaiting"], age]
        if width >= WIDE_COLUMNS:
            cells.append(row["type"].removesuffix("Workflow").lower())
        table.add_row(*map(Text, cells))
    return table


def shown_status(row: dict[str, Any]) -> str:
    """One word for a run: its own, unless the server ended it without one."""
    return str(row["status"] or row["state"].lower().replace("_", " "))


async def require_worker(client: Client) -> None:
    """Fail early when nobody polls the queue.

    Raises:
        NoWorker: the server knows no poller. It remembers one that is gone for five minutes.
    """
    from temporalio.api.enums.v1 import TaskQueueType
    from temporalio.api.taskqueue.v1 import TaskQueue
    from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

    from planloom import NoWorker

    described = await client.temporal.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.temporal.namespace,
            task_queue=TaskQueue(name=client.task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    if not described.pollers:
        raise NoWorker(client.task_queue)

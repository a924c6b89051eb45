"""Starting runs, printing results, listing runs: what several commands share."""

from __future__ import annotations

import json
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from temporalio.service import RPCError

from planloom import Client, Refused
from planloom.console.views import as_text, result_table, times_line, usage_line
from planloom.planner.contract.results import LiveStatus, RunResult, RunStatus

STATUSES = (*get_args(LiveStatus), *get_args(RunStatus))
UI_PORT_ABOVE = 1000
WIDTH_MAX = 400
EXIT_BY_STATUS = {"completed": 0, "partial": 1, "failed": 1, "rejected": 1, "cancelled": 1}


def print_result(result: RunResult, *, as_json: bool, err: Console) -> int:
    """The answer to stdout, the rest to stderr; gives the exit code (0 only when completed)."""
    if as_json:
        print(json.dumps(result.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return EXIT_BY_STATUS[result.status]
    err.print(result_table(result, err.width))
    err.print(f"[bold]{result.status}[/bold] {times_line(result)}", soft_wrap=True)
    err.print(usage_line(result), soft_wrap=True)
    if result.reason:
        err.print(f"reason: {result.reason}", markup=False, soft_wrap=True)
    for note in result.notes[:10]:
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    if result.answer is not None:
        print(as_text(result.answer))
    return EXIT_BY_STATUS[result.status]


def ui_address(client: Client, run_id: str) -> str:
    """The run's page in the Web UI; empty where nobody said where that is.

    A development server, Planloom's or Temporal's, has it a thousand ports above.
    """
    import os

    base = os.environ.get("TEMPORAL_UI_ADDRESS", "")
    host, _, port = client.address.rpartition(":")
    if not base and host in ("127.0.0.1", "localhost", "[::1]") and port.isdigit():
        base = f"http://{host}:{int(port) + UI_PORT_ABOVE}"
    path = f"namespaces/{client.temporal.namespace}/workflows/{run_id}"
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


def runs_table(rows: list[dict[str, Any]]) -> Table:
    """A row a run; 80 columns are enough beside the usual id."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "type", "state", "status", "awaiting", "started"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        kind = row["type"].removesuffix("Workflow").lower()
        started = row["started"].replace("T", " ").removesuffix("+00:00")
        table.add_row(
            row["id"], kind, row["state"].lower(), row["status"], row["awaiting"], started
        )
    return table


async def require_worker(client: Client) -> None:
    """Fail early when nobody polls the queue.

    Raises:
        NoWorker: no poller was seen in the last minute.
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

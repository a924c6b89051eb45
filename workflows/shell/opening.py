"""The shell of a workflow that begins: from its request, or from the state that it continues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter
from temporalio import workflow

from planloom.planner.contract.requests import Lineage
from planloom.planner.language.values import Locked
from planloom.workflows.machines.shared.machine import Failed, Identity, Machine, State
from planloom.workflows.machines.shared.requests import only_input, read_lineage
from planloom.workflows.shell.carried import is_carried, read_carried, read_state
from planloom.workflows.shell.shell import Shell

R = TypeVar("R")
S = TypeVar("S", bound=State)


def open_shell(
    machine: Machine[S],
    adapter: TypeAdapter[S],
    payloads: Sequence[Any],
    *,
    read: Callable[[Any], R | Failed],
    begin: Callable[[R, Identity, float], S],
    search_attributes: Callable[[S], list[str]],
) -> tuple[Shell[S] | None, Failed | None]:
    """The shell for what the workflow was started with; or all that is wrong with that.

    `read` makes the request of the input, `begin` the state of the request.
    """
    info = workflow.info()
    locked = next((p for p in payloads if isinstance(p, Locked)), None)
    if locked is not None and (info.continued_run_id or info.parent):
        # Not a caller's mistake. The workflow task is tried again: once this worker has the key, or
        # another one that has it takes the task, the run goes on.
        raise RuntimeError(f"the input cannot be read: {locked.why}")
    lineage = Lineage()
    if info.parent is not None and len(payloads) > 1:
        # Only the server says who the parent is: no starter of a run can say so.
        told = read_lineage(payloads[1], info.parent.workflow_id)
        if isinstance(told, Failed):
            return None, told
        lineage, payloads = told, [payloads[0], *payloads[2:]]
    document = only_input(payloads[0] if payloads else None, payloads[1:])
    # Only the server says that a run goes on: nobody starts one in the middle, with a state that
    # says who paid for what, what is approved, and which run is the parent.
    if is_carried(document) and info.continued_run_id:
        carried = read_carried(document)
        if isinstance(carried, Failed):
            return None, carried
        before: S | None = None
        if not carried.parts:
            found = read_state(adapter, [carried.state])
            if isinstance(found, Failed):
                return None, found
            before = found
        shell = Shell(
            machine,
            adapter,
            before,
            search_attributes=search_attributes,
            is_continued=True,
            parts=carried.parts,
            reports=carried.reports,
        )
        return shell, None
    request = read(document)
    if isinstance(request, Failed):
        return None, request
    run_key = f"{info.workflow_id}/{info.first_execution_run_id}"
    state = begin(request, Identity(info.workflow_id, run_key, lineage), workflow.time())
    return Shell(machine, adapter, state, search_attributes=search_attributes), None

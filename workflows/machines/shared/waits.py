"""What a workflow waits for, each with the command that answers it."""

from __future__ import annotations

import json
import shlex

from planloom.planner.contract.results import Awaiting, OpenWait
from planloom.planner.language.values import JsonValue
from planloom.workflows.machines.shared.account import Account, raise_that_helps
from planloom.workflows.machines.shared.budget import Amount


def signal_command(workflow_id: str, name: str, payload: dict[str, JsonValue]) -> str:
    """The `temporal` command that sends a signal, ready for a shell."""
    text = json.dumps(payload, ensure_ascii=False)
    return (
        f"temporal workflow signal --workflow-id {shlex.quote(workflow_id)} --name {name} "
        f"--input {shlex.quote(text)}"
    )


def approval_wait(workflow_id: str, revision: int, why: str, since: float) -> OpenWait:
    what = f"approval of revision {revision}{why}"
    return _wait("approval", what, since, workflow_id, "approve_plan", {"revision": revision})


def task_wait(workflow_id: str, task: str, what: str, since: float) -> OpenWait:
    what = f"approval of task {task}: {what}"
    payload: dict[str, JsonValue] = {"id": task, "approve": True}
    return _wait("approval", what, since, workflow_id, "approve_task", payload)


def question_wait(
    workflow_id: str, key: str, question: str, since: float, *, is_decision: bool = False
) -> OpenWait:
    payload: dict[str, JsonValue] = {"id": key, "output": {"approve": True} if is_decision else "…"}
    return _wait("human", f"{key}: {question}", since, workflow_id, "complete_task", payload)


def budget_wait(own: Account, lack: str, least: Amount, now: float) -> OpenWait:
    """What lacks, with new totals that are enough; or whom to look at, where others must give."""
    caps = raise_that_helps(own, least, now)
    is_parents = own.has_grant if "seconds" not in caps else False
    if own.parent is not None and (is_parents or not caps):
        return parent_wait(own.parent, lack, 0.0)
    what = f"The run is parked: {lack}. raise_budget lets it go on."
    return _wait("budget", what, 0.0, own.me, "raise_budget", caps)


def _wait(
    kind: Awaiting,
    what: str,
    since: float,
    workflow_id: str,
    update: str,
    payload: dict[str, JsonValue],
) -> OpenWait:
    """A wait that a signal or update of the workflow itself answers."""
    command = signal_command(workflow_id, update, payload)
    return OpenWait(
        kind=kind, what=what, since=since, command=command, update=update, input=payload
    )


def parent_wait(parent: str, lack: str, since: float) -> OpenWait:
    """Budget that only the parent run can give: it gives what it has, or shows what it lacks."""
    command = f"temporal workflow query --workflow-id {shlex.quote(parent)} --type progress"
    what = f"It is parked: {lack}. The run that it is part of was asked for more."
    return OpenWait(kind="budget", what=what, since=since, command=command)


def room_wait(why: str, since: float) -> OpenWait:
    return OpenWait(kind="capacity", what=why, since=since, command="planloom capacity")


def first_kind(waits: list[OpenWait]) -> Awaiting | None:
    """The kind to show where there is room for one: as urgent for people as it gets."""
    order: tuple[Awaiting, ...] = ("capacity", "approval", "budget", "human")
    kinds = {w.kind for w in waits}
    return next((k for k in order if k in kinds), None)


def detail_of(waits: list[OpenWait]) -> str | None:
    """What is awaited of the kind that is shown, in words."""
    kind = first_kind(waits)
    return "; ".join(w.what for w in waits if w.kind == kind) or None

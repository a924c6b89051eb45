"""What a workflow waits for, each with the command that answers it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from planloom.planner.contract.results import Awaiting, OpenWait
from planloom.planner.language.values import NANO, JsonValue
from planloom.workflows.machines.shared.account import Account


def signal_command(workflow_id: str, name: str, payload: dict[str, JsonValue]) -> str:
    """The `temporal` command that sends a signal, ready for a shell."""
    text = json.dumps(payload, ensure_ascii=False)
    return (
        f"temporal workflow signal --workflow-id {shlex.quote(workflow_id)} --name {name} "
        f"--input {shlex.quote(text)}"
    )


def approval_wait(workflow_id: str, revision: int, why: str, since: float) -> OpenWait:
    command = signal_command(workflow_id, "approve_plan", {"revision": revision})
    what = f"approval of revision {revision}{why}"
    return OpenWait(kind="approval", what=what, since=since, command=command)


def task_wait(workflow_id: str, task: str, what: str, since: float) -> OpenWait:
    command = signal_command(workflow_id, "approve_task", {"id": task, "approve": True})
    return OpenWait(
        kind="approval", what=f"approval of task {task}: {what}", since=since, command=command
    )


def question_wait(workflow_id: str, key: str, question: str, since: float) -> OpenWait:
    payload: dict[str, Any] = {"id": key, "output": "…"}
    command = signal_command(workflow_id, "complete_task", payload)
    return OpenWait(kind="human", what=f"{key}: {question}", since=since, command=command)


def budget_wait(account: Account, lack: str, *, is_time: bool) -> OpenWait:
    command = signal_command(account.me, "raise_budget", _cap_to_raise(account, is_time))
    what = f"The run is parked: {lack}. raise_budget lets it go on."
    return OpenWait(kind="budget", what=what, since=0.0, command=command)


def _cap_to_raise(account: Account, is_time: bool) -> dict[str, JsonValue]:
    """A cap that raise_budget may name, with twice its value: what to type first."""
    caps = account.ledger.caps
    if is_time and account.cap_seconds is not None:
        return {"seconds": account.cap_seconds * 2}
    if caps.tokens is not None:
        return {"tokens": caps.tokens * 2}
    if caps.usd_nano is not None:
        return {"usd": caps.usd_nano * 2 / NANO}
    return {"tasks": (caps.tasks or 1) * 2}


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

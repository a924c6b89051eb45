"""What happens in a run, as a stream of events: the difference between two looks at it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from planloom.planner.contract.results import OpenWait, Progress

EventKind = Literal["status", "plan", "task", "wait", "answered", "note", "end"]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One thing that happened.

    | kind | means | other fields that are set |
    |---|---|---|
    | `status` | the run's status changed | `state` |
    | `plan` | there is a new revision of the plan | `revision` |
    | `task` | a task's state or outcome changed | `task`, `state` |
    | `wait` | something is needed from a person or a pool | `wait`, `text` |
    | `answered` | it is no longer needed | `wait`, `text` |
    | `note` | something that a person should know | `text` |
    | `end` | the run is over; always the last event | `state`, `result` |
    """

    kind: EventKind
    seconds: float
    """Since the run started."""
    task: str | None = None
    state: str | None = None
    revision: int | None = None
    text: str = ""
    wait: OpenWait | None = None
    result: Any = field(default=None, repr=False)
    """At the end: the run's result model."""

    def __str__(self) -> str:
        match self.kind:
            case "task":
                words = f"task {self.task}: {self.state}"
            case "plan":
                words = f"plan: revision {self.revision}"
            case "status" | "end":
                words = f"{self.kind}: {self.state}"
            case _:
                words = f"{self.kind}: {self.text}"
        return f"{self.seconds:8.2f}s  {words}"


def changes(before: Progress | None, now: Progress) -> Iterator[RunEvent]:
    """What happened between two looks at a run, in an order that reads well.

    A task that was quick may go from `waiting` to its outcome in one event.
    """
    at = now.seconds
    old = before or Progress(status="")
    if now.revision != old.revision:
        yield RunEvent("plan", at, revision=now.revision)
    for task, state in now.tasks.items():
        if state != old.tasks.get(task, "waiting"):
            yield RunEvent("task", at, task=task, state=state)
    open_before = {w.key: w for w in old.waits}
    open_now = {w.key: w for w in now.waits}
    for key, wait in open_before.items():
        if key not in open_now:
            yield RunEvent("answered", at, task=wait.task, text=wait.what, wait=wait)
    for key, wait in open_now.items():
        if key not in open_before:
            yield RunEvent("wait", at, task=wait.task, text=wait.what, wait=wait)
    for note in now.notes[len(old.notes) :]:
        yield RunEvent("note", at, text=note)
    if now.status != old.status:
        yield RunEvent("status", at, state=now.status)


def in_short(progress: Progress | None) -> str:
    """How a run stood when it was last looked at; empty if nobody has looked."""
    if progress is None:
        return ""
    counts = ", ".join(f"{n} {state}" for state, n in progress.counts.items() if n)
    waits = f", waits for {progress.awaiting}" if progress.awaiting else ""
    return f"{progress.status}{waits}" + (f" ({counts})" if counts else "")

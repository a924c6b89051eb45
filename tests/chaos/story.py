"""What the server knows of a run when all is over: histories, children, lost attempts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from temporalio.api.enums.v1 import EventType, RetryState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHistory

from tests.support.failed_tasks import failed_task

MODEL_CALLS = ("ask_model", "agent_turn", "write_plan", "join_outcomes")
GIVEN_UP = (RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED, RetryState.RETRY_STATE_TIMEOUT)
ENDS = ("completed", "failed", "canceled", "terminated", "timed_out", "continued_as_new")


@dataclass(slots=True)
class Story:
    """A run and its children, over all their workflow runs."""

    histories: list[WorkflowHistory] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    """Attempts of each kind of activity that did not bring it to its end."""
    failed_tasks: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    """Workflows that have not ended."""
    results: list[Any] = field(default_factory=list)
    """What each workflow has returned."""
    continued: int = 0
    given_up: int = 0
    """Tool calls whose attempts were used up."""
    unknown: int = 0
    """Side effects of which it is not known if they were done."""

    def lost_of(self, *kinds: str) -> int:
        return sum(self.lost.get(kind, 0) for kind in kinds)


async def story_of(client: Client, id: str, first_run: str) -> Story:
    """Read all histories of a run."""
    story = Story()
    await _read(client, id, first_run, story)
    return story


async def _read(client: Client, id: str, run: str, story: Story) -> None:
    while run:
        handle = client.get_workflow_handle(id, run_id=run)
        history = await handle.fetch_history()
        story.histories.append(history)
        run = ""
        activities: dict[int, str] = {}
        for event in history.events:
            _count(event, activities, story)
            if event.HasField("child_workflow_execution_started_event_attributes"):
                child = event.child_workflow_execution_started_event_attributes.workflow_execution
                await _read(client, child.workflow_id, child.run_id, story)
            if event.HasField("workflow_execution_continued_as_new_event_attributes"):
                next_run = event.workflow_execution_continued_as_new_event_attributes
                run = next_run.new_execution_run_id
                story.continued += 1
            if event.HasField("workflow_execution_completed_event_attributes"):
                done = event.workflow_execution_completed_event_attributes.result.payloads
                story.results += await client.data_converter.decode(done)
        last = history.events[-1]
        if not any(last.HasField(f"workflow_execution_{e}_event_attributes") for e in ENDS):  # type: ignore[arg-type]
            story.open.append(id)


def _count(event: HistoryEvent, activities: dict[int, str], story: Story) -> None:
    kind = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
    match kind:
        case "ACTIVITY_TASK_SCHEDULED":
            name = event.activity_task_scheduled_event_attributes.activity_type.name
            activities[event.event_id] = name
        case "ACTIVITY_TASK_STARTED":
            started = event.activity_task_started_event_attributes
            name = activities[started.scheduled_event_id]
            story.lost[name] = story.lost.get(name, 0) + started.attempt - 1
        case "ACTIVITY_TASK_FAILED" | "ACTIVITY_TASK_TIMED_OUT" | "ACTIVITY_TASK_CANCELED":
            attributes = getattr(event, f"{kind.lower()}_event_attributes")
            name = activities[attributes.scheduled_event_id]
            story.lost[name] = story.lost.get(name, 0) + 1
            # A group that is given up goes on as single tasks, and others are asked again.
            if name == "run_tool" and getattr(attributes, "retry_state", 0) in GIVEN_UP:
                story.given_up += 1
        case "ACTIVITY_TASK_COMPLETED":
            payloads = event.activity_task_completed_event_attributes.result.payloads
            story.unknown += sum(b'"outcome":"unknown"' in p.data for p in payloads)
        case "WORKFLOW_TASK_FAILED" if reason := failed_task(event):
            story.failed_tasks.append(reason)

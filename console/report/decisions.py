"""Who decided what about a run, and when: read from its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.service import RPCError

from planloom import Client
from planloom.planner.contract.controls import CONTROLS

CHAIN_MAX = 50
"""Runs of one continued-as-new chain that are read; each holds some ten thousand events."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One signal or update that a person sent."""

    at: datetime
    name: str
    payload: dict[str, Any] = field(default_factory=dict)
    is_refused: bool = False

    @property
    def by(self) -> str:
        return str(self.payload.get("by") or "")


async def decisions_of(client: Client, run: str, run_id: str | None = None) -> list[Decision]:
    """The decisions in the order in which they came; updates that were refused leave no trace."""
    found: list[Decision] = []
    for _ in range(CHAIN_MAX):
        part, before = await _of_one_run(client, run, run_id)
        found = [*part, *found]
        if not before:
            break
        run_id = before
    return found


async def _of_one_run(client: Client, run: str, run_id: str | None) -> tuple[list[Decision], str]:
    """The decisions of one run of a chain, and the id of the one before."""
    handle = client.temporal.get_workflow_handle(run, run_id=run_id)
    found: dict[int, Decision] = {}
    before = ""
    try:
        async for event in handle.fetch_history_events():
            match event.event_type:
                case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                    started = event.workflow_execution_started_event_attributes
                    before = started.continued_execution_run_id
                case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                    signal = event.workflow_execution_signaled_event_attributes
                    if signal.signal_name in CONTROLS:
                        payload = await _decoded(client, signal.input.payloads)
                        found[event.event_id] = Decision(
                            _when(event.event_time), signal.signal_name, payload
                        )
                case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                    await _note_update(client, event, found)
                case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
                    _note_refusal(event, found)
    except RPCError:  # an old part of the chain may be gone
        return [], ""
    return list(found.values()), before


async def _note_update(client: Client, event: HistoryEvent, found: dict[int, Decision]) -> None:
    accepted = event.workflow_execution_update_accepted_event_attributes
    asked = accepted.accepted_request.input
    if asked.name in CONTROLS:
        payload = await _decoded(client, asked.args.payloads)
        found[event.event_id] = Decision(_when(event.event_time), asked.name, payload)


def _note_refusal(event: HistoryEvent, found: dict[int, Decision]) -> None:
    done = event.workflow_execution_update_completed_event_attributes
    decision = found.get(done.accepted_event_id)
    if decision is not None and done.outcome.HasField("failure"):
        found[done.accepted_event_id] = Decision(
            decision.at, decision.name, decision.payload, is_refused=True
        )


async def _decoded(client: Client, payloads: Sequence[Any]) -> dict[str, Any]:
    values = await client.temporal.data_converter.decode(list(payloads)) if payloads else []
    return dict(values[0]) if values and isinstance(values[0], dict) else {}


def _when(at: Timestamp) -> datetime:
    return at.ToDatetime().astimezone()

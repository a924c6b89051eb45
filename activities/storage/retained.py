"""What a Temporal server keeps: every run's history, searched for names of stored values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.converter import PayloadCodec
from temporalio.service import RPCError, RPCStatusCode

from planloom.activities.storage.garbage import Retained, names_in
from planloom.planner.contract.names import ENCRYPTED_ENCODING, ENCRYPTION_KEY_ID

AT_ONCE = 8
"""Histories that are read together."""


class UnreadableRun(Exception):
    """A run whose references cannot be known: nothing may be removed."""


async def add_retained(
    client: Client, codec: PayloadCodec | None, found: Retained, *, since: datetime | None = None
) -> None:
    """Add all runs of the client's namespace; with `since`, those that have started since then.

    Raises:
        UnreadableRun: a payload is encrypted with a key that is not here.
        RPCError: the server does not tell.
    """
    room = asyncio.Semaphore(AT_ONCE)

    async def read(run: WorkflowExecution) -> None:
        async with room:
            try:
                await _read_run(client, codec, run, found)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise  # it was deleted meanwhile: then nothing of it is needed

    async with asyncio.TaskGroup() as group:
        async for run in _runs(client, since):
            if run.run_id not in found.runs:
                found.workflows.add(run.id)
                found.runs.add(run.run_id)
                group.create_task(read(run))


def _runs(client: Client, since: datetime | None) -> AsyncIterator[WorkflowExecution]:
    query = f'StartTime >= "{since.isoformat()}"' if since else None
    return client.list_workflows(query)


async def _read_run(
    client: Client, codec: PayloadCodec | None, run: WorkflowExecution, found: Retained
) -> None:
    handle = client.get_workflow_handle(run.id, run_id=run.run_id)
    async for event in handle.fetch_history_events():
        found.names |= await _names_of(event, codec, run.id)
    if run.status is WorkflowExecutionStatus.RUNNING:
        # What activities under way remember in their heartbeats is not in history.
        described = (await handle.describe()).raw_description
        found.names |= await _names_of(described, codec, run.id)


async def _names_of(message: Message, codec: PayloadCodec | None, run: str) -> set[str]:
    found = names_in(message.SerializeToString())
    sealed = [p for p in _payloads(message) if _is_sealed(p)]
    if not sealed:
        return found
    for payload in await codec.decode(sealed) if codec else sealed:
        if _is_sealed(payload):
            key = payload.metadata.get(ENCRYPTION_KEY_ID, b"?").decode("ascii", "replace")
            raise UnreadableRun(f'run "{run}" is encrypted with key "{key}", which is not here')
        found |= names_in(payload.data)
    return found


def _is_sealed(payload: Payload) -> bool:
    return payload.metadata.get("encoding") == ENCRYPTED_ENCODING


def _payloads(message: Message) -> Iterator[Payload]:
    if isinstance(message, Payload):
        yield message
        return
    for described, value in message.ListFields():
        if described.type == FieldDescriptor.TYPE_MESSAGE:
            for each in _messages(value):
                yield from _payloads(each)


def _messages(value: Any) -> list[Message]:
    """The messages of a field: one, a list, or the values of a map."""
    if isinstance(value, Message):
        return [value]
    values = value.values() if hasattr(value, "values") else value
    return [each for each in values if isinstance(each, Message)]

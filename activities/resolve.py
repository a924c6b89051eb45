"""Activities over values that may be large: resolve references, pack bindings, patch a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import jsonpatch
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from planloom.activities.models.heartbeats import Heartbeat
from planloom.activities.storage.blobs import BlobError, BlobStore
from planloom.activities.storage.json_values import (
    ValueNotJsonError,
    copied,
    depth_of,
    json_text,
)
from planloom.activities.storage.threads import in_computing_thread
from planloom.planner.contract.jobs import PatchedPlan, PatchJob, Resolved, ResolveJob
from planloom.planner.language.conditions import evaluate
from planloom.planner.language.expressions import IN_ACTIVITY, Meter
from planloom.planner.language.values import Bindings, JsonValue, Stored
from planloom.planner.syntax.json_text import meant_list, why_no_list

READ_MAX_CHARS = 20_000
AT_ONCE = 8
"""Parts of a long list that are written side by side."""


PATCH_COPIES_MAX_BYTES = 1_000_000
"""Of all that the `copy` operations of one patch copy."""
PATCHED_MAX_DEPTH = 100
"""Parsers of payloads stop at about 200 levels; a workflow that cannot read its result hangs."""
_TOO_DEEP = f"the plan would be nested deeper than {PATCHED_MAX_DEPTH} levels: use references"


class ResolveActivities:
    """What a worker registers for values: quick, so that they may run as local activities."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    @activity.defn(name="resolve_value")
    async def resolve_value(self, job: ResolveJob) -> Resolved:
        """`value`, `condition`, `list` or `joined`, as `ResolveJob` says.

        Raises:
            ApplicationError: type `tool` for a reference that leads nowhere, or no list where one
                is wanted; type `unknown`, retryable, for a blob that cannot be read.
        """
        with _as_application_errors():
            if not job.is_long:
                return await self._resolved(job)
            async with Heartbeat():
                return await self._resolved(job)

    async def _resolved(self, job: ResolveJob) -> Resolved:
        if job.mode == "condition":
            outputs = await self._all_of(job.bindings)
            meter = Meter(IN_ACTIVITY)
            # In a thread: bounded, but up to seconds, and other activities go on meanwhile.
            holds = await in_computing_thread(
                evaluate, str(job.value), job.outcomes, outputs, None, meter
            )
            return Resolved(stored=Stored(value=holds))
        value = await self._blobs.bind(job.value, job.bindings)
        if job.mode == "joined":
            joined = await in_computing_thread(_joined, value)
            return Resolved(stored=await self._blobs.store_value(joined), count=len(joined))
        if job.mode == "value":
            return Resolved(stored=await self._blobs.store_value(value, job.inline_max_bytes))
        items = meant_list(value)
        if items is None:
            raise ValueError(f"map {why_no_list(job.value, value)}")
        if job.batch is not None and len(items) > job.batched_from:
            return Resolved(count=len(items), parts=await self._cut(items, job.batch))
        stored = await self._blobs.store_value(items, job.inline_max_bytes)
        return Resolved(stored=stored, count=len(items))

    async def _cut(self, items: list[JsonValue], size: int) -> list[Stored]:
        """A list in parts of `size` items, each a separate value."""
        parts: list[Stored] = []
        for start in range(0, len(items), AT_ONCE * size):
            ends = range(start, min(start + AT_ONCE * size, len(items)), size)
            found = (self._blobs.store_value(items[at : at + size]) for at in ends)
            parts += await asyncio.gather(*found)
        # Thousands of previews would be more than one result may hold.
        return [p.model_copy(update={"preview": None}) for p in parts]

    async def _all_of(self, bindings: Bindings) -> dict[str, JsonValue]:
        if bindings.bundle is not None:
            bindings = await self._blobs.unpack(bindings)
        return dict(await self._blobs.scope(bindings, [*bindings.inputs, "item"]))

    @activity.defn(name="pack_bindings")
    async def pack_bindings(self, bindings: Bindings) -> Bindings:
        """The same bindings with all inputs behind one reference."""
        with _as_application_errors():
            return await self._blobs.pack(bindings)

    @activity.defn(name="patch_plan")
    async def patch_plan(self, job: PatchJob) -> PatchedPlan:
        """An RFC 6902 patch applied; what is wrong with it comes back as `problem`."""
        return await in_computing_thread(patched_plan, job)


def _joined(parts: JsonValue) -> list[JsonValue]:
    """One list of several; a number stands for as many nulls."""
    assert isinstance(parts, list)
    joined: list[JsonValue] = []
    for part in parts:
        joined += part if isinstance(part, list) else [None] * int(str(part))
    return joined


def patched_plan(job: PatchJob) -> PatchedPlan:
    """The document after the patch, or the reason why the patch does not apply."""
    try:
        return PatchedPlan(document=_patched(job))
    except _TooLargeError as error:
        return PatchedPlan(problem=str(error))
    except RecursionError:
        return PatchedPlan(problem=_TOO_DEEP)
    except jsonpatch.JsonPatchTestFailed as error:
        return PatchedPlan(problem=f"a `test` of the patch does not hold: {_first_line(error)}")
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        return PatchedPlan(problem=f"the patch does not apply: {_first_line(error)}")
    except (
        TypeError,
        KeyError,
        ValueError,
        AttributeError,
        IndexError,
        ValueNotJsonError,  # "-" names a place where nothing is yet
    ) as error:
        return PatchedPlan(
            problem=f"this is no RFC 6902 patch ({type(error).__name__}: {_first_line(error)}); "
            'write [{"op": "replace", "path": "/tasks/0/args/query", "value": "…"}]'
        )


class _TooLargeError(Exception):
    """What a patch makes is more than a plan may be."""


def _patched(job: PatchJob) -> JsonValue:
    """One operation after the other. Each `copy` of the whole into itself doubles it: 39 would make
    more than any memory holds, so what is copied is counted first."""
    document: JsonValue = copied(job.document)
    copied_bytes = 0
    for operation in job.patch:
        if operation.get("op") == "copy" and isinstance(operation.get("from"), str):
            value = jsonpatch.JsonPointer(str(operation["from"])).resolve(document, None)
            copied_bytes += len(json_text(value))
            if copied_bytes > PATCH_COPIES_MAX_BYTES:
                raise _TooLargeError(
                    f"what the patch copies is more than {PATCH_COPIES_MAX_BYTES:,} bytes: "
                    "give the new plan instead"
                )
        document = jsonpatch.JsonPatch([operation]).apply(document, in_place=True)
    if depth_of(document) > PATCHED_MAX_DEPTH:
        raise _TooLargeError(_TOO_DEEP)
    return document


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]


async def read_output(
    blobs: BlobStore, stored: Stored, start: int = 0, end: int | None = None
) -> str:
    """Characters `start` to `end` of an output's text, with marks where something is left out.

    Text is itself, anything else its JSON. At most `READ_MAX_CHARS` at once.

    Raises:
        BlobError: the blob cannot be read.
        ValueError: the range is empty or outside; the message has the length.
    """
    value = await blobs.load(stored)
    text = value if isinstance(value, str) else json_text(value)
    last = len(text) if end is None else min(end, len(text))
    if start < 0 or last < start or (start >= len(text) and text):
        raise ValueError(f"range {start} to {end}: the output has {len(text):,} characters, from 0")
    last = min(last, start + READ_MAX_CHARS)
    before = f"… ({start:,} characters before)\n" if start else ""
    after = f"\n… ({len(text) - last:,} characters after, from {last})" if last < len(text) else ""
    return before + text[start:last] + after


@contextmanager
def _as_application_errors() -> Iterator[None]:
    try:
        yield
    except BlobError as error:
        raise ApplicationError(str(error), type="unknown") from error
    except (ValueError, ValueNotJsonError) as error:
        # The plan's fault, told in its outcome: no traceback in the worker's log.
        benign = ApplicationErrorCategory.BENIGN
        raise ApplicationError(
            str(error), type="tool", non_retryable=True, category=benign
        ) from error

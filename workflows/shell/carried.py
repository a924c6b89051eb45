"""A machine's state as the input of the workflow run that continues it.

The state travels compressed: it is our own, nobody reads it in the Web UI, and a payload may hold
2 MiB. A larger one lies in the blob store, in parts. A state that another version wrote is read
with defaults for what it lacks, or refused.
"""

from __future__ import annotations

import gc
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from planloom.planner.contract.large_plans import packed_parts, unpacked
from planloom.planner.contract.names import INVALID_REQUEST
from planloom.planner.language.values import Stored
from planloom.workflows.machines.shared.machine import Failed
from planloom.workflows.shell.ends import failed_of

S = TypeVar("S")
VERSION = 1
MARK = "planloom_state"
"""The key by which an input is known as a state that is carried over."""


class Carried(BaseModel):
    """The input of a continued run."""

    planloom_state: int
    """Which version wrote it."""
    state: str = ""
    """Base64 of the zlib-compressed JSON of the state."""
    parts: list[Stored] = Field(default_factory=list)
    """In place of `state`: its parts in the blob store."""
    reports: bool = False
    """The parent has continued as new: it is told the result by signal."""


def packed_state(adapter: TypeAdapter[S], state: S) -> list[str]:
    """The state as text, in as many parts as payloads need."""
    return packed_parts(adapter.dump_json(state, exclude_unset=True, by_alias=True))


def carry(parts: Sequence[str] | Sequence[Stored], *, reports: bool) -> Carried:
    """The input for the run that goes on with a state: its one part, or references to several."""
    stored = [p for p in parts if isinstance(p, Stored)]
    state = "".join(p for p in parts if isinstance(p, str))
    return Carried(planloom_state=VERSION, state=state, parts=stored, reports=reports)


def is_carried(document: Any) -> bool:
    """Whether an input is a state that is carried over, and no request."""
    return isinstance(document, dict) and MARK in document


def read_carried(document: Any) -> Carried | Failed:
    """What a run was continued with; or why it cannot be read."""
    try:
        carried = Carried.model_validate(document)
        if carried.planloom_state != VERSION:
            raise ValueError(f"it is of version {carried.planloom_state}; this worker reads 1")
        return carried
    except (ValidationError, ValueError) as error:
        return _unreadable(error)


def read_state(adapter: TypeAdapter[S], parts: Sequence[str]) -> S | Failed:
    """The state of its parts; or why it cannot be read."""
    try:
        return read_large(adapter, parts)
    except (ValidationError, ValueError, zlib.error) as error:
        return _unreadable(error)


def read_large(adapter: TypeAdapter[S], parts: Sequence[str]) -> S:
    """A value of its packed parts. No garbage is looked for meanwhile: there is none, and to walk
    what has been read so far, again and again, took two thirds of the time.

    Raises:
        ValidationError, ValueError, zlib.error: it cannot be read.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        return adapter.validate_json(unpacked(parts))
    finally:
        if was_on:
            gc.enable()


def _unreadable(error: Exception) -> Failed:
    first = error.errors()[0] if isinstance(error, ValidationError) else None
    where = ".".join(str(p) for p in first["loc"]) if first else "input"
    message = first["msg"] if first else str(error)
    return failed_of(
        INVALID_REQUEST,
        f"state.{where}",
        f"the state of the run before cannot be read: {message}",
        "Run workers of one version, or finish these runs with the version that began them.",
    )

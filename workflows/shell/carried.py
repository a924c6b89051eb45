"""A machine's state as the input of the workflow run that continues it.

The state travels compressed: it is our own, nobody reads it in the Web UI, and a payload may hold
2 MiB. A state that another version wrote is read with defaults for what it lacks, or refused.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from planloom.planner.contract.names import INVALID_REQUEST
from planloom.workflows.machines.shared.machine import Failed
from planloom.workflows.shell.ends import failed_of

S = TypeVar("S")
VERSION = 1
MARK = "planloom_state"
"""The key by which an input is known as a state that is carried over."""
STATE_MAX_BYTES = 512_000_000
"""A larger state was not written by us."""


class Carried(BaseModel):
    """The input of a continued run."""

    planloom_state: int
    """Which version wrote it."""
    state: str
    """Base64 of the zlib-compressed JSON of the state."""
    reports: bool = False
    """The parent has continued as new: it is told the result by signal."""


def carry(adapter: TypeAdapter[S], state: S, *, reports: bool) -> Carried:
    """The input for the run that goes on with `state`."""
    text = adapter.dump_json(state, exclude_unset=True, by_alias=True)
    packed = base64.b64encode(zlib.compress(text)).decode("ascii")
    return Carried(planloom_state=VERSION, state=packed, reports=reports)


def is_carried(document: Any) -> bool:
    """Whether an input is a state that is carried over, and no request."""
    return isinstance(document, dict) and MARK in document


def read_carried(adapter: TypeAdapter[S], document: Any) -> tuple[S, bool] | Failed:
    """The state, and whether its parent is to be told the result; or why it cannot be read."""
    try:
        carried = Carried.model_validate(document)
        if carried.planloom_state != VERSION:
            raise ValueError(f"it is of version {carried.planloom_state}; this worker reads 1")
        unpack = zlib.decompressobj()
        text = unpack.decompress(base64.b64decode(carried.state), STATE_MAX_BYTES)
        return adapter.validate_json(text), carried.reports
    except (ValidationError, ValueError, zlib.error) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        where = ".".join(str(p) for p in first["loc"]) if first else "input"
        message = first["msg"] if first else str(error)
        return failed_of(
            INVALID_REQUEST,
            f"state.{where}",
            f"the state of the run before cannot be read: {message}",
            "Run workers of one version, or finish these runs with the version that began them.",
        )

"""Plans that are too large for a request or a workflow task: they travel as blobs, and in parts."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable

from pydantic import Field

from planloom.planner.contract.requests import RunRequest
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.values import Model, Problem, Stored

INLINE_TASKS_MAX = 2_000
"""A larger plan is compiled by an activity: a workflow task may take seconds at most."""
REQUEST_PLAN_MAX_BYTES = 1_500_000
"""A larger plan goes to the blob store before the run starts: a request may have 2 MiB in all."""

PART_CHARS = 1_000_000
"""Of a long text that history holds in parts: one payload may have 2 MiB, a third is for Base64."""
UNPACKED_MAX_BYTES = 512_000_000
"""A longer text was not packed by us."""


def packed_parts(text: bytes) -> list[str]:
    """A long JSON text, compressed and as Base64, in as many parts as payloads need.

    Each part can be read by itself and no string is cut, so that whoever looks for the names of
    blobs finds them all.
    """
    whole = _packed(text)
    if len(whole) <= PART_CHARS:
        return [whole]
    parts, at = list[str](), 0
    while at < len(text):
        end = text.rfind(b'"', at, at + PART_CHARS) + 1 if at + PART_CHARS < len(text) else 0
        end = end or at + PART_CHARS
        parts.append(_packed(text[at:end]))
        at = end
    return parts


def _packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text)).decode("ascii")


def unpacked(parts: Iterable[str]) -> bytes:
    """The text that was packed.

    Raises:
        ValueError, zlib.error: it is not what `packed_parts` gave.
    """
    return b"".join(
        zlib.decompressobj().decompress(base64.b64decode(part), UNPACKED_MAX_BYTES)
        for part in parts
    )


class PreparePlanJob(Model):
    """`prepare_plan`: what the run must know of its worker, and its plan, compiled."""

    request: RunRequest
    """It names its plan by `plan_blob`."""
    depth: int = 0
    given: list[str] = Field(default_factory=list)
    """What its references may name beside its tasks."""


class PreparedPlan(Model):
    """The catalog, and the compiled plan in parts; or all that is wrong with the plan."""

    catalog: Catalog = Field(default_factory=Catalog)
    problems: list[Problem] = Field(default_factory=list)
    parts: list[Stored] = Field(default_factory=list)
    """Of the compiled plan as JSON, compressed, in Base64."""

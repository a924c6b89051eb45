"""The blob store that clients and workers share: here a plan that no request can hold is put."""

from __future__ import annotations

import json
from typing import Any

from planloom.activities.storage.backends import open_backend
from planloom.activities.storage.blobs import BlobError, BlobStore
from planloom.activities.storage.sealed import SealedBackend
from planloom.errors import Refused
from planloom.keys import KeyRing, key_ring
from planloom.planner.contract.large_plans import INLINE_TASKS_MAX, REQUEST_PLAN_MAX_BYTES
from planloom.planner.contract.names import INVALID_REQUEST
from planloom.planner.contract.settings import Settings
from planloom.planner.language.plan import PLAN_FILE_MAX_BYTES

REQUEST_MAX_BYTES = 2_000_000
"""Temporal's server takes 2 MiB, with what a client adds to it."""


def open_blobs(settings: Settings, keys: KeyRing | None) -> BlobStore:
    """The store at the place that the settings name; with keys, encrypted."""
    backend = open_backend(settings.blobs_place)
    return BlobStore(SealedBackend(backend, keys) if keys else backend)


async def store_plan(plan: Any, settings: Settings) -> str:
    """Put a plan document into the blob store: its SHA-256, for `plan_blob` of a request.

    Raises:
        Refused: it is too large, or the store cannot be written.
    """
    content = json.dumps(plan, ensure_ascii=False).encode()
    if len(content) > PLAN_FILE_MAX_BYTES:
        message = f"the plan has {len(content):,} bytes; at most {PLAN_FILE_MAX_BYTES:,}"
        raise Refused(f"{message}. Put large values in files, and read them with a tool")
    try:
        return await open_blobs(settings, key_ring(settings)).put_bytes(content)
    except BlobError as error:
        raise Refused(str(error)) from None


async def fitted(document: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A request as a server takes it: a large plan goes to the blob store.

    Raises:
        Refused: the rest is too large, or the store cannot be written.
    """
    plan = document.get("plan")
    if isinstance(plan, dict) and _is_large(plan):
        rest = {name: value for name, value in document.items() if name != "plan"}
        document = rest | {"plan_blob": await store_plan(plan, settings)}
    size = _size(document)
    if size > REQUEST_MAX_BYTES:
        raise Refused(
            f"the request has {size:,} bytes without its plan; Temporal takes "
            f"{REQUEST_MAX_BYTES:,}. Put large values in files, and read them with a tool",
            INVALID_REQUEST,
        )
    return document


def _is_large(plan: dict[str, Any]) -> bool:
    tasks = plan.get("tasks")
    if isinstance(tasks, list) and len(tasks) > INLINE_TASKS_MAX:
        return True
    return _size(plan) > REQUEST_PLAN_MAX_BYTES


def _size(document: Any) -> int:
    return len(json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "replace"))

"""Search attributes and current details of a workflow, as its machine shows itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from planloom.workflows.machines.shared.machine import View

DETAILS_EVERY_SECONDS = 1.0
SIZE_A_SECOND = 2_000
"""Of a run of 20,000 tasks they come every ten seconds: else their making would take a third of its
time."""

STATUS = SearchAttributeKey.for_keyword("PlanloomStatus")
REVISION = SearchAttributeKey.for_int("PlanloomRevision")
AWAITING = SearchAttributeKey.for_keyword_list("PlanloomAwaiting")
TENANT = SearchAttributeKey.for_keyword("PlanloomTenant")


class Publisher:
    """Tells the server of changes: at once of the status, once a second of the details."""

    def __init__(self) -> None:
        self._published: tuple[Any, ...] = ()
        self._detailed_at = -DETAILS_EVERY_SECONDS
        self._every = DETAILS_EVERY_SECONDS
        self._has_tenant = False

    def is_due(self, published: tuple[Any, ...], now: float) -> bool:
        """Whether there is something to tell."""
        if published != self._published:
            return True
        return now - self._detailed_at >= self._every

    def publish(
        self, view: View, published: tuple[Any, ...], known: Collection[str], now: float
    ) -> None:
        """Tell it. `known` are the search attributes that the server has: an unknown one would
        hang the run."""
        if published != self._published:
            self._upsert(view, known)
        self._published, self._detailed_at = published, now
        self._every = max(DETAILS_EVERY_SECONDS, view.size / SIZE_A_SECOND)
        workflow.set_current_details(view.details)

    def _upsert(self, view: View, known: Collection[str]) -> None:
        updates: list[SearchAttributeUpdate[Any]] = []
        if STATUS.name in known:
            updates.append(STATUS.value_set(view.status))
        if REVISION.name in known and view.revision is not None:
            updates.append(REVISION.value_set(view.revision))
        if AWAITING.name in known:
            updates.append(AWAITING.value_set([view.awaiting] if view.awaiting else []))
        if TENANT.name in known and view.tenant and not self._has_tenant:
            updates.append(TENANT.value_set(view.tenant))
            self._has_tenant = True
        if updates:
            workflow.upsert_search_attributes(updates)

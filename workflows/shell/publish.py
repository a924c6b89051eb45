"""Search attributes and current details of a workflow, as its machine shows itself."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from planloom.workflows.machines.shared.machine import Published

STATUS = SearchAttributeKey.for_keyword("PlanloomStatus")
REVISION = SearchAttributeKey.for_int("PlanloomRevision")
AWAITING = SearchAttributeKey.for_keyword_list("PlanloomAwaiting")
TENANT = SearchAttributeKey.for_keyword("PlanloomTenant")


class LiveDetails(str):
    """Current details that are made when the Web UI asks for them: see `runner`.

    They list all tasks. Made again after each event, they took a fifth of a short run's workflow
    code, and of 20,000 tasks a third.
    """

    make: Callable[[], str]


def live_details(make: Callable[[], str]) -> LiveDetails:
    details = LiveDetails()
    details.make = make
    return details


class Publisher:
    """Tells the server of changes in what the search attributes show."""

    def __init__(self) -> None:
        self._published: Published | None = None
        self._has_tenant = False

    def publish(self, shown: Published, known: Collection[str]) -> None:
        """Upsert what has changed. `known` are the search attributes that the server has: an
        unknown one would hang the run."""
        if shown == self._published:
            return
        self._published = shown
        updates: list[SearchAttributeUpdate[Any]] = []
        if STATUS.name in known:
            updates.append(STATUS.value_set(shown.status))
        if REVISION.name in known and shown.revision is not None:
            updates.append(REVISION.value_set(shown.revision))
        if AWAITING.name in known:
            updates.append(AWAITING.value_set([shown.awaiting] if shown.awaiting else []))
        if TENANT.name in known and shown.tenant and not self._has_tenant:
            updates.append(TENANT.value_set(shown.tenant))
            self._has_tenant = True
        if updates:
            workflow.upsert_search_attributes(updates)

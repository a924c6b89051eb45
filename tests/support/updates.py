"""A Temporal client whose updates are asked for as Planloom's own client asks."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from temporalio.client import (
    Interceptor,
    OutboundInterceptor,
    StartWorkflowUpdateInput,
    WorkflowUpdateHandle,
)

from planloom.errors import answered


class AskedAgain(Interceptor):
    """An update whose workflow task failed is asked for again, under the same id."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _Outbound(next)


class _Outbound(OutboundInterceptor):
    async def start_workflow_update(
        self, input: StartWorkflowUpdateInput
    ) -> WorkflowUpdateHandle[Any]:
        input.update_id = input.update_id or uuid.uuid4().hex
        ask: Callable[[StartWorkflowUpdateInput], Any] = super().start_workflow_update
        return await answered(lambda: ask(input))

"""Signals to other runs, each after the one before it to the same run."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError


class Signals:
    """What one workflow run sends. The server delivers signals that are on their way together in
    any order: a child that heard `resume` before `pause` stayed paused for good. So one signal to a
    run is on its way at a time.
    """

    def __init__(self) -> None:
        self._lines: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def send(self, run: str, signal: str, payload: Any = None, secret: str = "") -> bool:
        """Whether it was delivered. A run that has ended, or is gone, needs it no more.

        `secret` goes along as a second payload: see `family`.
        """
        args = [payload, secret] if secret else [payload]
        async with self._lines[run]:
            handle = workflow.get_external_workflow_handle(run)
            try:
                # To cancel a signal that is on its way would fail the workflow task forever.
                await asyncio.shield(handle.signal(signal, args=args))
            except FailureError:
                return False
        return True

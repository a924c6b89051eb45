"""Changes of what runs send, which runs that were begun before them must not make.

A patch that is asked for right after a local activity can be answered wrongly at replay. When the
workflow task was completed between the two (a query that came meanwhile is enough), the patch's
marker lies in the next one, beyond what replay looks ahead: it is told that there is none, and the
run's workflow task fails for ever. So a run asks once, before anything else, whether it was begun
with all changes so far; one that was begun earlier asks for each where it comes to it.
"""

from __future__ import annotations

from temporalio import workflow


class Changes:
    """Made when its workflow is, before the first await."""

    def __init__(self) -> None:
        self._has_all = workflow.patched("begun-with-all-of-2026-11-27")

    def has(self, change: str) -> bool:
        """Whether this run goes by the change."""
        return self._has_all or workflow.patched(change)

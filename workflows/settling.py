"""Waits for the end of a run's work, with another round for what may pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from temporalio import workflow

from planloom.planner.language.values import Outcome

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine


class Settling:
    """How far a run has come to its end: its round, and whether a person has paused it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.round = 0
        self.is_time_up = False
        self._is_paused = False

    async def wait(self, until: Callable[[], bool]) -> None:
        """Run until nothing is left to do, with DAG-level rounds for what may pass.

        Returns early, with tasks still running, when `until` becomes true.
        """
        engine = self.engine
        while True:
            engine.pump()
            engine.on_change()
            await workflow.wait_condition(
                lambda: engine.bug is not None or engine.is_settled or until()
            )
            if engine.bug is not None:
                raise engine.bug
            if until():
                return
            if engine.frontier.is_stopped:
                engine.stopping.sweep()
                return
            again = [
                t for t, r in engine.records.items() if r.outcome is Outcome.FAILED and r.may_pass
            ]
            if not again or self.round >= engine.request.retry_rounds:
                return
            self.round += 1
            opened, settled = engine.frontier.retry_round(again)
            for task in opened:
                engine.records[task].reset()
            engine.take_settled(settled)
            engine.note(f"round {self.round + 1}: {', '.join(again[:20])}")

    def pause(self, is_on: bool) -> None:
        """A person pauses the run, or lets it go on."""
        self._is_paused = is_on
        self.hold_or_go()

    def hold_or_go(self) -> None:
        self.engine.frontier.is_paused = self._is_paused or self.is_time_up

"""The signals and updates of a run: one name each, one check for both.

An update validates and answers at once; a signal that comes too late is ignored, and noted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from temporalio.exceptions import ApplicationError

from planloom.planner.contract.controls import Reply
from planloom.planner.contract.names import BUDGET_EXCEEDED, INVALID_REQUEST, STALE
from planloom.planner.syntax.documents import read_request

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a control cannot be taken, and the contract's error type for it."""

    message: str
    type: str = STALE


@dataclass(frozen=True, slots=True)
class Control(Generic[M]):
    """One thing a person can do to a run. `check` says why not; `apply` does it."""

    name: str
    model: type[M]
    check: Callable[[M], Refusal | str | None]
    apply: Callable[[M], Awaitable[Reply]]

    def parse(self, payload: Any) -> M:
        """The payload as its model.

        Raises:
            ApplicationError: `InvalidRequest`, with all problems.
        """
        parsed, problems = read_request({} if payload is None else payload, self.model)
        if parsed is None:
            raise ApplicationError(
                f"{self.name}: " + "; ".join(p.line() for p in problems),
                [p.model_dump() for p in problems],
                type=INVALID_REQUEST,
                non_retryable=True,
            )
        return parsed

    def _refusal(self, payload: M) -> Refusal | None:
        found = self.check(payload)
        return Refusal(found) if isinstance(found, str) else found

    def validate(self, payload: Any) -> None:
        """The update's validator: raises, and so leaves nothing in history, when it is refused."""
        refusal = self._refusal(self.parse(payload))
        if refusal is not None:
            raise ApplicationError(refusal.message, type=refusal.type, non_retryable=True)

    async def update(self, payload: Any) -> Reply:
        return await self.apply(self.parse(payload))

    async def signal(self, payload: Any, note: Callable[[str], None]) -> None:
        """Take a signal; what an update would have refused is noted instead."""
        try:
            parsed = self.parse(payload)
            refusal = self._refusal(parsed)
            if refusal is None:
                await self.apply(parsed)
        except ApplicationError as error:
            note(f"signal ignored: {error.message}")
            return
        if refusal is not None:
            note(f"signal ignored: {refusal.message}")


__all__ = ["BUDGET_EXCEEDED", "Control", "Refusal"]

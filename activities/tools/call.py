"""One attempt of a tool call, bound and checked, and how its function is run."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planloom.activities.tools.decorator import Tool, ToolContext, ToolError
from planloom.activities.tools.threads import in_thread
from planloom.planner.contract.jobs import ErrorClass, ToolJob
from planloom.planner.language.clean_text import clean_text
from planloom.planner.language.values import NANO, JsonValue, Usage

TOOL_ERROR_MAX_CHARS = 500


class ToolCallError(Exception):
    """A call that failed: its class, and whether and when the same call may be made again."""

    def __init__(
        self,
        message: str,
        *,
        error_class: ErrorClass = "tool",
        retry: bool = False,
        retry_after: float | None = None,
        usage: Usage | None = None,
        nothing_done: bool = False,
    ) -> None:
        self.message = message
        self.error_class: ErrorClass = error_class
        self.retry = retry
        self.retry_after = retry_after
        self.usage = usage or Usage()
        self.nothing_done = nothing_done
        """Known of this attempt and of all before it."""
        super().__init__(message)


@dataclass(frozen=True)
class ToolCall:
    """One attempt of one job, bound and checked."""

    tool: Tool[..., Any]
    job: ToolJob
    args: dict[str, JsonValue]
    kwargs: dict[str, Any]
    context: ToolContext
    timeout_seconds: float | None
    execution: str = ""
    """One scheduled activity: its attempts are counted together."""
    nothing_done: int = 0
    """Attempts 1 to this one of the execution are known to have done nothing."""

    @property
    def name(self) -> str:
        return self.tool.spec.name

    @property
    def is_accounted_for(self) -> bool:
        """All attempts before this one are known to have done nothing."""
        return self.nothing_done >= self.context.attempt - 1

    @property
    def usage(self) -> Usage:
        cost = self.tool.spec.cost_usd or 0.0
        return Usage(tool_calls=1, usd_nano=-int(-cost * NANO // 1))

    def failure(self, message: str, **more: Any) -> ToolCallError:
        text = message.removeprefix(f"{self.name}: ")
        return ToolCallError(f'tool "{self.name}": {text}', usage=self.usage, **more)

    async def outcome_of(self, function: Callable[[], Any], *, is_async: bool = False) -> Any:
        """What `function` gives within the tool's time, its exceptions as `ToolCallError`."""
        limit = self.timeout_seconds
        try:
            async with asyncio.timeout(limit) as clock:
                result = function() if is_async else await in_thread(function)
                return await result if inspect.isawaitable(result) else result
        except ToolError as error:
            raise self.failure(
                cut_off(error.message), retry=error.retry, retry_after=error.retry_after
            ) from error
        except TimeoutError as error:
            self.context.cancelled.set()
            if clock.expired():
                raise self.failure(
                    f"it took longer than its timeout of {limit:.3g} s",
                    error_class="timeout",
                    retry=True,
                ) from error
            raise self.failure(_said(error), error_class="timeout", retry=True) from error
        except Exception as error:
            raise self.failure(_said(error), retry=True) from error


def cut_off(text: str, max_chars: int = TOOL_ERROR_MAX_CHARS) -> str:
    text = clean_text(text)  # a file's name may hold what no message can
    return text if len(text) <= max_chars else text[:max_chars] + "… (cut)"


def _said(error: BaseException) -> str:
    text = str(error)
    return cut_off(f"{type(error).__name__}: {text}" if text else type(error).__name__)

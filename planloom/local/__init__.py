"""Run a plan, a goal, an agent or a team in this process: no server, and nothing is durable.

    from planloom import local

    result = await local.run("trip.yaml", tools=[convert])

The same machines decide, and the same code calls tools and models, as in a run on a server. What is
missing is everything that a server gives: if this process ends, the run is gone, with what it paid
for. Capacity of pools is not shared with other processes, and nothing is cached.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from planloom.errors import Refused
from planloom.local.parts import LocalParts
from planloom.local.run import LocalRun
from planloom.planner.contract.results import OpenWait
from planloom.planner.contract.settings import Settings
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import JsonValue
from planloom.stream import RunEvent
from planloom.yaml_documents import read_document_text

__all__ = ["LocalParts", "LocalRun", "Stuck", "run", "run_sync", "start"]

PlanLike = Plan | Mapping[str, Any] | str | Path
Approve = bool | Callable[[OpenWait], bool | Awaitable[bool]]
Answer = Callable[[OpenWait], JsonValue | Awaitable[JsonValue]]


class Stuck(Refused):
    """The run waits for something that no callback gives; `waits` says what."""

    def __init__(self, waits: Sequence[OpenWait]) -> None:
        self.waits = list(waits)
        words = "; ".join(f"{w.kind}: {w.what}" for w in waits)
        super().__init__(
            f"the run waits, and nothing here can answer ({words}). Give approve=… or answer=… to "
            "local.run, or decide yourself with local.start.",
            "Stuck",
        )


def start(
    plan: PlanLike | None = None,
    *,
    tools: Sequence[Callable[..., Any]] = (),
    workspace: str | Path = ".",
    settings: Settings | None = None,
    environment: Mapping[str, str] | None = None,
    id: str = "local",
    **fields: Any,
) -> LocalRun:
    """Start a run in the event loop that runs now, and return its handle at once.

    `plan` is a plan, its document, or the path of a YAML or JSON file. Without one, name `goal`,
    `template`, `agent` or `team`. `fields` are the other fields of the request. `tools` come beside
    the built-in ones: tools, or typed functions that become tools. Models are called as a worker
    would call them, by `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `PLANLOOM_MODEL` or by `settings`.

    Raises:
        RunFailed: the request, or a plan in it, cannot be used; with all problems.
    """
    _require_loop()
    document = {n: _plain(v) for n, v in fields.items()}
    if plan is not None:
        document["plan"] = _document_of(plan)
    parts = LocalParts(tools, Path(workspace), settings, environment)
    return LocalRun(document, parts, id)


async def run(
    plan: PlanLike | None = None,
    *,
    approve: Approve | None = None,
    answer: Answer | None = None,
    on_event: Callable[[RunEvent], Any] | None = None,
    **more: Any,
) -> Any:
    """Run a plan to its end and give its result: `RunResult`, `AgentResult` or `TeamResult`.

    A large answer is whole in it. `approve` decides about plans and tasks that wait for approval:
    true, false, or a function of the `OpenWait`. `answer` gives the answer to a question. Both may
    be async. `on_event` hears everything that happens. See `start` for the rest.

    Raises:
        Stuck: the run waits for something that none of these gives.
        RunFailed: the request, or a plan in it, cannot be used; with all problems.
    """
    callbacks = {"approve": approve, "answer": answer, "on_event": on_event}
    for name, given in callbacks.items():
        is_fixed = name == "approve" and isinstance(given, bool)
        if not (given is None or is_fixed or callable(given)):
            raise TypeError(f"{name} is a function, found {given!r:.100}")
    started = start(plan, **more)
    left: set[Any] = set()
    try:
        async for event in started.stream():
            if on_event is not None:
                await _awaited(on_event(event))
            wait = event.wait if event.kind == "wait" else None
            if wait is not None and not await _decide(started, wait, approve, answer):
                left.add(wait.key)
            waits = await started.waits() if started.is_idle else []
            if waits and all(w.key in left for w in waits):
                raise Stuck(waits)
        return await started.result()
    finally:
        await started.close()


def run_sync(plan: PlanLike | None = None, **more: Any) -> Any:
    """`run` for plain scripts: it waits for the end. Inside a running event loop, await `run`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run(plan, **more))
    raise RuntimeError("an event loop runs here, as in a notebook: write await local.run(…)")


async def _decide(
    run: LocalRun, wait: OpenWait, approve: Approve | None, answer: Answer | None
) -> bool:
    """Whether a callback has decided."""
    if wait.kind == "approval" and approve is not None:
        is_yes = approve if isinstance(approve, bool) else await _awaited(approve(wait))
        decide = run.approve if is_yes else run.reject
        await decide(revision=wait.revision, task=wait.task, by="callback")
        return True
    if wait.kind == "human" and answer is not None:
        await run.answer(await _awaited(answer(wait)), task=wait.task, by="callback")
        return True
    return False


def _require_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        message = "no event loop runs here: call local.start in a coroutine, or use local.run_sync"
        raise RuntimeError(message) from None


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _document_of(plan: PlanLike) -> Any:
    if isinstance(plan, str | Path):
        try:
            text = Path(plan).read_text(encoding="utf-8")
        except FileNotFoundError:
            message = f'no plan file "{plan}"; a goal is given by its name: goal="…"'
            raise FileNotFoundError(message) from None
        return read_document_text(text).value  # JSON is YAML as well
    return _plain(plan)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return value

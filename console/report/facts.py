"""What a page about a run is made of, asked of the server and of the run itself."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from planloom import Client, NoWorker, Refused, Run, RunFailed
from planloom.console.mistakes import UsageError
from planloom.console.report.decisions import Decision, decisions_of
from planloom.console.this_run import ThisRun
from planloom.planner.contract.results import (
    RESULT_MODELS,
    AgentResult,
    Progress,
    RunResult,
    TeamResult,
)
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import Problem
from planloom.planner.syntax.documents import read_plan

Result = RunResult | AgentResult | TeamResult


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of the plan, and how it came to be."""

    number: int
    why: str
    by: str
    changes: list[str]
    plan: Plan


@dataclass(slots=True)
class RunFacts:
    """All that is known of a run, an agent or a team; `progress` and `result` may be missing."""

    id: str
    kind: str
    state: str
    """The server's word: RUNNING, COMPLETED, FAILED …"""
    started: datetime
    closed: datetime | None = None
    request: dict[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    result: Result | None = None
    failure: str = ""
    problems: list[Problem] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Each task's report, with its `state`."""
    usage: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    is_answered: bool = True
    """Whether a worker answered: without one only the server's part is known."""

    @property
    def is_over(self) -> bool:
        return self.state != "RUNNING"

    @property
    def plan(self) -> Plan | None:
        return self.revisions[-1].plan if self.revisions else None


async def facts_of(client: Client, id: str) -> RunFacts:
    """Everything about a run, now.

    Raises:
        NoSuchRun: no run of that id.
        UsageError: it is no run, agent or team.
    """
    return await facts_of_run(client, await ThisRun.of(client, id))


async def facts_of_run(client: Client, run: ThisRun) -> RunFacts:
    """The same of a run whose handle is at hand."""
    described = await run.described()
    kind = described.workflow_type
    if kind not in RESULT_MODELS:
        raise UsageError(f'"{run.id}" is a {kind}, not a run, agent or team')
    facts = RunFacts(
        id=run.id,
        kind=kind,
        state=described.status.name if described.status else "RUNNING",
        started=described.start_time.astimezone(),
        closed=described.close_time.astimezone() if described.close_time else None,
    )
    request = await run.request()
    facts.request = request if isinstance(request, dict) else {}
    facts.decisions = await decisions_of(client, run.id, described.run_id)
    await _ask(run, facts)
    return facts


async def live_facts(run: ThisRun, before: RunFacts) -> RunFacts:
    """The same run a moment later: what cannot have changed is not asked again."""
    described = await run.described()
    facts = RunFacts(
        id=before.id,
        kind=before.kind,
        state=described.status.name if described.status else "RUNNING",
        started=before.started,
        closed=described.close_time.astimezone() if described.close_time else None,
        request=before.request,
        decisions=before.decisions,
    )
    await _ask(run, facts)
    return facts


async def _ask(run: Run, facts: RunFacts) -> None:
    """All that can change while a run is in progress."""
    if facts.is_over and facts.state != "TERMINATED":
        await _ask_result(run, facts)
    await _ask_worker(run, facts)
    _fill_from_request(facts)


async def _ask_result(run: Run, facts: RunFacts) -> None:
    try:
        facts.result = await run.result_as(RESULT_MODELS[facts.kind])
    except RunFailed as error:
        facts.failure, facts.problems = str(error), error.problems


async def _ask_worker(run: Run, facts: RunFacts) -> None:
    """What only a worker can answer. An agent knows fewer questions than a run."""
    try:
        facts.progress = await run.progress()
    except NoWorker:
        facts.is_answered = False
        return
    except Refused:
        return
    revisions = await _answer(run.query("revisions"))
    for each in revisions or []:
        plan, _ = read_plan(each["plan"])
        if plan is not None:
            number, why, by = each["revision"], each["why"], each["by"]
            facts.revisions.append(Revision(number, why, by, each["changes"], plan))
    facts.tasks = await _answer(run.query("tasks")) or {}
    facts.usage = await _answer(run.query("usage")) or {}
    facts.estimate = await _answer(run.query("estimate")) or {}


async def _answer(question: Awaitable[Any]) -> Any:
    with contextlib.suppress(Refused):
        return await question
    return None


def _fill_from_request(facts: RunFacts) -> None:
    """Without a worker: the plan as it was requested, and the tasks of the result."""
    if not facts.revisions and isinstance(facts.request.get("plan"), dict):
        plan, _ = read_plan(facts.request["plan"])
        if plan is not None:
            facts.revisions.append(Revision(1, "requested", "", [], plan))
    if not facts.tasks and isinstance(facts.result, RunResult | TeamResult):
        facts.tasks = {
            task: row.model_dump(mode="json") | {"state": row.outcome.value}
            for task, row in facts.result.tasks.items()
        }

"""What a team shows of itself: its result, the query `progress`, search attributes, details."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.results import (
    JudgeReport,
    RunStatus,
    TeamResult,
    UsageReport,
    usage_report,
)
from planloom.workflows.machines.agent import host
from planloom.workflows.machines.agent.view import GOAL_MAX_CHARS, NOTES_SHOWN
from planloom.workflows.machines.run import view as run_view
from planloom.workflows.machines.run.finishing import shown_answer
from planloom.workflows.machines.shared.machine import Published
from planloom.workflows.machines.shared.page import markdown_page
from planloom.workflows.machines.team.members import report_of, said_of
from planloom.workflows.machines.team.plan import is_running, states_of_members
from planloom.workflows.machines.team.state import TeamState

COLUMNS = ("member", "role", "state", "attempts", "claim")


def result_of(team: TeamState, status: RunStatus, reason: str | None, now: float) -> TeamResult:
    """The result of a team that ends like this."""
    answer = team.answer
    planned = team.plan.result if team.plan is not None else None
    return TeamResult.model_validate(
        {
            "status": status,
            **({"tainted": True} if team.is_tainted else {}),
            "answer": shown_answer(answer),
            **({"answer_ref": answer} if answer is not None and not answer.is_inline else {}),
            "members": {name: report_of(m) for name, m in team.members.items()},
            "rounds": team.rounds,
            "judge": _judge_report(team),
            "tasks": planned.tasks if planned else {},
            "revision": planned.revision if planned else 0,
            "usage": _usage(team),
            "seconds": round(team.seconds(now), 3),
            "notes": team.notes,
            "reason": reason,
        }
    )


def _judge_report(team: TeamState) -> JudgeReport | None:
    judged = team.judgement
    if judged is None:
        return None
    return JudgeReport(
        verdict=judged.verdict,
        confidence=round(judged.confidence, 4),
        u_intra=round(judged.u_intra, 4),
        u_inter=round(judged.u_inter, 4),
        u_sys=round(judged.u_sys, 4),
        signals=list(judged.signals),
        reason=judged.reason,
        disagreements=team.disagreements,
    )


def _status(team: TeamState) -> str:
    if team.failed is not None:
        return "failed"
    return team.result.status if team.result else host.status_word(team, "running")


def _is_over(team: TeamState) -> bool:
    return team.result is not None or team.failed is not None


def _awaiting(team: TeamState) -> str | None:
    return None if _is_over(team) else host.awaiting(team)


def progress(team: TeamState, now: float) -> dict[str, Any]:
    """The answer of the query `progress`."""
    ended = team.failed or team.result
    shown: dict[str, Any] = {
        "status": _status(team),
        **host.shown_waits(team, now, is_over=_is_over(team)),
        "notes": team.notes[-NOTES_SHOWN:],
    }
    if team.plan is not None and is_running(team):
        shown = run_view.progress_of(team.plan, now).model_dump(mode="json")
    return shown | {
        "phase": team.phase,
        "members": states_of_members(team),
        "rounds": [r.model_dump(mode="json") for r in team.rounds],
        "usage": usage(team),
        "goal": team.request.task[:GOAL_MAX_CHARS],
        "reason": ended.reason if ended else None,
        "seconds": team.result.seconds if team.result else team.seconds(now),
    }


def usage(team: TeamState) -> dict[str, Any]:
    """The answer of the query `usage`."""
    return _usage(team).model_dump(mode="json")


def _usage(team: TeamState) -> UsageReport:
    """With the subtasks that were started: the run above has a cap of them too."""
    ledger = team.account.ledger
    return usage_report(team.used).model_copy(update={"tasks": ledger.settled.tasks})


def published(team: TeamState) -> Published:
    """What search attributes show."""
    if team.plan is not None and is_running(team):
        return run_view.published(team.plan)
    is_known = bool(team.catalog.search_attributes)
    shown = _status(team), _awaiting(team), _revision(team)
    return Published(*shown, team.request.tenant, is_known)


def _revision(team: TeamState) -> int | None:
    return team.plan.revision if team.plan is not None else None


def details(team: TeamState, now: float) -> str:
    """The current details: the members, and what each claims; of a plan that runs, its tasks."""
    if team.plan is not None and is_running(team):
        return run_view.details(team.plan, now)
    word = _status(team)
    head = f"**{word}**" + ("" if team.phase == word else f": {team.phase}")
    states = states_of_members(team)
    rows = []
    for name, member in team.members.items():
        said = said_of(member)
        claim = said.claim or said.summary
        rows.append((name, member.spec.role or "", states[name], str(member.attempts), claim))
    waits = [] if _is_over(team) else host.open_waits(team, now)
    return markdown_page(team.request.task, head, waits, COLUMNS, rows)

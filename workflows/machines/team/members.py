"""A member of a team: what its model is told of it, and what its last answer came to. Pure."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.requests import Lineage, TeamRequest
from planloom.planner.contract.results import usage_report
from planloom.planner.language.definitions import AgentSpec, MemberSpec, TeamSpec, granted_tools
from planloom.planner.language.values import Outcome, Stored
from planloom.workflows.machines.agent.state import Ended, Persona, Talk, talk_about
from planloom.workflows.machines.team.judge import Diagnostics
from planloom.workflows.machines.team.rounds import Said
from planloom.workflows.machines.team.state import Member


def system_of(team: TeamSpec, spec: MemberSpec) -> str:
    """Who a member is, as its model is told."""
    mission = f"You are {spec.id}, {spec.role or 'a member'} of a team."
    return "\n".join(t for t in (mission, team.description, spec.description, spec.system) if t)


def subtask_text(subtask: str, whole: str) -> str:
    return f"{subtask}\n\n(The team's whole task: {whole})"


def talk_of(team: TeamSpec, spec: MemberSpec, request: TeamRequest, lineage: Lineage) -> Talk:
    """The talk of a member that answers the team's task, or its own part of it."""
    persona = Persona(
        name=spec.id,
        spec=Stored(value={"system": system_of(team, spec)}),
        tools=tuple(granted_tools(spec.tools, request.tools)),
        model=spec.model,
        form="member",
        max_turns=request.max_turns,
        timeout=request.timeout,
        retry=request.retry,
    )
    talk = talk_about(persona, request, lineage)
    if spec.task:
        talk.task = Stored(value=subtask_text(spec.task, request.task))
    return talk


def agent_of(team: TeamSpec, spec: MemberSpec, request: TeamRequest) -> AgentSpec:
    """A member as the agent that does its subtasks."""
    return AgentSpec.model_validate(
        {
            "id": spec.id,
            "system": system_of(team, spec),
            "tools": granted_tools(spec.tools, request.tools),
            "model": spec.model,
        }
    )


def take_answer(member: Member, ended: Ended) -> None:
    """A new answer, or the failure to give one."""
    member.ended = ended
    member.attempts += max(1, ended.attempts)
    member.usage += ended.usage
    has_answer = ended.reply is not None and not ended.reply.problems
    if ended.status == "cancelled":
        member.outcome = Outcome.CANCELLED
    else:
        member.outcome = Outcome.SUCCEEDED if has_answer else Outcome.FAILED


def said_of(member: Member) -> Said:
    """What the others hear of it."""
    ended = member.ended
    fields = ended.reply.fields if ended and ended.reply else {}
    return Said(
        member.spec.id,
        member.spec.role,
        member.is_good,
        fields.get("SUMMARY", "") or (ended.reason or "" if ended else ""),
        fields.get("CLAIM", ""),
        fields.get("EVIDENCE", ""),
        fields.get("NEXT_STEP", ""),
    )


def confidence_of(member: Member) -> float | None:
    return member.ended.reply.confidence if member.ended and member.ended.reply else None


def diagnostics_of(member: Member) -> Diagnostics:
    """What the judge's formula is told of it."""
    reply = member.ended.reply if member.ended else None
    if not member.is_good or reply is None:
        return Diagnostics(is_failed=True, confidence=0.0)
    return Diagnostics(
        confidence=reply.confidence,
        evidence=reply.evidence,
        contradictions=reply.contradictions,
        conflicts=reply.conflicts,
    )


def report_of(member: Member) -> dict[str, Any]:
    """Its entry in the team's result."""
    ended = member.ended
    reply = ended.reply if ended else None
    text = member.text()
    shown: dict[str, Any] = {}
    if text is not None and text.is_inline:
        shown = {"output": text.value}
    elif text is not None:
        shown = {"preview": text.preview, "blob": text.blob}
    is_failed = ended is not None and not member.is_good
    return {
        "outcome": member.outcome or (Outcome.CANCELLED if member.has_part else Outcome.SKIPPED),
        "fields": dict(reply.fields) if reply is not None else {},
        "confidence": reply.confidence if reply is not None and member.is_good else None,
        "attempts": member.attempts,
        "recovered": member.is_recovered,
        "violations": list(reply.violations) if reply is not None else [],
        "error": ended.reason if is_failed and ended else None,
        "error_class": ended.error_class if is_failed and ended else None,
        **shown,
        "usage": usage_report(member.usage),
    }

"""What an agent shows of itself: its result, the query `progress`, search attributes, details."""

from __future__ import annotations

from typing import Any

from planloom.planner.contract.requests import AgentRequest
from planloom.planner.contract.results import AgentResult, usage_report
from planloom.workflows.machines.agent import host
from planloom.workflows.machines.agent.state import AgentState, Ended
from planloom.workflows.machines.shared.machine import Published
from planloom.workflows.machines.shared.page import markdown_page, plain

NOTES_SHOWN = 20
GOAL_MAX_CHARS = 1_000
"""A task may be a whole document; `progress` is asked for again and again."""


def name_of(request: AgentRequest) -> str:
    """What the agent is called: in activity ids, and when it asks a person."""
    return request.agent if isinstance(request.agent, str) else request.agent.id or "agent"


def result_of(state: AgentState, ended: Ended, now: float) -> AgentResult:
    """The result of an agent whose talk came out like this."""
    reply = ended.reply
    output = None
    if reply is not None:
        output = reply.text if reply.problems else reply.value or reply.text
    shown: dict[str, Any] = {"output": None}
    if output is not None and output.is_inline:
        shown = {"output": output.value}
    elif output is not None:
        shown = {
            "output": None,
            "output_ref": output,
            "preview": output.preview,
            "blob": output.blob,
        }
    diagnosis = None
    if reply is not None and state.lineage.form == "member":
        names = ("confidence", "violations", "evidence", "contradictions", "conflicts")
        diagnosis = {n: getattr(reply, n) for n in names}
    return AgentResult.model_validate(
        {
            "status": ended.status,
            **({"tainted": True} if state.is_tainted else {}),
            **shown,
            "fields": dict(reply.fields) if reply is not None else {},
            "turns": ended.turns,
            "tool_calls": ended.tool_calls,
            "usage": usage_report(state.used),
            "seconds": round(state.seconds(now), 3),
            "notes": state.notes,
            "reason": ended.reason,
            "error_class": ended.error_class,
            "transcript": ended.transcript.blob if ended.transcript else None,
            "diagnosis": diagnosis,
        }
    )


def _status(state: AgentState) -> str:
    if state.failed is not None:
        return "failed"
    return state.result.status if state.result else host.status_word(state, "running")


def _is_over(state: AgentState) -> bool:
    return state.result is not None or state.failed is not None


def _awaiting(state: AgentState) -> str | None:
    return None if _is_over(state) else host.awaiting(state)


def progress(state: AgentState, now: float) -> dict[str, Any]:
    """The answer of the query `progress`."""
    result, ended = state.result, state.failed or state.result
    return {
        "status": _status(state),
        **host.shown_waits(state, now, is_over=_is_over(state)),
        "usage": usage(state),
        "seconds": result.seconds if result else state.seconds(now),
        "goal": state.request.task[:GOAL_MAX_CHARS],
        "reason": ended.reason if ended else None,
        "notes": state.notes[-NOTES_SHOWN:],
    }


def usage(state: AgentState) -> dict[str, Any]:
    """The answer of the query `usage`."""
    return usage_report(state.used).model_dump(mode="json")


def published(state: AgentState) -> Published:
    """What search attributes show."""
    is_known = bool(state.catalog.search_attributes)
    return Published(_status(state), _awaiting(state), None, state.request.tenant, is_known)


def details(state: AgentState, now: float) -> str:
    """The current details: how far the agent is."""
    talk = state.talk
    told = f"**{_status(state)}**: agent {name_of(state.request)}"
    if talk is not None:
        told += f", {talk.ended.turns} turns, {talk.ended.tool_calls} tool calls"
    if state.result is not None and state.result.reason:
        told += f"; {plain(state.result.reason)}"
    waits = [] if _is_over(state) else host.open_waits(state, now)
    return markdown_page(state.request.task, told, waits)

"""Prints what a run, an agent or a team ended with: the answer to stdout, the rest to stderr."""

from __future__ import annotations

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from planloom.console.app import err, say, say_json
from planloom.console.views import as_text, result_table, times_line, usage_line
from planloom.planner.contract.results import AgentResult, RunResult, TeamResult

NOTES_SHOWN = 10
CLAIM_MAX_CHARS = 100


def print_any(result: RunResult | AgentResult | TeamResult, *, as_json: bool) -> int:
    """Whatever it is a result of; gives the exit code."""
    match result:
        case AgentResult():
            return print_agent(result, as_json=as_json)
        case TeamResult():
            return print_team(result, as_json=as_json)
        case RunResult():
            return print_result(result, as_json=as_json, err=err)


def print_result(result: RunResult, *, as_json: bool, err: Console) -> int:
    """The answer to stdout, the rest to stderr; gives the exit code (0 only when completed)."""
    if as_json:
        _print_json(result)
        return _exit_code(result.status)
    err.print(result_table(result, err.width))
    err.print(Text.assemble((result.status, "bold"), f" {times_line(result)}"), soft_wrap=True)
    err.print(usage_line(result), soft_wrap=True)
    if result.reason:
        err.print(f"reason: {result.reason}", markup=False, soft_wrap=True)
    for note in result.notes[:NOTES_SHOWN]:
        err.print(f"note: {note}", markup=False, soft_wrap=True)
    if result.answer is not None:
        say(as_text(result.answer))
    return _exit_code(result.status)


def print_agent(result: AgentResult, *, as_json: bool) -> int:
    """The agent's output to stdout; gives the exit code."""
    if as_json:
        _print_json(result)
        return _exit_code(result.status)
    if result.reason:
        err.print(f"reason: {result.reason}", markup=False, soft_wrap=True)
    err.print(f"{result.status}: {result.turns} turns, {result.tool_calls} tool calls")
    if result.blob:
        say(as_text({"preview": result.preview, "blob": result.blob}))
    elif result.output is not None:
        say(as_text(result.output))
    return _exit_code(result.status)


def print_team(result: TeamResult, *, as_json: bool) -> int:
    """The team's answer to stdout, its members and its judge to stderr; gives the exit code."""
    if as_json:
        _print_json(result)
        return _exit_code(result.status)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("member", "outcome", "confidence", "claim"):
        table.add_column(column)
    for name, member in result.members.items():
        claim = str(member.fields.get("CLAIM", "")) or (member.error or "")
        sure = "" if member.confidence is None else f"{member.confidence:.2f}"
        table.add_row(Text(name), member.outcome.value, sure, Text(claim[:CLAIM_MAX_CHARS]))
    err.print(table)
    if result.judge is not None:
        judge = result.judge
        err.print(
            f"verdict: {judge.verdict} ({judge.confidence:.2f}): {judge.reason}", markup=False
        )
        for line in judge.disagreements:
            err.print(f"  disagreement: {line}", markup=False, soft_wrap=True)
    if result.reason:
        err.print(f"reason: {result.reason}", markup=False, soft_wrap=True)
    if result.answer is not None:
        say(as_text(result.answer))
    return _exit_code(result.status)


def _print_json(result: BaseModel) -> None:
    say_json(result.model_dump(mode="json"))


def _exit_code(status: str) -> int:
    return 0 if status == "completed" else 1

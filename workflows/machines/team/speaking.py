"""Who speaks when: first answers, communication rounds, and another try for those that failed.

Within the limit all speak at once, or one after another. Each round reads what was said before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from planloom.planner.contract.results import RoundReport
from planloom.planner.language.values import Outcome, Stored
from planloom.workflows.machines.agent import talk
from planloom.workflows.machines.agent.state import Doing
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.member_retry import may_retry
from planloom.workflows.machines.team.members import confidence_of, said_of, take_answer
from planloom.workflows.machines.team.rounds import context_for, is_consensus
from planloom.workflows.machines.team.state import Member, Stage, TeamState

HEARD_NAMES_MAX = 20_000
"""Names in the reports of who heard whom: they are part of the state and of the result."""


def begin_initial(team: TeamState) -> None:
    """Every member's first answer, to its own part or the same task."""
    team.stage = Stage.INITIAL
    team.queue = list(team.members)
    team.rounds.append(RoundReport(round=0, kind="initial", members=list(team.members)))


def begin_communication(team: TeamState, number: int) -> bool:
    """The round in which all that have an answer hear each other; False when there is none."""
    request = team.request
    rounds = request.rounds
    if team.is_planned and "rounds" not in request.model_fields_set:
        rounds = 0  # subtasks differ: there is nothing to agree on unless it is asked for
    good = [m for m in team.members.values() if m.is_good]
    if number > rounds or len(good) < 2:
        return False
    said = [said_of(m) for m in team.members.values()]
    is_agreed = number > 1 and is_consensus(said, [confidence_of(m) for m in good])
    if request.consensus and is_agreed:
        team.note(f"consensus after round {number - 1}")
        return False
    team.stage, team.number = Stage.COMMUNICATION, number
    _begin_round(team, number, good, "communication")
    return True


def begin_retry(team: TeamState, number: int) -> bool:
    """Failed members once more, unless what failed them would again; False when there are none."""
    if len(team.members) < 2 or number > team.request.retry_rounds or team.plan is not None:
        return False
    failed = [
        m for m in team.members.values() if m.outcome is Outcome.FAILED and _may_retry(m, number)
    ]
    if not failed:
        return False
    team.stage, team.number = Stage.RETRY, number
    team.retried = [m.spec.id for m in failed]
    _begin_round(team, team.request.rounds + number, failed, "retry")
    return True


def end_retry(team: TeamState) -> None:
    """Members that have an answer now have recovered."""
    for name in team.retried:
        team.members[name].is_recovered = team.members[name].is_good
    team.retried = []


def _may_retry(member: Member, number: int) -> bool:
    ended = member.ended
    return ended is None or may_retry(ended.error_class, ended.reason, number)


def _begin_round(
    team: TeamState,
    number: int,
    members: Sequence[Member],
    kind: Literal["communication", "retry"],
) -> None:
    names = [m.spec.id for m in members]
    team.said = {n: said_of(m) for n, m in team.members.items() if m.ended is not None}
    heard = {n: team.links.get(n, []) for n in names}
    listed = sum(len(h) for r in team.rounds for h in r.heard.values())
    if listed + sum(map(len, heard.values())) > HEARD_NAMES_MAX:
        heard = {}
        if any(r.heard for r in team.rounds[-1:]):
            team.note(f"round {number} and later: who heard whom is as in the rounds before")
    team.rounds.append(RoundReport(round=number, kind=kind, heard=heard, members=names))
    team.queue = names


def take_turns(team: TeamState, step: Step) -> bool:
    """Take what has been said, and let the next speak; whether the round is over."""
    for name, member in team.members.items():
        if member.is_speaking and team.talks[name].doing is Doing.NOTHING:
            member.is_speaking = False
            take_answer(member, team.talks[name].ended)
    speaking = sum(m.is_speaking for m in team.members.values())
    while team.queue and speaking < team.speakers_max:
        name = team.queue.pop(0)
        team.members[name].is_speaking = True
        speaking += 1
        heard = _heard(team, name)
        if heard is not None and team.is_tainted:
            team.talks[name].is_tainted = True  # the others tell it what they saw
        talk.say(team, team.talks[name], heard, step)
    return speaking == 0


def _heard(team: TeamState, name: str) -> Stored | None:
    """What a member is told before it speaks in a round after the first."""
    if team.stage is Stage.INITIAL:
        return None
    number = team.rounds[-1].round
    return Stored(value=context_for(name, team.links.get(name, []), team.said, number))


def stop_speaking(team: TeamState) -> None:
    """The team was cancelled: whoever had an answer keeps it."""
    team.queue = []
    for name, member in team.members.items():
        if not member.is_speaking:
            continue
        member.is_speaking = False
        ended = team.talks[name].ended
        if member.ended is None:
            take_answer(member, ended)
        else:
            member.attempts += ended.attempts
            member.usage += ended.usage

"""Watches agents and teams: their talks, questions and calls; of a team on a graph, its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from planloom.planner.contract.names import ASK_HUMAN
from planloom.planner.contract.results import TeamResult
from planloom.planner.language.values import JsonValue, Usage
from planloom.workflows.machines.agent import host
from planloom.workflows.machines.agent.calling import usage_of
from planloom.workflows.machines.agent.state import Doing, Host, Rule, Talk
from planloom.workflows.machines.agent.talk import REPAIRS_MAX
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared import permit
from planloom.workflows.machines.shared.commands import Command, RunTool, TakeTurn, Tell
from planloom.workflows.machines.shared.events import Broke, Event, Returned
from planloom.workflows.machines.team.state import TeamState
from tests.simulation.invariants import check_invariants
from tests.simulation.times import check_end_of_time, check_limits
from tests.simulation.violation import demand
from tests.simulation.watcher import PAID, Watcher

NEVER_AGAIN = {"rate_limit", "capacity", "auth", "refused", "cancelled", "context_length"}
"""Why a member failed that is not asked again: it would meet the same."""


@dataclass(slots=True)
class HostOracle(Watcher):
    """Checks of an agent or a team."""

    told: Usage = field(default_factory=Usage)
    """What its own calls said they used."""
    told_by: dict[str, Usage] = field(default_factory=dict)
    """What the turns of each talk said they used."""
    answered: dict[str, set[str]] = field(default_factory=dict)
    """Calls that have a person's answer, by talk."""
    given: dict[str, list[JsonValue]] = field(default_factory=dict)
    """Answers that no call was seen to have yet, by talk, in their order."""
    was_held: bool = False
    keys: set[str] = field(default_factory=set)
    """Keys of tool calls: each call is another act."""

    @property
    def host(self) -> Host:
        found: Host = self.process.state
        return found

    @property
    def plan(self) -> RunState | None:
        """The plan of a team on a graph, while it runs."""
        plan: RunState | None = getattr(self.host, "plan", None)
        is_running = plan is not None and getattr(self.host, "plan_end", None) is None
        return plan if is_running and not self._is_over() else None

    def _is_over(self) -> bool:
        return self.process.machine.ended(self.host) is not None

    # -- around a step ----------------------------------------------------------------------

    def before(self, event: Event) -> None:
        if isinstance(event, Returned | Broke) and event.key in self.host.pending:
            self.told += usage_of(event)
            what = self.host.pending[event.key]
            if what.rule is Rule.TURN:
                so_far = self.told_by.get(what.talk, Usage())
                self.told_by[what.talk] = so_far + usage_of(event)
        self.was_watched = self.plan is not None
        self.was_held = self.host.is_paused or self.host.is_long or self.host.is_cancelled
        Watcher.before(self, event)

    def control_taken(self, name: str, payload: Any) -> None:
        if name == "complete_task" and self.plan is None:
            self.given.setdefault(payload.id, []).append(payload.output)

    def after(self, event: Event, commands: Sequence[Command]) -> None:
        found, plan = self.host, self.plan
        if not self._is_over():
            self._check_timers(plan)
            self.check_pending([*found.pending, *(plan.pending if plan else ())])
        both = set(found.pending) & set(found.waiting)
        demand(not both, "a call is in flight or waits, not both", both)
        if plan is not None:
            check_invariants(plan)
            self.check_time(plan)
            self.check_dropped(event, commands)
            demand(plan.is_paused == found.is_paused, "a plan is paused with its team")
            self.given.clear()  # what came early is the plan's now
        else:
            self._check_budget()
        for talk in found.talks.values():
            self._check_talk(talk)
            self._check_answers(talk)
        for name in getattr(found, "retried", ()):
            self._check_retried(name)
        is_held = found.is_paused or found.is_long or found.is_cancelled
        if self.was_held and is_held and plan is None:
            made = [c for c in commands if isinstance(c, PAID)]
            demand(not made, "nothing is called while it is paused", made)
            wanted = [c for c in commands if isinstance(c, Tell) and c.signal == "grant_wanted"]
            demand(not wanted, "what cannot be used is not asked for", wanted)
        if self.is_late and plan is None:
            made = [c for c in commands if isinstance(c, PAID)]
            demand(not made, "nothing is called once the time is over", made)
        limit = self.process.state.request.timeout
        for turn in [c for c in commands if isinstance(c, TakeTurn)]:
            demand(turn.timeout == limit, "a time limit goes with its call", turn.key)
        Watcher.after(self, event, commands)

    def _check_timers(self, plan: RunState | None) -> None:
        found = self.host
        timers = {permit.KEY: found.renew_at} if found.renew_at is not None else {}
        if plan is not None:
            timers |= {key: at for key, (at, _) in plan.timers.items()}
            check_limits(plan, self.process)
        self.check_timers(timers)
        check_end_of_time(found.account, self.process.world.now)

    def _check_budget(self) -> None:
        found = self.host
        ledger = found.account.ledger
        is_same = set(found.waiting) == set(found.account.parked)
        demand(is_same, "who is parked waits", found.waiting)
        demand(set(ledger.reserved) <= set(found.pending), "a reservation has an owner", ledger)
        if getattr(found, "plan", None) is None:
            left = (ledger.usage.tokens, ledger.usage.usd_nano, ledger.usage.model_calls)
            right = (self.told.tokens, self.told.usd_nano, self.told.model_calls)
            demand(left == right, "what was told is counted", left, right)

    def _check_talk(self, talk: Talk) -> None:
        most = talk.persona.max_turns + REPAIRS_MAX
        demand(talk.ended.turns <= most, "a talk is bounded in turns", talk.name)
        asked = self.host.questions.open.get(talk.name)
        if asked is not None:
            waits = [c for c in talk.calls if c.key == asked.key and c.result is None]
            demand(waits, "a question is of a call that waits", talk.name)
        if talk.doing is Doing.CALLS:
            for call in talk.calls:
                keys = (*self.host.pending, *self.host.waiting, *self._asked(talk.name))
                is_there = call.result is not None or call.key in keys
                demand(is_there, "a call has a result, or is at work", call.key)

    def _check_answers(self, talk: Talk) -> None:
        """The first answer belongs to the first question, also when it came before it."""
        seen = self.answered.setdefault(talk.name, set())
        for call in talk.calls:
            result = call.result.output if call.result is not None else None
            is_asked = call.call.name == ASK_HUMAN and ASK_HUMAN in talk.persona.tools
            if not is_asked or call.key in seen or result is None or not result.is_inline:
                continue
            seen.add(call.key)
            # Questions that were answered as soon as they were asked are not seen here.
            given = self.given.get(talk.name, [])
            demand(result.value in given, "answers keep their order", call.key, given)
            del given[: given.index(result.value) + 1]

    def _check_retried(self, name: str) -> None:
        """Who is asked again, and why it failed."""
        team: Any = self.host
        ended = team.members[name].ended
        if ended is None or not team.members[name].is_speaking:
            return
        words = ended.reason or ""
        is_final = ended.error_class in NEVER_AGAIN and "503" not in words
        demand(not is_final, "what would fail again is not asked again", name, ended.error_class)
        is_late = ended.error_class == "timeout" and team.number > 1
        demand(not is_late, "a time-out is tried again once", name)

    def _asked(self, name: str) -> list[str]:
        questions = self.host.questions
        waiting = questions.waiting.get(name, [])
        return [q.key for q in (questions.open.get(name), *waiting) if q is not None]

    def tool_sent(self, command: RunTool) -> None:
        key = command.job.key
        # A task of a plan that is tried again is the same act.
        is_new = key not in self.keys or self.plan is not None
        demand(is_new, "another call is another act", key)
        self.keys.add(key)
        Watcher.tool_sent(self, command)

    # -- queries, and the end ---------------------------------------------------------------

    def queries(self, now: float) -> None:
        machine: Any = self.process.machine
        machine.progress(self.host, now)
        machine.usage(self.host)
        if not self._is_over():
            host.open_waits(self.host, now)
        Watcher.queries(self, now)

    def finished(self) -> None:
        for state in self.process.states():
            if isinstance(state, TeamState) and state.plan is not None:
                # Of a plan that has ended it stays as it was where the state was read back.
                state.plan.account = state.account
        Watcher.finished(self)

    def ended(self) -> None:
        found = self.host
        left = {k: w for k, w in found.pending.items() if w.rule is not Rule.STORED}
        demand(not left, "nothing is pending at the end", left)
        demand(found.permit is None, "the room goes back at the end", found.permit)
        self._check_members()
        Watcher.ended(self)

    def _check_members(self) -> None:
        """A member used what its turns used, and its subtasks."""
        result = self.process.machine.ended(self.host)
        if not isinstance(result, TeamResult):
            return
        plan: RunState | None = getattr(self.host, "plan", None)
        for name, report in result.members.items():
            wanted = self.told_by.get(name, Usage()).tokens
            for task, record in plan.records.items() if plan is not None else ():
                wanted += record.usage.tokens if plan.tasks[task].agent == name else 0
            is_same = report.usage.tokens == wanted
            demand(is_same, "a member's usage is what it was paid for", name, report.usage, wanted)

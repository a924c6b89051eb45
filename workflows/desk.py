"""What all conversations of one workflow share: catalog, budget, pause, questions to people."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, SearchAttributeKey, SearchAttributeUpdate

from planloom.planner.contract.controls import (
    ChildAsks,
    CompleteTask,
    GrantWanted,
    Nothing,
    RaiseBudget,
    Reply,
)
from planloom.planner.contract.names import BUDGET_EXCEEDED
from planloom.planner.contract.requests import PARALLEL_DEFAULT, Common, Role
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.values import JsonValue, Usage
from planloom.workflows.clock import Clock
from planloom.workflows.controls import Control, Refusal
from planloom.workflows.machines.shared.budget import Amount, Ledger, caps_from
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import raise_if_cancelled
from planloom.workflows.shell.pools import priority_of

CONVERSATION_NOTES_MAX = 100


class Desk:
    """One run's desk. `reserve` parks at the cap; `controls` are its signals and updates."""

    def __init__(self, request: Common, started: datetime, is_team: bool = False) -> None:
        self.request = request
        self.started = started
        self.is_team = is_team
        self.catalog = Catalog()
        self.is_paused = False
        self.room_wait: str | None = None
        """The room in a pool that all of it waits for."""
        self.lack: str | None = None
        """What the budget lacks, in words; the run is parked while it is set."""
        self.questions: dict[str, str] = {}
        self.answers: dict[str, JsonValue] = {}
        self.notes: list[str] = []
        self.ledger = Ledger(caps_from(request.budget, request.lineage.grant))
        self.clock = Clock(started, request.budget.seconds, request.lineage.deadline)
        self.parallel = request.budget.parallel or PARALLEL_DEFAULT
        self.on_change: Callable[[], None] = _nothing
        self.controls = self._controls()
        self._asked_at: Amount | None = None
        self._published: tuple[Any, ...] = ()

    # -- what is known ----------------------------------------------------------------------

    @property
    def used(self) -> Usage:
        return self.ledger.usage

    @property
    def has_token_cap(self) -> bool:
        return self.ledger.caps.tokens is not None

    def now(self) -> float:
        """Seconds since the run started."""
        return (workflow.now() - self.started).total_seconds()

    def note(self, text: str) -> None:
        if len(self.notes) < CONVERSATION_NOTES_MAX:
            self.notes.append(text)

    def model_for(self, role: Role, named: str | None = None) -> str | None:
        asked = named or self.request.model_for(role)
        return asked or self.catalog.models.get(role) or self.catalog.models.get("worker") or None

    def place(self, name: str, summary: str) -> doors.Place:
        """Where a call of this workflow is shown; its pool gives the queue."""
        return doors.Place("", name, summary, self.priority)

    @property
    def priority(self) -> Priority:
        return priority_of(self.request.priority, self.request.tenant, self.catalog)

    @property
    def awaiting(self) -> str | None:
        if self.room_wait:
            return "capacity"
        if self.lack:
            return "budget"
        return "human" if self.questions else None

    def awaiting_detail(self) -> str | None:
        if self.room_wait or self.lack:
            parked = f"The run is parked: {self.lack}. raise_budget lets it go on."
            return self.room_wait or parked
        return "; ".join(f"{n}: {q}" for n, q in self.questions.items()) or None

    def status_word(self, phase: str) -> str:
        """The status that `progress` and the search attributes show."""
        return "paused" if self.is_paused else "waiting" if self.awaiting else phase

    def wait_for_room(self, why: str | None) -> None:
        self.room_wait = why
        self.on_change()

    def show(self, word: str) -> None:
        """Search attributes, where the server knows them."""
        now = (word, self.awaiting)
        known = self.catalog.search_attributes
        if now == self._published or not known:
            return
        updates: list[SearchAttributeUpdate[Any]] = []
        if "PlanloomStatus" in known:
            updates.append(SearchAttributeKey.for_keyword("PlanloomStatus").value_set(word))
        if "PlanloomAwaiting" in known:
            key = SearchAttributeKey.for_keyword_list("PlanloomAwaiting")
            updates.append(key.value_set([self.awaiting] if self.awaiting else []))
        if "PlanloomTenant" in known and self.request.tenant and not self._published:
            tenant = SearchAttributeKey.for_keyword("PlanloomTenant")
            updates.append(tenant.value_set(self.request.tenant))
        self._published = now
        if updates:
            workflow.upsert_search_attributes(updates)

    # -- the budget -------------------------------------------------------------------------

    async def reserve(self, key: str, want: Amount, least: Amount) -> Amount | None:
        """Set an amount aside; at the cap, park until there is room.

        None when the run is to end there instead (`on_budget: partial`); `lack` says why.
        """
        while True:
            raise_if_cancelled()
            await workflow.wait_condition(lambda: not self.is_paused)
            seconds = self.clock.lack()
            granted = None if seconds else self.ledger.reserve(key, want, least)
            if granted is not None:
                self.ledger.check()
                self.lack = None
                return granted
            # Looked at before anybody is asked for more, as the answer may come meanwhile.
            before = self._room()
            if seconds or not self.ledger.reserved:
                self.lack = seconds or self.ledger.shortfall(least)
                if not await self._may_wait(least, bool(seconds)):
                    return None
                raise_if_cancelled()
                self.on_change()
            await workflow.wait_condition(lambda before=before: self._room() != before)  # type: ignore[misc]
            self.lack = None
            self.on_change()

    def _room(self) -> tuple[Any, ...]:
        """What has to change before a reservation that was refused may be granted."""
        return self.ledger.caps, len(self.ledger.reserved), self.clock.ends_at

    def may_reserve_now(self, key: str, want: Amount, least: Amount) -> bool:
        """Set an amount aside if there are time and room; for what can be done without."""
        return self.clock.lack() is None and bool(self.ledger.reserve(key, want, least))

    async def _may_wait(self, least: Amount, is_time: bool) -> bool:
        """Whether somebody can give more: the parent whose grant is used up, or a person."""
        request = self.request
        parent, grant, own = request.lineage.parent, request.lineage.grant, request.budget
        if is_time and not self.clock.is_own_over():
            return True  # the parent has parked too, or cancels this run
        if parent is None:
            return (request.budget.on_budget or request.on_budget) == "park"
        if is_time or grant is None or own.tokens is not None or own.usd is not None:
            return False  # a cap of the task's own, and nobody watches a child
        if self._asked_at != self.ledger.settled:
            self._asked_at = self.ledger.settled
            me = workflow.info().workflow_id
            wanted = GrantWanted(
                child=me,
                name=me.removeprefix(f"{parent}/"),
                tokens=least.tokens,
                usd_nano=least.usd_nano,
            )
            await _told(parent, "grant_wanted", wanted)
        return True

    def settle(self, key: str, usage: Usage) -> None:
        """Replace a reservation by what was used; nothing used gives it back."""
        self.ledger.settle(key, usage)
        self.ledger.check()

    # -- people -----------------------------------------------------------------------------

    async def ask_person(self, name: str, question: str) -> JsonValue:
        """An answer by `complete_task {id: name, output}`; one question of a name at a time."""
        while name in self.questions:  # two may wake at once
            await workflow.wait_condition(lambda: name not in self.questions)
        self.questions[name] = question
        self.on_change()
        await self._tell_parent(name, question)
        try:
            await workflow.wait_condition(lambda: name in self.answers)
        finally:
            self.questions.pop(name, None)
        # Before another question of the name may be asked: it is not the answer to that one.
        answer = self.answers.pop(name)
        self.on_change()
        await self._tell_parent(name, None)
        return answer

    async def _tell_parent(self, name: str, question: str | None) -> None:
        """The run that this is a part of shows the question, and can be answered in our place."""
        parent = self.request.lineage.parent
        if parent is None:
            return
        me = workflow.info().workflow_id
        task = me.removeprefix(f"{parent}/")
        # A team's members are told apart; an agent is known by its task.
        key = f"{task}.{name}" if self.is_team else task
        asks = ChildAsks(child=me, name=name, key=key, question=question)
        await _told(parent, "child_asks", asks)

    def _controls(self) -> dict[str, Control[Any]]:
        table: list[Control[Any]] = [
            Control("pause", Nothing, lambda _: None, self._pause),
            Control("resume", Nothing, lambda _: None, self._resume),
            Control("complete_task", CompleteTask, self._check_answer, self._answer),
            Control("raise_budget", RaiseBudget, self._check_raise, self._raise),
        ]
        return {control.name: control for control in table}

    async def _pause(self, _: Nothing) -> Reply:
        self.is_paused = True
        self.on_change()
        return Reply(message="paused")

    async def _resume(self, _: Nothing) -> Reply:
        self.is_paused = False
        self.on_change()
        return Reply(message="running")

    def _check_answer(self, answer: CompleteTask) -> str | None:
        if answer.id in self.questions and answer.id not in self.answers:
            return None
        waiting = ", ".join(self.questions) or "none"
        return f'complete_task: "{answer.id}" asks nothing. Waiting: {waiting}'

    async def _answer(self, answer: CompleteTask) -> Reply:
        self.answers[answer.id] = answer.output
        return Reply(message=f"{answer.id} is answered")

    def _check_raise(self, r: RaiseBudget) -> Refusal | str | None:
        if not r.model_dump(exclude={"by"}, exclude_none=True):
            return 'raise_budget: name at least one cap, for example {"tokens": 60000}'
        problem = self.ledger.problem_with(r)
        if r.seconds is not None and r.seconds <= self.now():
            problem = f"seconds {r.seconds:g} is below the {self.now():.0f} that have passed"
        return Refusal(f"raise_budget: {problem}", BUDGET_EXCEEDED) if problem else None

    async def _raise(self, r: RaiseBudget) -> Reply:
        self.ledger.raise_caps(r)
        if r.seconds is not None:
            self.clock.cap = r.seconds
        self.parallel = r.parallel or self.parallel
        given = r.model_dump(exclude={"by"}, exclude_none=True)
        caps = ", ".join(f"{k} {v:g}" for k, v in given.items())
        if r.by != "parent":
            self.note("budget raised" + (f' by "{r.by}"' if r.by else "") + f": {caps}")
        return Reply(message=f"caps: {caps}")


async def _told(parent: str, signal: str, payload: Any) -> None:
    # To cancel a signal that is on its way fails the workflow task for ever.
    await asyncio.shield(doors.tell(parent, signal, payload))


def _nothing() -> None:
    return

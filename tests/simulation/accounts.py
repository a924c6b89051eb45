"""What the units of a run used, and how many ran: counted from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from planloom.planner.contract.groups import UnitEnd
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.values import Outcome, TaskId, Usage
from planloom.planner.walk.frontier import State
from planloom.planner.walk.group import begin_walk, name_of
from planloom.workflows.machines.run.batches import is_batch, size_of
from planloom.workflows.machines.run.children import usage_from_report
from planloom.workflows.machines.run.state import Doing, Question, Rule, RunState, Work
from planloom.workflows.machines.shared.commands import Command, RunGroup
from planloom.workflows.machines.shared.events import Broke, Event, Failure, Returned
from tests.simulation.violation import demand

BODY = "#body"


@dataclass(slots=True)
class Accounts:
    """Of one run."""

    spent: dict[str, Usage] = field(default_factory=dict)
    """What bodies said they used, by task."""
    begun: dict[str, bool] = field(default_factory=dict)
    """Units at work: whether anything was sent or asked for them."""
    ran: int = 0
    """Units that ran, with what ran inside them."""
    unseen: int = 0
    """Human tasks that may have been asked and answered early in one step: those count."""
    group: dict[TaskId, UnitEnd] = field(default_factory=dict)
    """What a group reports by the newest event of its members, by name."""
    reply_of: str = ""
    """The group whose report the newest event is: a member that is not in it has not run."""
    outside: Usage = field(default_factory=Usage)
    """What planner and joiner said they used."""
    is_estimated: bool = False
    asked: dict[str, int] = field(default_factory=dict)
    """Questions that were seen open, by task."""
    had_cap: bool = False
    attempts: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    """Of the tasks of units at work: one that is changed meanwhile has a new record."""

    def before(self, run: RunState, event: Event) -> None:
        """Count what the end of a body tells."""
        self.group, self.reply_of = {}, ""
        if not isinstance(event, Returned | Broke):
            return
        pending = run.pending.get(event.key)
        found = event.value if isinstance(event, Returned) else event.failure
        if pending is not None and pending.rule in (Rule.PLAN, Rule.JOIN, Rule.SUMMARY):
            self.is_estimated |= isinstance(found, Failure) and found.is_cancelled
            self.outside += found.usage
        if pending is not None and pending.rule is Rule.GROUP and isinstance(event, Returned):
            members, self.reply_of = run.groups[event.key].members, event.key
            self.group = {n: e for e in found.ends if (n := name_of(e)) in members}
        if pending is not None and pending.rule is Rule.CHILD_LOOK and isinstance(found, str):
            child = run.children.get(pending.subject)
            is_gone = child is not None and found != "RUNNING"  # and reports nothing
            pending = run.pending.get(child.key) if is_gone else None
            found = Failure("it is gone", "unknown")
        if pending is None or pending.rule is not Rule.BODY:
            return
        unit = run.works[pending.subject].unit
        task = unit.task
        match found:
            case TaskOutput():
                usage, inner = found.usage, 0
            case Failure():
                usage, inner = found.usage, found.tasks - 1
            case _:
                usage, inner = usage_from_report(found.usage), found.usage.tasks
        if is_batch(run, unit):  # no task beside its items
            lost = isinstance(found, Failure) and not found.is_cancelled
            inner = (size_of(run, unit) if lost else inner) - 1
        self.spent[task] = self.spent.get(task, Usage()) + usage
        self.ran += inner

    def after(
        self,
        run: RunState,
        works: dict[str, Work],
        states: dict[TaskId, State | Outcome],
        questions: dict[str, Question],
        commands: Sequence[Command],
    ) -> None:
        """Count what has begun and ended; the rest is what was before the step."""
        ended = [k for k in self.begun if works.get(k) is not run.works.get(k) and k in works]
        for key in ended:
            has_run = self.begun.pop(key) and self._has_run(run, key, works[key])
            self.versions.pop(key)
            self.ran += has_run
            self.unseen += not has_run and _may_ask(run, key.partition("[")[0])
        for key, work in run.works.items():
            self.begun.setdefault(key, bool(work.group))
            self.versions.setdefault(key, run.records[work.unit.task].version)
        for command in commands:
            # One that was started and called off in the same step counts as any that was sent.
            if isinstance(command, RunGroup) and not run.groups[command.key].members:
                self.ran += len(list(begin_walk(command.job).frontier.waiting_units()))
        followers = [n for n in self.group if n not in works]
        self.ran += sum(1 for n in followers if self._has_followed(run, n))
        for command in commands:
            key = getattr(command, "key", "")
            if key.endswith(BODY) and key.removesuffix(BODY) in self.begun:
                self.begun[key.removesuffix(BODY)] = True
        for key, question in run.questions.items():
            if questions.get(key) is not question:
                self.begun[key] = True
                name = run.works[key].unit.task
                self.asked[name] = self.asked.get(name, 0) + 1
        for work in run.works.values():
            if work.doing is Doing.STORING:  # it was answered as soon as it was asked
                self.asked.setdefault(work.unit.task, 1)
        names = {k.partition("[")[0] for k in ended}
        for task, record in run.records.items():
            mark = f"{task}.v{record.version}"
            more = record.attempts - self.attempts.get(mark, 0)
            self.attempts[mark] = record.attempts
            is_over = isinstance(record.outcome, Outcome)
            if is_over and task not in names and _may_ask(run, task):
                has_ended = record.outcome is not states.get(task)
                self.unseen += max(more, has_ended * (1 + len(record.item_outcomes)))
        self.had_cap = self.had_cap or run.account.ledger.caps.tasks is not None
        self._check(run)

    def _has_run(self, run: RunState, key: str, work: Work) -> bool:
        """Whether a unit that is at work no more has run; one that a group gave back has not."""
        if not work.group:
            return True
        record, index = run.records[work.unit.task], work.unit.index
        if record.version != self.versions[key]:
            return True  # it was changed while it was at work: nobody says how far it came
        outcome = record.outcome if index is None else record.item_outcomes[index]
        end = self.group.get(TaskId(key))
        if outcome is None or key in record.again:
            # Given back; or it has failed, and another round begins in the same step.
            return end is not None and end.has_begun and end.alone_in is None
        has_begun = end is not None and end.has_begun
        return has_begun or (outcome is Outcome.CANCELLED and work.group != self.reply_of)

    def _has_followed(self, run: RunState, name: TaskId) -> bool:
        """Whether a task ran in a group, after others: it was at work at no time between steps."""
        end = self.group[name]
        record = run.records[end.task]
        if record.outcome is Outcome.CANCELLED:
            # It was at work for a moment if it was not called off before it was looked at.
            has_followed = record.ready is not None and name not in record.again
            return has_followed and end.alone_in is not None
        return end.alone_in is None and end.has_begun and record.outcome is not None

    def _check(self, run: RunState) -> None:
        for task, record in run.records.items():
            told, known = self.spent.get(task, Usage()), record.usage
            # Less where it was taken out of the plan, and came back in other words.
            is_known = known.tokens <= told.tokens and known.usd_nano <= told.usd_nano
            demand(is_known, "a task's usage is what its bodies used", task, known, told)
        total, whole = self.outside, run.account.ledger.usage
        for spent in self.spent.values():
            total += spent
        # A planner that was called off says nothing: what it was paid is estimated.
        is_same = (total.tokens, total.usd_nano) == (whole.tokens, whole.usd_nano)
        demand(is_same or self.is_estimated, "what was told is counted", total, whole)

    def ended(self, run: RunState) -> None:
        """Raises:
        Violation: more or fewer tasks are counted than ran, or attempts of what was not asked.
        """
        for name, record in run.records.items():
            task = run.tasks[name]
            if task.human is None or task.when or task.map is not None or task.fallback_body:
                continue
            has_answer = record.outcome is not None and record.outcome.is_good
            most = self.asked.get(name, 0) + has_answer
            demand(record.attempts <= most, "what was not asked uses up no attempt", name, record)
        if self.had_cap:
            return
        counted = run.account.ledger.settled.tasks
        is_right = self.ran <= counted <= self.ran + self.unseen
        demand(is_right, "every task that ran is counted once", counted, self.ran, self.unseen)


def _may_ask(run: RunState, name: TaskId) -> bool:
    task = run.tasks.get(name)
    bodies = [b for b in (task, task and task.fallback_body) if b is not None]
    return any(b.kind == "human" for b in bodies)

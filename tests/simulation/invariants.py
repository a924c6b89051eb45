"""What holds of a run's state after every step, found by looking at all of it."""

from __future__ import annotations

from planloom.planner.language.values import Outcome, TaskId, Usage
from planloom.planner.walk.frontier import State, Unit
from planloom.workflows.machines.run.bodies import key_of
from planloom.workflows.machines.run.state import Doing, Rule, RunState, Stage, Wait, Work
from planloom.workflows.machines.shared.budget import Amount
from tests.simulation.violation import Violation, demand

UNIT_RULES = {
    Rule.CONDITION: Doing.CONDITION,
    Rule.ITEMS: Doing.ITEMS,
    Rule.BODY: Doing.BODY,
    Rule.QUESTION: Doing.QUESTION,
    Rule.ANSWER_STORED: Doing.STORING,
}


def check_invariants(run: RunState) -> None:
    """Every part of the state fits every other.

    Raises:
        Violation: one does not.
    """
    try:
        run.frontier.check()
        run.account.ledger.check()
    except AssertionError as error:
        raise Violation("frontier and ledger hold", repr(error)) from error
    _check_works(run)
    _check_groups(run)
    _check_pending(run)
    _check_budget(run)
    _check_people(run)
    _check_records(run)
    _check_stage(run)


def _check_works(run: RunState) -> None:
    for key, work in run.works.items():
        unit = work.unit
        demand(key_of(unit) == key, "a work is found by its unit", key)
        entry = run.frontier.entries.get(unit.task)
        demand(entry is not None, "a unit at work is in the frontier", key)
        assert entry is not None
        demand(entry.state is State.RUNNING, "a unit at work runs", key, entry.state)
        if unit.index is not None:
            demand(unit.index in entry.units_running, "an item at work runs", key)
        _check_work(run, key, work)
    running = run.frontier.running()
    for task in running:
        entry = run.frontier.entries[task]
        items = {key_of(Unit(task, n)) for n in entry.units_running}
        demand(items <= set(run.works), "a running item is at work", task, items)
        if entry.unit_count == 0 and task not in run.lists:
            demand(task in run.works, "a running task is at work", task)
        elif task not in run.lists and entry.units_left == len(items) == 0:
            raise Violation("a map whose items have ended ends", task)


def _check_groups(run: RunState) -> None:
    """Members of a group are at work or follow; nobody else belongs to it."""
    demand(set(run.groups) == set(run.frontier.groups), "a group holds its slots", run.groups)
    for key, group in run.groups.items():
        if run.stage is not Stage.OVER:
            demand(key in run.pending, "a group is pending", key)
        for name, unit in group.members.items():
            entry, work = run.frontier.entries[unit.task], run.works.get(name)
            demand(key_of(unit) == name, "a member is found by its unit", name)
            if work is not None:
                demand(work.group == key, "a member at work is in its group", name, work)
            else:
                is_its = unit.index is None and entry.group == key
                demand(is_its, "a member that is not at work follows", name, entry)
                demand(name in run.account.ledger.reserved, "a follower is reserved for", name)
    members = {m for g in run.groups.values() for m in g.members}
    for name, work in run.works.items():
        in_group = work.doing is Doing.GROUP
        demand(in_group == bool(work.group) == (name in members), "who is in a group", name, work)
    for task, entry in run.frontier.entries.items():
        demand(not entry.group or task in members, "who is of a group is its member", task)


def _check_work(run: RunState, key: str, work: Work) -> None:
    waits = work.doing in (Doing.ASKING, Doing.WAITING)
    has_ended = work.ahead_output is not None or work.ahead_failure is not None
    if work.command:
        pending = run.pending.get(work.command)
        demand(pending is not None, "a unit's command is pending", key, work.command)
        assert pending is not None
        demand(pending.subject == key, "a command is of its unit", key, pending)
        wanted = UNIT_RULES.get(pending.rule)
        demand(wanted is work.doing, "a unit does what its command does", key, work)
    else:
        waits = waits or work.doing is Doing.GROUP
        demand(waits or has_ended, "a unit at work has a command or waits", key, work)
    if has_ended:
        demand(work.is_ahead, "only what runs ahead has ended unseen", key)
        demand(run.frontier.is_idle(work.unit.task), "who only waits holds no slot", key)
    demand(work.is_ahead == (key in run.ahead), "what runs ahead is listed", key)
    demand((work.doing is Doing.ASKING) == (key in run.questions), "who asks has a question", key)
    is_waiting = run.waits.get(key) is Wait.FALLBACK
    demand((work.doing is Doing.WAITING) == is_waiting, "who waits is listed", key)


def _check_pending(run: RunState) -> None:
    for key, pending in run.pending.items():
        match pending.rule:
            case rule if rule in UNIT_RULES:
                work = run.works.get(pending.subject)
                is_its = work is not None and work.command == key
                demand(is_its, "a unit's command belongs to it", key, work)
            case Rule.GROUP:
                demand(key in run.groups, "a group that runs is known", key)
            case Rule.LIST:
                demand(pending.subject in run.lists, "a list is being made", key)
            case Rule.PLAN:
                is_its = run.planning is not None and run.planning.key == key
                demand(is_its, "a planner call belongs to a planning", key)
            case Rule.JOIN | Rule.SUMMARY:
                is_its = run.joining is not None and run.joining.key == key
                demand(is_its, "a joiner call belongs to a joining", key)
            case Rule.PATCHED | Rule.LEARNED:
                demand(key in run.edits, "a look-up belongs to an edit", key)
            case _:
                pass
    for task in run.lists:
        demand(f"{task}#list" in run.pending, "a list that is made is pending", task)
    for key in run.edits:
        demand(key in run.pending, "an edit is being looked up", key)
    for child in run.children.values():
        demand(child.key in run.pending, "a child at work is pending", child.key)


def _check_budget(run: RunState) -> None:
    ledger, owners = run.account.ledger, set(run.works)
    demand(set(run.waits) == set(run.account.parked), "who is parked waits", run.waits)
    if run.planning is not None and run.planning.key in run.pending:
        owners.add(run.planning.key)
    if run.joining is not None and run.joining.key in run.pending:
        owners.add(run.joining.key)
    owners |= {m for g in run.groups.values() for m in g.members}
    demand(set(ledger.reserved) <= owners, "a reservation has an owner", ledger.reserved)
    total = Amount()
    for amount in ledger.reserved.values():
        total += amount
    demand(total == ledger.held, "held is the sum of what is reserved", ledger.held)
    for key, work in run.works.items():
        is_reserved = key in ledger.reserved
        waits = work.doing is Doing.WAITING
        waits = waits or work.ahead_output is not None or work.ahead_failure is not None
        demand(is_reserved != waits, "a unit at work has its reservation", key, work)
    for key in [k for k, p in run.pending.items() if p.rule in (Rule.PLAN, Rule.JOIN)]:
        demand(key in ledger.reserved, "a model call has its reservation", key)
    demand(set(run.account.wanting) <= set(ledger.reserved), "who wants more runs", "wanting")
    if run.stage is Stage.OVER:
        demand(not ledger.reserved or run.failed is not None, "all is settled at the end")


def _check_people(run: RunState) -> None:
    for key in run.questions:
        demand(key in run.works, "a question is of a unit at work", key)
    for task in run.held:
        demand(run.frontier.is_held(task), "a task that waits for a yes is held", task)
        demand(task not in run.allowed, "who waits for a yes has none", task)
    for task in run.frontier.entries:
        if run.frontier.is_held(task):
            known = task in run.held or task in run.held_ahead
            demand(known, "who is held waits for something", task)
    for key in run.timers:
        kind, _, subject = key.partition(":")
        match kind:
            case "answer":
                demand(subject in run.questions, "a timer of a question is dropped", key)
            case "approve":
                demand(TaskId(subject) in run.held, "a timer of a yes is dropped", key)
            case "child":
                is_running = subject in run.works and run.works[subject].command in run.pending
                demand(is_running, "a timer of a child is dropped", key)
            case "approval":
                demand(run.approval.is_open, "a timer of an approval is dropped", key)
            case _:
                pass
    demand(set(run.asked) == set(run.asked_since), "who asks does so since then")
    for asks in run.asked.values():
        is_below = any(asks.child == c or asks.child.startswith(f"{c}/") for c in run.children)
        demand(is_below, "who asks is a child at work", asks.key)


def _check_records(run: RunState) -> None:
    entries = run.frontier.entries
    known = set(run.tasks) == set(run.records) == set(entries)
    demand(known, "tasks, records and frontier hold the same", set(run.tasks) ^ set(entries))
    total = run.outside
    for task, record in run.records.items():
        total += record.usage
        outcome = run.frontier.outcome_of(task)
        demand(record.outcome == outcome, "a record says how its task ended", task)
        if outcome is not None and outcome.is_good:
            demand(record.output is not None, "what ended well has an output", task)
    check_sum(run.account.ledger.usage, total)


def check_sum(whole: Usage, parts: Usage) -> None:
    """The usage of the parts adds up to the run's."""
    names = ("input_tokens", "output_tokens", "usd_nano", "model_calls", "tool_calls", "cache_hits")
    for name in names:
        left, right = getattr(whole, name), getattr(parts, name)
        demand(left == right, "the usage of the parts adds up", name, left, right)


def _check_stage(run: RunState) -> None:
    match run.stage:
        case Stage.PLANNING:
            demand(run.planning is not None, "a plan is being written")
        case Stage.APPROVING:
            demand(run.approving is not None, "an approval is asked for")
        case Stage.JOINING | Stage.ANSWERING | Stage.ROOM | Stage.PREPARING:
            demand(bool(run.pending or run.waits), "a stage waits for something", run.stage)
        case Stage.STOPPING:
            demand(run.ending is not None, "a run that stops knows how it ends")
        case Stage.OVER:
            is_told = run.result is not None or run.failed is not None
            demand(is_told, "a run that is over has a result")
        case _:
            pass
    if run.result is not None:
        demand(not run.works and not run.lists, "nothing runs after the end", run.works)
        left = [t for t, s in run.frontier.states().items() if not isinstance(s, Outcome)]
        demand(not left, "every task has ended at the end", left)
        demand(not run.timers and not run.waits, "nothing waits after the end", run.timers)

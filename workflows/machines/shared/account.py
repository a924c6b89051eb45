"""The budget account of one workflow: its ledger, its time, and who waits for more of either.

Every model call and every task reserves here before it starts. What cannot be reserved waits in
`parked` and is tried again in the order it came, after every event; the workflow is shown as
waiting for budget only while nothing that runs could give any back.

A child run works inside a grant of its parent and asks the parent for more; children of this run
that have asked stand in `wanting`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil

from planloom.planner.contract.controls import GrantWanted, RaiseBudget
from planloom.planner.contract.names import BUDGET_EXCEEDED, INVALID_REQUEST
from planloom.planner.contract.requests import TASK_CAP_MAX, Common
from planloom.planner.language.values import NANO, TOKENS_MAX, USD_MAX, JsonValue, Usage
from planloom.workflows.machines.shared.budget import NOTHING, Amount, Caps, Ledger, caps_from
from planloom.workflows.machines.shared.commands import Command, DropTimer, SetTimer, Tell
from planloom.workflows.machines.shared.machine import Identity, Refusal

TIMER = "budget.seconds"
"""The key of the timer that fires when the time is over."""
SECONDS_MAX = 30 * 86_400.0
"""The longest time that a budget may name."""
PARENT = "parent"
"""Who raised a budget, when it was not a person."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A call that waits for budget or time."""

    want: Amount
    least: Amount
    """The least it can do with."""
    lack: str | None = None
    """What is missing, in words, when nothing that runs can give it back; None: it only waits."""
    is_late: bool = False
    """It is time that is missing: no budget helps."""


@dataclass(frozen=True, slots=True)
class Over:
    """The budget ends the workflow here (`on_budget: partial`): what was lacking, in words."""

    lack: str


@dataclass(slots=True)
class Account:
    """Invariant: settled + reserved <= cap, unless a call used more than it had reserved."""

    ledger: Ledger
    me: str
    """The workflow's own id."""
    started: float
    """Seconds since 1970, as are `deadline` and every `now`."""
    ends_early: bool = False
    """`on_budget: partial`: the workflow ends at its cap; else it parks there."""
    cap_seconds: float | None = None
    deadline: float | None = None
    """When the time of the parent run is over."""
    parent: str | None = None
    has_grant: bool = False
    has_own_cap: bool = False
    """Its own cap, beside its grant: the parent cannot raise that one."""
    has_asked: bool = False
    """The parent was asked for more, and has not answered yet."""
    parked: dict[str, Parked] = field(default_factory=dict)
    wanting: dict[str, GrantWanted] = field(default_factory=dict)
    """Children that have used their grant up, by the key of their reservation."""
    timer_at: float | None = None
    """When the running timer fires."""


def open_account(request: Common, identity: Identity, started: float) -> Account:
    """The account of a workflow that begins with `request`."""
    budget, lineage = request.budget, identity.lineage
    return Account(
        Ledger(caps_from(budget, lineage.grant)),
        identity.workflow_id,
        started,
        ends_early=(budget.on_budget or request.on_budget) == "partial",
        cap_seconds=budget.seconds,
        deadline=lineage.deadline,
        parent=lineage.parent,
        has_grant=lineage.grant is not None,
        has_own_cap=budget.tokens is not None or budget.usd is not None,
    )


# -- time -----------------------------------------------------------------------------------


def ends_at(account: Account) -> float | None:
    """The earlier of the workflow's own end and its parent's; None: there is no such time."""
    own = None if account.cap_seconds is None else account.started + account.cap_seconds
    return min((t for t in (own, account.deadline) if t is not None), default=None)


def is_own_time_over(account: Account, now: float) -> bool:
    """Whether the workflow's own cap is reached, and not only its parent's."""
    # As a sum, like the timer's: a difference of the two may be a hair below the cap.
    return account.cap_seconds is not None and account.started + account.cap_seconds <= now


def time_lack(account: Account, now: float) -> str | None:
    """Why nothing may start any more, in words; None while there is time."""
    end = ends_at(account)
    if end is None or end > now:
        return None
    if is_own_time_over(account, now):
        return f"its {account.cap_seconds:g} s are over"
    return "the time of the run that it is part of is over"


def ends_with_time(account: Account, now: float) -> bool:
    """Whether the end of the time ends the workflow. Of its parent's time the parent decides."""
    return account.ends_early and is_own_time_over(account, now)


def keep_timer(account: Account, now: float) -> list[Command]:
    """Set, move or drop the timer, so that it fires when the time is over."""
    end = ends_at(account)
    wanted = end if end is not None and end > now else None
    if wanted == account.timer_at:
        return []
    account.timer_at = wanted
    if wanted is None:
        return [DropTimer(TIMER)]
    return [SetTimer(TIMER, wanted, TIMER)]


# -- reserving ------------------------------------------------------------------------------


def reserve_now(
    account: Account, key: str, want: Amount, least: Amount, now: float
) -> Amount | None:
    """What was set aside, if there are time and room at once; for what can be done without."""
    return None if time_lack(account, now) else account.ledger.reserve(key, want, least)


def reserve(
    account: Account, key: str, want: Amount, least: Amount, now: float
) -> Amount | Parked | Over:
    """Set `want` aside for `key`, or less but at least `least`; or park it.

    A parked key is tried again with `retry_parked`.
    """
    late = time_lack(account, now)
    if late is None:
        granted = account.ledger.reserve(key, want, least)
        if granted is not None:
            account.parked.pop(key, None)
            return granted
    lack = late
    if late is None and set(account.ledger.reserved) <= set(account.wanting):
        # Nothing that runs could give any back.
        lack = f"{key.split('.')[0]} {account.ledger.shortfall(least)}"
    if lack is not None and not _may_wait(account, least, now, late is not None):
        account.parked.pop(key, None)
        return Over(lack)
    account.parked[key] = Parked(want, least, lack, late is not None)
    return account.parked[key]


def _may_wait(account: Account, least: Amount, now: float, is_time: bool) -> bool:
    """Whether somebody can give more: a person, or the parent whose grant is used up."""
    if is_time and not is_own_time_over(account, now):
        return True  # the parent has parked too, or cancels this run
    if account.parent is None:
        return not account.ends_early
    if is_time:
        return not account.ends_early
    return may_be_given(account, least)


def retry_parked(account: Account, now: float) -> list[tuple[str, Amount | Over]]:
    """Parked calls that have their amount now, or will never have it; in the order they came."""
    done: list[tuple[str, Amount | Over]] = []
    for key, call in list(account.parked.items()):
        answer = reserve(account, key, call.want, call.least, now)
        if not isinstance(answer, Parked):
            done.append((key, answer))
    return done


def lack_of(account: Account) -> str | None:
    """What parked calls lack, in words; None when nothing is parked for lack of budget."""
    return next((p.lack for p in account.parked.values() if p.lack is not None), None)


def least_of(account: Account) -> Amount:
    """The least that the first parked call can do with that lacks anything."""
    parked = account.parked.values()
    lacking = (p.least for p in parked if p.lack is not None and not p.is_late)
    return next(lacking, NOTHING)


def raise_that_helps(account: Account, least: Amount, now: float) -> dict[str, JsonValue]:
    """New totals for `raise_budget` with which `least` fits, twice as much where that is more.

    Empty when no cap of the workflow's own is in the way.
    """
    if is_own_time_over(account, now):
        assert account.cap_seconds is not None
        passed = now - account.started
        return {"seconds": min(SECONDS_MAX, float(ceil(passed + account.cap_seconds)))}
    ledger, found = account.ledger, dict[str, JsonValue]()
    caps, free, needed = ledger.caps, ledger.free, ledger.settled + ledger.held + least
    if caps.tokens is not None and (free.tokens or 0) < least.tokens:
        found["tokens"] = min(TOKENS_MAX, max(2 * caps.tokens, needed.tokens))
    if caps.usd_nano is not None and (free.usd_nano or 0) < least.usd_nano:
        nano = max(2 * caps.usd_nano, needed.usd_nano)
        found["usd"] = min(USD_MAX, (nano // 1000 + 1) / 1_000_000)
    if caps.tasks is not None and (free.tasks or 0) < least.tasks:
        found["tasks"] = min(TASK_CAP_MAX, max(2 * caps.tasks, needed.tasks))
    return found


# -- a tree of accounts ---------------------------------------------------------------------


def may_be_given(account: Account, least: Amount) -> bool:
    """Whether the parent run can give what `least` lacks: nothing above the run's own cap."""
    if account.parent is None or not account.has_grant:
        return False
    spent = Amount(least.tokens, least.usd_nano)
    return not account.has_own_cap or spent.clipped_to(account.ledger.free).covers(spent)


def ask_parent(account: Account, least: Amount) -> list[Command]:
    """Ask the parent run for more, once until it answers; nothing where there is none to ask."""
    if account.parent is None or not account.has_grant or account.has_asked:
        return []
    account.has_asked = True
    least = _with_overrun(account.ledger, least)
    name = account.me.removeprefix(f"{account.parent}/")
    wanted = GrantWanted(
        child=account.me,
        name=name,
        tokens=least.tokens,
        usd_nano=least.usd_nano,
        tasks=least.tasks,
    )
    return [Tell(account.parent, "grant_wanted", wanted)]


def _with_overrun(ledger: Ledger, least: Amount) -> Amount:
    """What must be added to the caps for `least` to fit: more, when calls used too much."""
    caps, needed = ledger.caps, ledger.settled + ledger.held + least
    return Amount(
        max(least.tokens, needed.tokens - (caps.tokens or needed.tokens)),
        max(least.usd_nano, needed.usd_nano - (caps.usd_nano or needed.usd_nano)),
        max(least.tasks, needed.tasks - (caps.tasks or needed.tasks)),
    )


def ask_for_parked(account: Account) -> list[Command]:
    """Ask the parent for what the first parked call lacks, if it lacks any budget.

    What a pause or the end of the time holds up is not tried again when it is given room: it
    lacks nothing more, though it is still parked.
    """
    free = account.ledger.free
    lacking = (p.least for p in account.parked.values() if p.lack is not None and not p.is_late)
    first = next((least for least in lacking if not least.clipped_to(free).covers(least)), None)
    return ask_parent(account, first) if first is not None else []


def key_of_child(name: str, keys: Iterable[str]) -> str | None:
    """The reservation of a child run: named like it, except for its round or its fallback."""
    fitting = [k for k in keys if name == k or name.startswith(f"{k}.")]
    return max(fitting, key=len, default=None)


def take_wanted(account: Account, wanted: GrantWanted) -> bool:
    """A child has used its grant up; False when it is no longer a child of this run."""
    key = key_of_child(wanted.name, account.ledger.reserved)
    if key is not None:
        account.wanting[key] = wanted
    return key is not None


def grant_more(account: Account) -> list[Command]:
    """Give waiting children what is free, as far as it goes."""
    commands: list[Command] = []
    for key, wanted in list(account.wanting.items()):
        if key not in account.ledger.reserved:
            del account.wanting[key]
            continue
        least = Amount(wanted.tokens, wanted.usd_nano, wanted.tasks)
        want = least + Amount(least.tokens * 3, least.usd_nano * 3, 0)
        total = account.ledger.extend(key, want, least)
        if total is not None:
            del account.wanting[key]
            raised = _raised_caps(account.ledger.caps, total, wanted.own_tasks)
            commands.append(Tell(wanted.child, "raise_budget", raised))
    return commands


def cap_child(account: Account, before: Caps, key: str, id: str, own_tasks: int) -> list[Command]:
    """A child began without a cap, and there is one now: what is set aside for it is its cap.

    It may have used more by then. It asks for that, and for what it needs still.
    """
    held, new = account.ledger.reserved.get(key), account.ledger.caps.but(before)
    if held is None or new == Caps():
        return []
    # The least that can be said is 1, with which no call can be made.
    at_least = Amount(max(1, held.tokens), max(1, held.usd_nano), held.tasks)
    return [Tell(id, "raise_budget", _raised_caps(new, at_least, own_tasks))]


def _raised_caps(caps: Caps, total: Amount, own_tasks: int) -> RaiseBudget:
    tasks = total.tasks - own_tasks
    # A child may hold nothing of a kind that it never asked for.
    return RaiseBudget(
        tokens=total.tokens if caps.tokens is not None and total.tokens else None,
        usd=total.usd_nano / NANO if caps.usd_nano is not None and total.usd_nano else None,
        tasks=tasks if caps.tasks is not None and tasks > 0 else None,
        by=PARENT,
    )


def refusal_of_raise(account: Account, raised: RaiseBudget, now: float) -> Refusal | None:
    """Why `raise_budget` cannot be taken, or None."""
    if not _given(raised):
        message = 'raise_budget: name at least one cap, for example {"tokens": 60000}'
        return Refusal(message, INVALID_REQUEST)
    problem = problem_with_raise(account, raised, now)
    return Refusal(f"raise_budget: {problem}", BUDGET_EXCEEDED) if problem else None


def _given(raised: RaiseBudget) -> dict[str, float]:
    return raised.model_dump(exclude={"by"}, exclude_none=True)


def told_of_raise(raised: RaiseBudget) -> tuple[str, str]:
    """The new caps in words, and who raised them."""
    caps = ", ".join(f"{name} {value:g}" for name, value in _given(raised).items())
    return caps, f' by "{raised.by}"' if raised.by else ""


def problem_with_raise(account: Account, raised: RaiseBudget, now: float) -> str | None:
    """Why new caps cannot be taken, or None."""
    is_spending = (raised.tokens, raised.usd, raised.tasks) != (None, None, None)
    if is_spending and account.has_grant and raised.by != PARENT:
        return (
            f"this run spends from the budget of the run that it is part of: "
            f"raise that of {account.parent}"
        )
    passed = now - account.started
    if raised.seconds is not None and raised.seconds <= passed:
        return f"seconds {raised.seconds:g} is below the {passed:.0f} that have passed"
    if raised.by == PARENT:
        return None  # it does not know what was used beyond its grant
    return account.ledger.problem_with(raised)


def raise_caps(account: Account, raised: RaiseBudget) -> None:
    """New totals; those left out stay. The parent only gives more, and may be asked again."""
    caps = account.ledger.caps
    account.ledger.raise_caps(raised)
    if raised.by == PARENT:
        account.ledger.keep_caps(caps, may_grow=not account.has_own_cap)
    account.has_asked = False
    if raised.seconds is not None:
        account.cap_seconds = raised.seconds


def settle(account: Account, key: str, usage: Usage, tasks: int | None = None) -> None:
    """Replace the reservation of `key` by what was used; nothing when it holds none."""
    account.parked.pop(key, None)
    account.wanting.pop(key, None)
    if key in account.ledger.reserved:
        account.ledger.settle(key, usage, tasks)
        account.ledger.check()


def refund(account: Account, key: str) -> None:
    """Give the reservation of `key` back whole: it never ran."""
    account.parked.pop(key, None)
    account.wanting.pop(key, None)
    account.ledger.refund(key)

"""The state of one pool: room, rate, penalty, cool-down, breakers and permits. Pure.

`CapacityWorkflow` feeds it reports and the wishes of people, with the time; it answers with what
each worker may do and what the server's queue may dispatch. Times are seconds since the epoch; a
clock that jumps is borne.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from planloom.planner.contract.capacity import (
    PRESSURE_CLASSES,
    UNPROVEN_STARTS,
    Because,
    Directive,
    OpenBreaker,
    PermitReply,
    Release,
    Renew,
    Report,
    Reserve,
    SetCapacity,
)
from planloom.planner.contract.settings import PoolSettings
from planloom.planner.language.values import JsonValue, Model
from planloom.workflows.machines.pool import breaker, penalty, permits, rate_control
from planloom.workflows.machines.pool.breaker import Breakers
from planloom.workflows.machines.pool.penalty import Penalty, PenaltyRule
from planloom.workflows.machines.pool.permits import Ask, Limits, Permits
from planloom.workflows.machines.pool.rate_control import Concurrency, ControlRule

START_PARALLEL = 8
"""Calls at once that an endpoint which nobody knows yet is met with."""
PARALLEL_MAX = 1000
COOL_MAX_SECONDS = 300.0
RATE_SHARE = 0.98
"""Of the rate, for the workers' own even pace. The server's rate lets a burst pass first,
and a request is on the wire a little later than it was let go."""
QUIET_SECONDS = 60.0
"""After a 429, until the room is widened again bit by bit."""
REPORT_SECONDS, SOON_SECONDS = 1.0, 0.25
TOKENS_WEIGHT = 0.1
"""Of one call in the mean of tokens per call."""
POOL_NOTES_MAX = 20


class Seen(Model):
    """A worker as its last report showed it, and what it was told."""

    name: str
    until: float
    in_flight: int = 0
    waiting: int = 0
    is_proven: bool = False
    parallel: int = 0
    starts: float = 0.0
    tokens: float = 0.0
    tries: int = 0
    """Of the calls with a key that has never worked."""
    worker_queue: str | None = None


class Episode(Model):
    """One meeting with a full endpoint: all its 429s count as one, however many calls got one."""

    before: Concurrency
    over: int
    """By how much the limit was too wide."""


class PoolState(Model):
    """All that continue-as-new hands over."""

    pool: str
    """The pool's name."""
    task_queue: str
    """The pool's task queue."""
    settings: PoolSettings
    """The settings of the worker that joined last."""
    overrides: dict[str, JsonValue] = Field(default_factory=dict)
    """What people changed with `set`."""
    concurrency: Concurrency
    """The learned limit of calls at once."""
    penalty: Penalty = Field(default_factory=Penalty)
    """The penalty and what raised it."""
    breakers: Breakers = Field(default_factory=Breakers)
    """Open breakers, and failures that may open one."""
    permits: Permits = Field(default_factory=Permits)
    """Permits that are held or waited for."""
    workers: list[Seen] = Field(default_factory=list)
    """The worker processes, as they last reported."""
    episode: Episode | None = None
    """The current burst of 429s, which counts as one."""
    cool_until: float = 0.0
    """No call starts before this time."""
    is_drained: bool = False
    """Whether a person has drained the pool."""
    calls: dict[str, int] = Field(default_factory=dict)
    """Ended calls: `succeeded`, and each error class."""
    tokens: int = 0
    """Tokens of all ended calls."""
    tokens_per_call: float = 0.0
    """The mean tokens of a call."""
    window: int = 0
    """Successes since the limit of calls last grew."""
    notes: list[str] = Field(default_factory=list)
    """What people and the workflow did lately."""


def new_state(pool: str, task_queue: str, settings: PoolSettings) -> PoolState:
    top = settings.parallel or PARALLEL_MAX
    start = Concurrency(limit=min(START_PARALLEL, top), original=top)
    return PoolState(pool=pool, task_queue=task_queue, settings=settings, concurrency=start)


class Pool:
    """One pool. Methods change `state`, which is replaced, never changed in place."""

    def __init__(self, state: PoolState) -> None:
        self.state = state

    # -- settings ---------------------------------------------------------------------------

    @property
    def settings(self) -> PoolSettings:
        """As they act now: the file's, under what `set` has changed."""
        kept = {k: v for k, v in self.state.overrides.items() if k in PoolSettings.model_fields}
        return self.state.settings.model_copy(update=kept)

    def _update(self, **fields: Any) -> None:
        self.state = self.state.model_copy(update=fields)

    def _note(self, text: str) -> None:
        self._update(notes=[*self.state.notes, text][-POOL_NOTES_MAX:])

    def load(self, settings: PoolSettings, task_queue: str | None = None) -> None:
        """A worker joins and reports its settings. What `set` changed stays."""
        if settings != self.state.settings:
            old, was = self.state.settings.model_dump(), self.settings.parallel
            new = settings.model_dump()
            changed = ", ".join(f"{k}={v}" for k, v in new.items() if v != old[k])
            self._note(f"a worker that joined has other settings: {changed}")
            self._update(settings=settings)
            self._resize(was)
        if task_queue and task_queue != self.state.task_queue:
            self._update(task_queue=task_queue)

    def _resize(self, was: int | None) -> None:
        top = self.settings.parallel
        if top == was:
            return
        # What an endpoint has refused stays known; a wider room is tried step by step.
        limit = min(max(self.state.concurrency.limit, START_PARALLEL), top or PARALLEL_MAX)
        self._update(concurrency=Concurrency(limit=limit, original=top or PARALLEL_MAX))

    @property
    def penalty_rule(self) -> PenaltyRule:
        own = self.settings
        return PenaltyRule(mode=own.penalty, decay_seconds=own.penalty_seconds)

    @property
    def _control_rule(self) -> ControlRule:
        return ControlRule(maximum=PARALLEL_MAX, quiet_seconds=QUIET_SECONDS)

    @property
    def limits(self) -> Limits:
        own = self.settings
        return Limits(
            requests=own.max_requests or own.parallel,
            calls=own.max_calls or own.parallel,
            runs=own.max_runs,
        )

    # -- workers ----------------------------------------------------------------------------

    def report(self, said: Report, now: float) -> Directive:
        """A worker reports ended and running calls. The answer says what it may do."""
        if said.settings is not None:
            self.load(said.settings, said.task_queue)
        self._count(said)
        self._feel(said, now)
        self._break(said, now)
        self._widen(said, now)
        self._keep(said, now)
        return Directive() if said.is_leaving else self._directive(said, now)

    def _count(self, said: Report) -> None:
        calls = dict(self.state.calls)
        for name, count in (("succeeded", said.succeeded), *said.failed.items()):
            if count:
                calls[name] = calls.get(name, 0) + count
        mean = self.state.tokens_per_call
        if said.succeeded and said.tokens:
            new = said.tokens / said.succeeded
            share = 1 - (1 - TOKENS_WEIGHT) ** said.succeeded if mean else 1.0
            mean += (new - mean) * share
        self._update(calls=calls, tokens=self.state.tokens + said.tokens, tokens_per_call=mean)

    def _feel(self, said: Report, now: float) -> None:
        """Pressure: a cool-down, a narrower room, a penalty."""
        state, rule = self.state, self.penalty_rule
        refused = sum(said.failed.get(name, 0) for name in PRESSURE_CLASSES)
        felt = penalty.decayed(state.penalty, rule, now)
        concurrency = state.concurrency
        if refused:
            concurrency, felt = self._refused(said, refused, felt, now)
        elif said.succeeded and now >= self.cool_until(now):
            concurrency = rate_control.succeeded(concurrency, now)
            felt = penalty.lowered(felt, rule, now, times=said.succeeded)
        if said.failed.get("timeout"):
            concurrency = rate_control.timed_out(concurrency, self._control_rule)
        for reason in self._penalised(said):
            if reason not in PRESSURE_CLASSES:  # that has counted, once for all of a moment
                felt = penalty.raised(felt, rule, reason, now, default=1.0)
        self._update(concurrency=concurrency, penalty=felt)

    def _penalised(self, said: Report) -> list[str]:
        """The classes of what it reports that count as penalty."""
        counted = list(penalty.WEIGHTS) if said.penalised is None else said.penalised
        failed = {name for name, count in said.failed.items() if count}
        violated = {"schema_violation"} if said.schema_violations else set()
        return [name for name in counted if name in failed | violated]

    def _refused(
        self, said: Report, refused: int, felt: Penalty, now: float
    ) -> tuple[Concurrency, Penalty]:
        state = self.state
        reason = "rate_limit" if said.failed.get("rate_limit") else "capacity"
        episode = state.episode
        if episode is None or now >= self.cool_until(now):
            # What was under way when it was refused shows how much the endpoint bears.
            others = sum(w.in_flight for w in self.alive(now) if w.name != said.worker)
            limit = state.concurrency.limit
            spare = max(0, limit - others - said.full_at) if said.full_at else 0
            episode = Episode(before=state.concurrency, over=refused + spare)
            if reason in self._penalised(said):
                felt = penalty.raised(felt, self.penalty_rule, reason, now)
        else:
            episode = episode.model_copy(update={"over": episode.over + refused})
        concurrency = rate_control.rejected(
            episode.before, self._control_rule, now, over=episode.over
        )
        asked = said.retry_after
        if asked is None:  # it names no time: longer each time in a row
            asked = min(60.0, 2.0 ** min(concurrency.row - 1, 6))
        until = max(self.cool_until(now), now + min(asked, COOL_MAX_SECONDS))
        self._update(episode=episode, cool_until=until)
        return concurrency, felt

    def cool_until(self, now: float) -> float:
        # A clock that was set back must not cool the pool for hours.
        return min(self.state.cool_until, now + COOL_MAX_SECONDS)

    def _break(self, said: Report, now: float) -> None:
        breakers = self.state.breakers
        for key in said.worked:
            breakers = breaker.succeeded(breakers, key)
        for each in said.permanent:
            breakers = breaker.failed(breakers, each.key, each.error_class, each.cause, now)
        self._update(breakers=breakers)

    def _widen(self, said: Report, now: float) -> None:
        """More room while all of it is used and nothing is refused."""
        state = self.state
        window = state.window + said.succeeded
        concurrency = rate_control.recovered(state.concurrency, self._control_rule, now)
        if window >= concurrency.limit:
            concurrency = rate_control.ramped(concurrency, self._control_rule, said.was_full)
            window = 0
        self._update(concurrency=concurrency, window=window)

    def _keep(self, said: Report, now: float) -> None:
        others = [w for w in self.alive(now) if w.name != said.worker]
        if not said.is_leaving:
            told = next((w for w in self.state.workers if w.name == said.worker), None)
            mine = Seen(
                name=said.worker,
                until=now + 3 * said.next_seconds + 2,
                in_flight=said.in_flight,
                waiting=said.waiting,
                is_proven=said.is_proven,
                parallel=told.parallel if told else 0,
                tries=told.tries if told else 0,
                worker_queue=said.worker_queue,
            )
            others = sorted([*others, mine], key=lambda w: w.name)
        self._update(workers=others)

    def alive(self, now: float) -> list[Seen]:
        # A clock that was set back would keep the dead for as long.
        return [w for w in self.state.workers if now < w.until <= now + 3600]

    def _directive(self, said: Report, now: float) -> Directive:
        alive = self.alive(now)
        others = [w for w in alive if w.name != said.worker]
        place = next(n for n, w in enumerate(alive) if w.name == said.worker)
        parallel = self._share_of_room(place, len(alive), others, now)
        rate, tokens = self.rate(now), self._tokens_per_second(now)
        starts = _share(rate, len(alive), sum(w.starts for w in others))
        of_tokens = _share(tokens, len(alive), sum(w.tokens for w in others))
        tries = self._tries(said, others)
        given = {
            "parallel": parallel or 0,
            "starts": starts or 0.0,
            "tokens": of_tokens or 0.0,
            "tries": tries,
        }
        self._update(
            workers=[w.model_copy(update=given) if w.name == said.worker else w for w in alive]
        )
        return Directive(
            parallel=parallel,
            starts_per_second=starts,
            tokens_per_second=of_tokens,
            tokens_per_call=self.state.tokens_per_call,
            cool_seconds=max(0.0, self.cool_until(now) - now),
            is_drained=self.state.is_drained,
            # Only a call that waits can try.
            breakers=self.open_breakers(now, said.worker if said.waiting else None),
            unproven_starts=tries,
            penalty=self.state.penalty.value,
            report_seconds=SOON_SECONDS if self._is_moving(said) else REPORT_SECONDS,
        )

    def _tries(self, said: Report, others: list[Seen]) -> int:
        """Calls that a worker may try whose key has never worked."""
        if said.is_proven or not (said.waiting or said.in_flight):
            return 0
        if any(w.is_proven for w in others):  # the pool's key is good; this process's will be
            unproven = 1 + sum(not w.is_proven for w in others)
            return max(1, UNPROVEN_STARTS // unproven)
        return max(0, UNPROVEN_STARTS - sum(w.tries for w in others))

    def _is_moving(self, said: Report) -> bool:
        """Whether the room is about to change, so that it is worth hearing of soon."""
        ramps = said.was_full and not self.state.concurrency.total_429
        waits_for_a_try = bool(said.waiting) and not said.is_proven
        return self.state.penalty.value > 0 or ramps or waits_for_a_try

    def _share_of_room(self, place: int, count: int, others: list[Seen], now: float) -> int | None:
        room = self.room(now)
        if room is None:
            return None
        fair = room // count + (1 if place < room % count else 0)
        # Those who were told more keep it until they report again.
        free = room - sum(max(w.parallel, w.in_flight) for w in others)
        return max(0, min(fair, free))

    def open_breakers(self, now: float, worker: str | None) -> list[OpenBreaker]:
        """Those that are not closed; with a worker, whether it may try one call."""
        found = []
        for each in self.state.breakers.open():
            is_probe = False
            if worker is not None:
                breakers, is_probe = breaker.probe(self.state.breakers, each.key, worker, now)
                self._update(breakers=breakers)
            found.append(
                OpenBreaker(
                    key=each.key,
                    error_class=each.error_class,
                    cause=each.cause,
                    retry_seconds=round(breaker.wait_of(each, now), 3),
                    is_probe=is_probe,
                )
            )
        return found

    # -- numbers ----------------------------------------------------------------------------

    def room(self, now: float) -> int | None:
        """Calls at once over all workers; None for no limit."""
        own = self.settings
        if own.penalty == "off":
            return own.parallel
        rule = self.penalty_rule
        concurrency = self.state.concurrency
        base = concurrency.limit
        if own.predictive:
            base = rate_control.predicted_limit(concurrency, now)
        return penalty.apply_limit(penalty.decayed(self.state.penalty, rule, now), rule, base)

    def rate(self, now: float) -> float | None:
        """Requests a second over all workers; None for no limit."""
        own, mean = self.settings, self.state.tokens_per_call
        rates = [own.requests_per_minute / 60] if own.requests_per_minute else []
        if own.tokens_per_minute and mean:
            rates.append(own.tokens_per_minute / 60 / mean)
        if not rates:
            return None
        rule = self.penalty_rule
        felt = penalty.decayed(self.state.penalty, rule, now)
        return penalty.scaled_rate(felt, rule, min(rates))

    def _tokens_per_second(self, now: float) -> float | None:
        own = self.settings
        if not own.tokens_per_minute:
            return None
        rule = self.penalty_rule
        felt = penalty.decayed(self.state.penalty, rule, now)
        return penalty.scaled_rate(felt, rule, own.tokens_per_minute / 60)

    def queue_rate(self, now: float) -> float | None:
        """What the server may dispatch: 0 while nothing may start."""
        if self.state.is_drained or self.cool_until(now) > now:
            return 0.0
        return self.rate(now)

    def next_deadline(self, now: float) -> float | None:
        """When something changes by itself."""
        times = [permits.next_deadline(self.state.permits)]
        if self.cool_until(now) > now:
            times.append(self.cool_until(now))
        # Also where nothing is to be told to the server: who looks sees the time that has passed.
        times.append(penalty.next_decay(self.state.penalty, self.penalty_rule, now))
        times += [b.retry_at for b in self.state.breakers.open() if (b.retry_at or 0.0) > now]
        return min((t for t in times if t is not None), default=None)

    # -- people and permits -----------------------------------------------------------------

    def set(self, change: SetCapacity) -> None:
        """A person changes limits."""
        was = self.settings.parallel
        kept = {} if change.reset else dict(self.state.overrides)
        kept |= change.model_dump(mode="json", exclude_none=True, exclude={"reset"})
        self._update(overrides=kept)
        self._resize(was)
        self._note("set " + (", ".join(f"{k}={v}" for k, v in kept.items()) or "back"))

    def drain(self, why: Because) -> None:
        """A person stops all calls of the pool."""
        self._update(is_drained=True)
        self._note(_said("drained", why))

    def resume(self, why: Because, now: float) -> None:
        """A person opens the pool again: ends cool-down and penalty, lets every breaker try."""
        self._update(
            is_drained=False,
            cool_until=0.0,
            episode=None,
            penalty=Penalty(reasons=self.state.penalty.reasons),
            breakers=breaker.resumed(self.state.breakers, now),
        )
        self._note(_said("resumed", why))

    def reserve(self, wish: Reserve, now: float) -> PermitReply:
        """A holder asks for a permit."""
        ask = Ask(
            holder=wish.holder,
            requests=wish.requests,
            calls=wish.calls,
            priority=wish.priority,
            tenant=wish.tenant,
            queue_class=wish.queue_class,
            ttl_seconds=wish.ttl_seconds,
            deadline=now + wish.wait_seconds,
        )
        found, decision = permits.reserve(self.state.permits, self.limits, ask, now)
        self._update(permits=found)
        return PermitReply(
            allowed=decision.allowed,
            waiting=decision.waits,
            reasons=list(decision.reasons),
            expires_in_seconds=self._left(wish.holder, now),
            position=decision.position,
            requests=decision.requests,
            calls=decision.calls,
        )

    def _left(self, holder: str, now: float) -> float | None:
        permit = self.state.permits.permit(holder)
        return None if permit is None else round(permit.expires - now, 3)

    def answer(self, holder: str, now: float) -> PermitReply:
        """The wait of a holder is over. The answer says whether it has a permit."""
        self.tick(now)
        line = [w.ask.holder for w in permits.in_order(self.state.permits.waiting, now)]
        left = self._left(holder, now)
        is_waiting = holder in line
        late = [] if is_waiting or left is not None else ["no room in the time given"]
        return PermitReply(
            allowed=left is not None,
            waiting=is_waiting,
            reasons=late,
            expires_in_seconds=left,
            position=line.index(holder) + 1 if is_waiting else None,
        )

    def waits(self, holder: str) -> bool:
        return self.state.permits.entry(holder) is not None

    def renew(self, wish: Renew, now: float) -> PermitReply:
        """A holder extends its permit."""
        self.tick(now)
        found, is_held = permits.renew(self.state.permits, wish.holder, now, wish.ttl_seconds)
        self._update(permits=found)
        return self._held(wish.holder, is_held, now)

    def release(self, wish: Release, now: float) -> PermitReply:
        """A holder gives its permit back."""
        self.tick(now)
        found, is_held = permits.release(self.state.permits, wish.holder)
        self._update(permits=found)
        self.tick(now)
        return self._held(wish.holder, is_held, now)

    def _held(self, holder: str, is_held: bool, now: float) -> PermitReply:
        text = f'"{holder}" holds nothing here: released before, expired, or never reserved'
        left = self._left(holder, now)
        reasons = [] if is_held else [text]
        return PermitReply(allowed=is_held, reasons=reasons, expires_in_seconds=left)

    def tick(self, now: float) -> None:
        """Time has passed: expired permits end, and waiting holders get theirs."""
        found = permits.sweep(self.state.permits, self.limits, now)
        self._update(permits=found, workers=self.alive(now))


def _share(total: float | None, count: int, told: float) -> float | None:
    """A worker's part of a rate, at an even pace; 0 until those who had more know of it."""
    if total is None:
        return None
    whole = total * RATE_SHARE
    fair = whole / count
    free = whole - told
    return 0.0 if free < fair / 2 else min(fair, free)


def _said(what: str, why: Because) -> str:
    by = f" by {why.by}" if why.by else ""
    return f"{what}{by}" + (f": {why.reason}" if why.reason else "")

"""`planloom capacity`: the pools as they are, and live changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from planloom.console.app import (
    By,
    DryRun,
    Json,
    call,
    capacity_app,
    errors,
    out,
    say,
    say_json,
    wants_json,
)
from planloom.console.mistakes import UsageError

if TYPE_CHECKING:
    from planloom import CapacityState, Client
    from planloom.planner.contract.settings import PoolSettings

PoolName = Annotated[str, typer.Argument(metavar="POOL", help="A pool of planloom.toml.")]
Why = Annotated[str, typer.Option("--reason", help="Recorded.")]
PoolRow = tuple["CapacityState | None", dict[str, int], dict[str, float]]
TABLE_REASONS_MAX = TABLE_NOTES_MAX = 3


@capacity_app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: Json = False) -> None:
    """Show model endpoints: rate, calls, queue, penalty, permits.

    Example: planloom capacity
    """
    if context.invoked_subcommand is not None:
        return
    import asyncio

    from planloom.console.documents import settings_now

    with errors():
        settings = settings_now()

    async def work(client: Client) -> dict[str, PoolRow]:
        async def one(name: str) -> PoolRow:
            pool = client.pool(name, settings)
            return await pool.state(), await pool.waiting(), await pool.oldest_seconds()

        rows = await asyncio.gather(*(one(name) for name in settings.pools))
        return dict(zip(settings.pools, rows, strict=True))

    pools = call(work)
    if as_json:
        say_json(
            {
                name: {
                    "state": state and state.model_dump(mode="json"),
                    "waiting": waiting,
                    "oldest_seconds": oldest,
                }
                for name, (state, waiting, oldest) in pools.items()
            }
        )
        return
    out.print(_table(pools, settings.pools))
    for name, (state, _, oldest) in pools.items():
        if oldest:
            seconds = ", ".join(f"{s:.0f} s {level}" for level, s in oldest.items())
            out.print(f"{name}: the first in line waits for {seconds}")
        for line in _details(state) if state else []:
            out.print(line)


def _table(pools: dict[str, PoolRow], settings: dict[str, PoolSettings]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pool", "status", "rate/min", "calls", "waiting", "penalty", "done", "permits"):
        table.add_column(column, no_wrap=column != "waiting")
    for name, (state, waiting, _) in pools.items():
        line = ", ".join(f"{n} {level}" for level, n in waiting.items()) or "–"
        if state is None:
            pool_settings = settings[name]
            rate = (
                f"{pool_settings.requests_per_minute:g}"
                if pool_settings.requests_per_minute
                else "no limit"
            )
            room = f"0 of {pool_settings.parallel}" if pool_settings.parallel else "0"
            table.add_row(name, "not used yet", rate, room, line, "–", "0", "–")
            continue
        colour = {"open": "green", "cooling": "yellow"}.get(state.status, "red")
        rate = "no limit" if state.requests_per_minute is None else f"{state.requests_per_minute:g}"
        room = "no limit" if state.parallel is None else str(state.parallel)
        failed = sum(n for kind, n in state.calls.items() if kind != "succeeded")
        done = str(state.calls.get("succeeded", 0)) + (f", {failed} failed" if failed else "")
        cool = f" {state.cool_seconds:.0f} s" if state.cool_seconds else ""
        table.add_row(
            name,
            Text(f"{state.status}{cool}", colour),
            rate,
            f"{state.in_flight} of {room}",
            line,
            f"{state.penalty:g} ({state.penalty_mode})",
            done,
            str(len(state.permits)) if state.permits else "–",
        )
    return table


def _details(state: CapacityState) -> list[str]:
    lines = [
        f"{state.pool}: breaker open, {b.cause}; tried again in {b.retry_seconds:.0f} s "
        f"(now: planloom capacity resume {state.pool})"
        for b in state.breakers
    ]
    lines += [
        f"{state.pool}: {p.holder} holds {p.requests} requests, {p.calls} calls, "
        f"{p.expires_in_seconds:.0f} s left"
        for p in state.permits
    ]
    if state.permits_waiting:
        waiting = ", ".join(f"{n} {level}" for level, n in state.permits_waiting.items())
        longest = state.longest_wait_seconds
        lines.append(f"{state.pool}: permits waited for: {waiting}; the longest {longest:.0f} s")
    if state.penalty_reasons and state.penalty:
        recent = reversed(state.penalty_reasons[-TABLE_REASONS_MAX:])
        reasons = ", ".join(f"{r.reason} {r.seconds_ago:.0f} s ago" for r in recent)
        lines.append(f"{state.pool}: penalty for {reasons}")
    if state.overrides:
        changed = ", ".join(f"{k}={v}" for k, v in state.overrides.items())
        lines.append(f"{state.pool}: set by hand: {changed}")
    lines += [f"{state.pool}: {note}" for note in state.notes[-TABLE_NOTES_MAX:]]
    return lines


def _change(pool: str, name: str, payload: Any, *, dry: bool = False) -> None:
    from planloom.console.documents import settings_now

    with errors():
        settings = settings_now()
        if pool not in settings.pools:
            names = ", ".join(settings.pools)
            raise UsageError(f'no pool "{pool}"', hint=f"Pools of planloom.toml: {names}")

    async def work(client: Client) -> Any:
        return await client.pool(pool, settings).change(name, payload)

    if dry:
        reply = {"dry_run": True, "pool": pool, "update": name, "payload": payload}
        message = f"would send {name} {json.dumps(payload, ensure_ascii=False)}"
    else:
        answer = call(work)
        reply, message = answer.model_dump(mode="json"), answer.message
    if wants_json():
        say_json(reply)
    else:
        say(f"{pool}: {message}")


@capacity_app.command("set")
def set_(
    pool: PoolName,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE…", help="What changes.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Return to planloom.toml first.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change limits while runs are in progress.

    Example: planloom capacity set default parallel=4
    """
    from planloom import SetCapacity
    from planloom.planner.syntax.documents import read_request

    fields: dict[str, Any] = {"reset": True} if reset else {}
    with errors():
        for change in changes or []:
            field, has_value, value = change.partition("=")
            if not has_value:
                raise UsageError(f'"{change}": write FIELD=VALUE, such as parallel=4')
            if field.startswith("tenants."):
                fields.setdefault("tenants", {})[field.removeprefix("tenants.")] = value
            else:
                fields[field] = value
        if not fields:
            names = ", ".join(SetCapacity.model_fields)
            raise UsageError("nothing to set", hint=f"FIELD=VALUE, of {names}; or --reset")
        wanted, problems = read_request(fields, SetCapacity)
        if wanted is None:
            raise UsageError("this cannot be set", problems)
    _change(pool, "set", wanted.model_dump(mode="json", exclude_unset=True), dry=dry_run)


@capacity_app.command()
def drain(
    pool: PoolName,
    reason: Why = "",
    by: By = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make new calls wait until `planloom capacity resume`.

    Example: planloom capacity drain default
    """
    _change(pool, "drain", {"reason": reason, "by": by}, dry=dry_run)


@capacity_app.command()
def resume(
    pool: PoolName,
    reason: Why = "",
    by: By = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let calls go out again, and end cool-down and penalty.

    Example: planloom capacity resume default
    """
    _change(pool, "resume", {"reason": reason, "by": by}, dry=dry_run)

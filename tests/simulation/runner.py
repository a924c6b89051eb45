"""Many cases: each run, and what violates a rule made shorter and told."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from planloom.workflows.machines.run import batches
from tests.simulation.cases import Case, random_case
from tests.simulation.telling import brief, lines_of
from tests.simulation.violation import Violation
from tests.simulation.world import START, World

SHRINKS_MAX = 400
CHUNK = 250
"""Cases that one process runs before it tells how they went."""


@dataclass(frozen=True, slots=True)
class Found:
    """A case in which something that must hold did not."""

    case: Case
    rule: str
    message: str
    where: str


def run_case(case: Case) -> Found | World:
    """Run one case to its end."""
    world, error = _run(case)
    if error is None:
        return world
    rule = error.rule if isinstance(error, Violation) else _place_of(error)
    lines = "".join(traceback.format_exception(error)).splitlines()
    return Found(case, rule, f"{type(error).__name__}: {error}", "\n".join(lines[-30:]))


def _run(case: Case) -> tuple[World, Exception | None]:
    """The world at the end of a case, and what went wrong in it."""
    world = World(case)
    sizes = batches.BATCHED_FROM, batches.BATCH_ITEMS
    if case.batches:
        batches.BATCHED_FROM, batches.BATCH_ITEMS = 2, 2
    try:
        world.run()
    except Exception as error:
        return world, error
    finally:
        batches.BATCHED_FROM, batches.BATCH_ITEMS = sizes
    return world, None


def run_many(seed: int, runs: int, processes: int) -> Iterator[tuple[int, list[Found]]]:
    """Events and violations of the cases of `runs` seeds, some at a time."""
    starts = range(seed, seed + runs, CHUNK)
    chunks = [(n, min(CHUNK, seed + runs - n)) for n in starts]
    if processes == 1 or len(chunks) == 1:
        yield from map(run_seeds, chunks)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(run_seeds, chunks)


def run_seeds(chunk: tuple[int, int]) -> tuple[int, list[Found]]:
    """The cases of some seeds, one after another."""
    first, count = chunk
    events, found = 0, list[Found]()
    for seed in range(first, first + count):
        ended = run_case(random_case(seed))
        if isinstance(ended, Found):
            found.append(ended)
        else:
            events += ended.events
    return events, found


def _place_of(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {last.name}"


def shortened(found: Found) -> Found:
    """The shortest case that was found with the same rule broken."""
    tries, best = 0, found
    is_shorter = True
    while is_shorter and tries < SHRINKS_MAX:
        is_shorter = False
        for case in best.case.shorter():
            tries += 1
            if tries > SHRINKS_MAX:
                break
            try:
                again = run_case(case)
            except Exception:
                continue
            if isinstance(again, Found) and again.rule == best.rule:
                best, is_shorter = again, True
                break
    return best


def story_of(case: Case) -> str:
    """What happened in a case, a line an event, and the state at the end."""
    world, error = _run(case)
    end = "it ends" if error is None else f"{type(error).__name__}: {error}"
    lines = [_line(*what) for what in world.story]
    return "\n".join([*lines, end])


def _line(time: float, who: str, what: object) -> str:
    told = what if isinstance(what, str) else brief(what)
    return f"{time - START:10.3f} {who:8} {told[:700]}"


def report(found: Found) -> str:
    """All that is needed to see and repeat a violation."""
    short = shortened(found)
    world, _ = _run(short.case)
    states = [[f"-- {p.id}:", *lines_of(p.state)] for p in world.processes.values()]
    state = "\n".join(line for lines in states for line in lines)
    return "\n".join(
        [
            f"VIOLATION seed {found.case.seed}: {found.message[:2000]}",
            f"-- shortest case: {short.case}",
            f"-- it says: {short.message[:2000]}",
            "-- events:",
            story_of(short.case),
            "-- where:",
            short.where,
            state[:20_000],
        ]
    )


__all__ = ["Found", "random_case", "report", "run_case", "shortened", "story_of"]

"""`make fuzz SECONDS=…`: random inputs for all pure readers, then for a real server.

Each input comes of a seed of its own, which is printed when a reader breaks:
python -m tests.fuzz --reader joiner --seed 12345 reads that input once more.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from random import Random

from tests.fuzz.large import TEXT_READERS, UNITS, check_large, check_linear
from tests.fuzz.readers import READERS
from tests.fuzz.server import fuzz_server

CHUNK = 18_000
"""Inputs that one process reads before it says what it found."""
PART = 100
"""Inputs for one reader, before it is the next one's turn."""
SLOW_SECONDS = 2.0
"""Of processor time for one input of some kilobytes: far above what any takes."""


def read_once(name: str, seed: int) -> str | None:
    """What is wrong with how the reader took the input of this seed, or None."""
    began = time.process_time()
    try:
        READERS[name](Random(seed))
    except Exception:
        return traceback.format_exc(limit=-6)
    taken = time.process_time() - began
    return f"it took {taken:.1f} s" if taken > SLOW_SECONDS else None


@dataclass(slots=True)
class Read:
    """What some readers took, and what broke them."""

    counts: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)


def read_many(names: list[str], first: int, inputs: int) -> Read:
    """So many inputs, each reader in turn; one that broke is not tried again."""
    read = Read()
    seeds = range(first, first + inputs)
    for at in range(0, inputs, PART):
        name = names[at // PART % len(names)]
        for seed in seeds[at : at + PART]:
            read.counts[name] += 1
            if name not in read.broken and (wrong := read_once(name, seed)):
                read.broken[name] = f"{name}, seed {seed}: {wrong}"
    return read


def fuzz_readers(names: list[str], inputs: int, seconds: float, first: int) -> int:
    """Read so many inputs, or for so long, in all processors; how many readers broke."""
    began = time.monotonic()
    read = Read()
    firsts = range(first, first + inputs, CHUNK)
    # Forked: what a reader imports late is there already, and takes none of its time.
    with ProcessPoolExecutor(mp_context=get_context("fork")) as processes:
        counts = [min(CHUNK, first + inputs - start) for start in firsts]
        for part in processes.map(partial(read_many, names), firsts, counts):
            read.counts += part.counts
            read.broken = part.broken | read.broken
            if time.monotonic() - began > seconds:
                processes.shutdown(wait=False, cancel_futures=True)
                break
    for name, count in read.counts.items():
        print(f"{name:<18}{count:>12,} inputs" + ("  BROKEN" if name in read.broken else ""))
    took = time.monotonic() - began
    print(f"{'all':<18}{read.counts.total():>12,} inputs in {took:.0f} s, seeds from {first}")
    for text in read.broken.values():
        print(f"\n{text}", file=sys.stderr)
    return len(read.broken)


def check_long_texts() -> int:
    """Every reader of text on ten million characters, and on each unit twice as often."""
    broken, began = 0, time.monotonic()
    for name in TEXT_READERS:
        of_one = time.monotonic()
        try:
            check_linear(name, UNITS)
            check_large(name)
        except AssertionError as error:
            broken += 1
            print(f"{name}: slower than linear: {error}", file=sys.stderr)
        print(
            f"{name:<18}{len(UNITS):>12} long texts in {time.monotonic() - of_one:.0f} s",
            flush=True,
        )
    took = time.monotonic() - began
    print(
        f"{'long texts':<18}{len(TEXT_READERS):>12} readers of 10,000,000 characters, {took:.0f} s"
    )
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for the pure readers")
    parser.add_argument("--seconds", type=float, default=60.0, help="at most so long for them")
    parser.add_argument("--server", type=int, default=1_000, help="inputs for a real server")
    parser.add_argument("--no-long", dest="long", action="store_false", help="no long texts")
    parser.add_argument("--reader", choices=READERS, help="only this one")
    parser.add_argument("--seed", type=int, help="with --reader: only this input")
    given = parser.parse_args()
    if given.reader and given.seed is not None:
        wrong = read_once(given.reader, given.seed)
        print(wrong or "it is read")
        raise SystemExit(wrong is not None)
    first = given.seed if given.seed is not None else time.time_ns() % 10**12
    names = [given.reader] if given.reader else list(READERS)
    broken = fuzz_readers(names, given.inputs, given.seconds, first)
    if given.long and not given.reader:
        broken += check_long_texts()
    if given.server and not given.reader:
        broken += asyncio.run(fuzz_server(given.server, first))
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()

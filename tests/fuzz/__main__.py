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
from random import Random

from tests.fuzz.large import TEXT_READERS, UNITS, check_large, check_linear
from tests.fuzz.readers import READERS
from tests.fuzz.server import fuzz_server

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


def fuzz_readers(names: list[str], seconds: float, first: int) -> int:
    """Read for so long, each reader in turn; gives the number of those that broke."""
    ends = time.monotonic() + seconds
    counts = dict.fromkeys(names, 0)
    broken: dict[str, str] = {}
    seed = first
    while time.monotonic() < ends:
        for name in names:
            for _ in range(100):
                seed += 1
                counts[name] += 1
                if name not in broken and (wrong := read_once(name, seed)):
                    broken[name] = f"{name}, seed {seed}: {wrong}"
    for name, count in counts.items():
        print(f"{name:<18}{count:>12,} inputs" + ("  BROKEN" if name in broken else ""))
    print(f"{'all':<18}{sum(counts.values()):>12,} inputs in {seconds:.0f} s, seeds from {first}")
    for text in broken.values():
        print(f"\n{text}", file=sys.stderr)
    return len(broken)


def check_long_texts() -> int:
    """Every reader of text on ten million characters, and on each unit twice as often."""
    broken = 0
    for name in TEXT_READERS:
        try:
            check_linear(name, UNITS)
            check_large(name)
        except AssertionError as error:
            broken += 1
            print(f"{name}: slower than linear: {error}", file=sys.stderr)
    print(f"{'long texts':<18}{len(TEXT_READERS):>12} readers of 10,000,000 characters")
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for the pure readers")
    parser.add_argument("--server", type=int, default=500, help="inputs for a real server")
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
    broken = fuzz_readers(names, given.seconds, first)
    if given.long and not given.reader:
        broken += check_long_texts()
    if given.server and not given.reader:
        broken += asyncio.run(fuzz_server(given.server, first))
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()

"""Chance that can be repeated: random numbers by name.

What happens to one command does not depend on how many others there are, so a case from which
something was taken out (to make it shorter) mostly goes on as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from zlib import crc32


class Chance:
    """Random numbers of one case, by name."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def of(self, *names: object) -> Random:
        """The same numbers for the same seed and names."""
        text = "\x1f".join(map(str, names)).encode()
        return Random(self.seed * 0x9E3779B1 + crc32(text))


def weighted(random: Random, choices: dict[str, float]) -> str:
    """One of the names, by weight."""
    return random.choices(list(choices), list(choices.values()))[0]


def some(random: Random, names: Sequence[str], most: int) -> list[str]:
    """Up to `most` of the names, each once, in their order."""
    count = min(len(names), random.randint(0, most))
    picked = random.sample(range(len(names)), count)
    return [names[n] for n in sorted(picked)]


def seconds(random: Random) -> float:
    """How long something takes: often no time at all, now and then very long."""
    kind = random.random()
    if kind < 0.15:
        return 0.0
    if kind < 0.75:
        return round(random.uniform(0.01, 3.0), 2)
    if kind < 0.95:
        return round(random.uniform(3.0, 60.0), 1)
    return round(random.uniform(60.0, 900.0))

"""How close a pool comes to its rate, and whether it ever passes it, by count of workers.

The server has Temporal's own settings: four partitions for each queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.processes import Site, site
from benchmarks.report import Figure, Size, figure, tell
from tests.model_server import ModelServer, Reply

PER_SECOND = 4
WINDOW = 5
ANSWER_SECONDS = 0.2
CONFIG = f"[pools.default]\nrequests_per_minute = {60 * PER_SECOND}\n"


def busiest(times: Sequence[float], seconds: float) -> float:
    """The most requests a second in any window of that length."""
    ordered = sorted(times)
    most = first = 0
    for last, at in enumerate(ordered):
        while ordered[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most / seconds


async def main(size: Size) -> list[Figure]:
    calls = size.pick(4, 60, 60)
    workers = size.pick((1,), (2,), (1, 2, 4))
    rounds = size.pick(1, 2, 4)
    used: dict[int, list[float]] = {count: [] for count in workers}
    most: dict[int, list[float]] = {count: [] for count in workers}
    async with site(is_stock=True) as place:
        for _ in range(rounds):
            for count in workers:
                times = await _times(place, count, calls)
                rate = (calls - 1) / (times[-1] - times[0])
                used[count].append(rate / PER_SECOND)
                most[count].append(busiest(times, WINDOW) / PER_SECOND)
                tell(f"{count} workers: {rate:.2f} calls a second of {PER_SECOND} allowed")
    figures: list[Figure] = []
    for count in workers:
        # The limits are stated for two workers; they hold for any.
        name = f"{calls} calls, {count} worker{'s' * (count > 1)}"
        figures += [
            figure(f"{name}: share of the rate used", used[count], at_least=0.95),
            figure(f"{name}: most in any {WINDOW} s ÷ rate", most[count], at_most=1.05),
        ]
    return figures


async def _times(place: Site, workers: int, calls: int) -> list[float]:
    """When the endpoint got each call."""
    items: list[Any] = [f"question {n}" for n in range(calls)]
    plan = {"tasks": [{"id": "all", "map": items, "ask": {"prompt": "${item}"}}]}
    with ModelServer() as model:
        model.script("question", Reply(text="answer", delay=ANSWER_SECONDS))
        async with place.crew(workers, CONFIG, OPENAI_BASE_URL=model.url) as crew:
            await crew.run({"plan": plan, "budget": {"parallel": 1_000}})
        assert len(model.requests) == calls, len(model.requests)
        return sorted(seen.at for seen in model.requests)

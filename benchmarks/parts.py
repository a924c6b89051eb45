"""The parts of the benchmarks, by name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import (
    engine,
    goals,
    history,
    hops,
    peers,
    planning,
    pools,
    scale,
    scheduler,
    startup,
    steps,
    teams,
    together,
    workers,
)
from benchmarks.report import Figure, Size

Part = Callable[[Size], Coroutine[Any, Any, list[Figure]]]
PARTS: dict[str, Part] = {
    "engine": engine.main,
    "history": history.main,
    "goals": goals.main,
    "scheduler": scheduler.main,
    "pools": pools.main,
    "workers": workers.main,
    "together": together.main,
    "peers": peers.main,
    "scale": scale.main,
    "steps": steps.main,
    "hops": hops.main,
    "planning": planning.main,
    "teams": teams.main,
    "startup": startup.main,
}
"""In this order: those with a limit first."""

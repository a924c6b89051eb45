"""A client of running plans, agents, teams and pools: the public contract, typed."""

from __future__ import annotations

from planloom.client.client import Client
from planloom.client.pool import Pool
from planloom.client.run import Run
from planloom.errors import (
    AlreadyRunning,
    NoServer,
    NoSuchRun,
    NoWorker,
    PlanloomError,
    Refused,
    RunFailed,
)

__all__ = [
    "AlreadyRunning",
    "Client",
    "NoServer",
    "NoSuchRun",
    "NoWorker",
    "PlanloomError",
    "Pool",
    "Refused",
    "Run",
    "RunFailed",
]

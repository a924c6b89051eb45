"""What the frontier is about: tasks as nodes, units, and where each stands. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from planloom.planner.language.plan import Requires
from planloom.planner.language.values import Outcome, TaskId


class State(StrEnum):
    """Where a task that has not ended stands."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """What holds a slot: a task, or one item of a map. `mode` says which body runs."""

    task: TaskId
    index: int | None = None
    mode: Literal["body", "fallback"] = "body"


@dataclass(frozen=True, slots=True)
class Node:
    """A task as the frontier needs it."""

    id: TaskId
    inputs: tuple[TaskId, ...] = ()
    conditions: tuple[TaskId, ...] = ()
    """None of them is among `inputs`, and none is named twice."""
    requires: Requires = "all"
    priority: int = 3
    rank: float = 0.0
    fallback: Literal["value", "body"] | None = None
    on_error: Literal["fail", "skip"] | None = None
    is_free: bool = False
    """Holds no slot while it runs: it waits for a person."""
    is_ahead: bool = False
    """May start before its conditions have ended, after all that need not guess."""
    fuse_seconds: float | None = None
    """How long it likely takes, when it may run in a group; None: it runs alone."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A task that ended without running: its inputs decided. `because` names them."""

    task: TaskId
    outcome: Outcome
    because: tuple[TaskId, ...]

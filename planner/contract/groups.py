"""Input and output of the activity `run_group`: many cheap tasks that share one activity."""

from __future__ import annotations

from pydantic import Field

from planloom.planner.contract.jobs import ErrorClass, TaskOutput
from planloom.planner.contract.requests import CacheMode
from planloom.planner.language.plan import Task
from planloom.planner.language.values import Bindings, Model, Outcome, Stored, TaskId, Usage


class GroupItems(Model):
    """Items of one map: those of `indexes`, in order."""

    indexes: list[int]
    source: Stored
    """The map's whole list when it is a blob; else only these items."""


class GroupJob(Model):
    """`run_group`: the tasks, and all that they read from outside. What is not set does not travel.

    Tasks read each other's outputs by their references, as in the plan.
    """

    tasks: list[Task]
    items: dict[TaskId, GroupItems] = Field(default_factory=dict)
    """Of tasks that are maps."""
    first_index: int = 0
    """What `${index}` is for an item of index 0."""
    values: Bindings = Field(default_factory=Bindings)
    """Outputs of tasks outside, and given values, by the names that references use."""
    outcomes: dict[TaskId, Outcome] = Field(default_factory=dict)
    """Of every task outside that one of these waits for."""
    keys: str = ""
    """The run's part of idempotency keys."""
    versions: dict[TaskId, int] = Field(default_factory=dict)
    """How often a task was written, where that is more than once: part of its key."""
    revision: int = 0
    cache: CacheMode = "off"
    cache_scope: str = ""
    tenant: str | None = None
    allow: list[str] | None = None
    parallel: int = 1
    """How many may run at once."""
    is_failing_fast: bool = False
    """A failure ends the run: nothing more starts after one."""


class UnitFailed(Model):
    """Why one attempt of a task or item failed."""

    message: str
    error_class: ErrorClass
    usage: Usage = Field(default_factory=Usage)
    has_begun: bool = True
    """False: its `when` could not be evaluated."""


class UnitEnd(Model):
    """How one task, or one item of a map, came out. None of the three: its `when` was not true."""

    task: TaskId
    index: int | None = None
    output: TaskOutput | None = None
    failed: UnitFailed | None = None
    alone_in: float | None = None
    """It goes on in its own activity, so many seconds from now: it takes long, or it has
    `failed` and may be tried again."""
    began: float = 0.0
    """Seconds since the group began, as is `ended`."""
    ended: float = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether a call was made for it."""
        if self.failed is not None:
            return self.failed.has_begun
        return self.output is not None or self.alone_in is not None


class GroupReply(Model):
    """What ended, in that order. Of what is not in it nothing was seen: it has not run."""

    ends: list[UnitEnd] = Field(default_factory=list)
    seconds: float = 0.0
    """How long the group took."""

"""What units and acts are called: in keys, activities and reports. Pure."""

from __future__ import annotations

from planloom.planner.language.values import TaskId


def unit_name(task: TaskId, index: int | None) -> TaskId:
    """What a unit is called: its task's id, with the index of its item."""
    return task if index is None else TaskId(f"{task}[{index}]")


def versioned(name: str, version: int) -> str:
    """The name of an act: a task that was written again does another thing than before."""
    return name if version == 1 else f"{name}.v{version}"

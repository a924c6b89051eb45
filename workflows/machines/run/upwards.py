"""What a sub-plan's run tells the run that it is part of: who waits for a person, and no more.

The run on top shows it and takes the answer in our place. A question costs each run above two
signals: one when it opens, one when it closes.
"""

from __future__ import annotations

from typing import Literal

from planloom.planner.contract.controls import ChildAsks
from planloom.planner.language.values import JsonValue
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared.commands import Tell
from planloom.workflows.machines.shared.machine import Step
from planloom.workflows.machines.shared.sizes import text_bytes

TEXT_MAX_CHARS = 2_000
SCHEMA_MAX_BYTES = 4_000
"""A larger schema stays here, and the answer is checked here only."""

Control = Literal["complete_task", "approve_task"]


def ask_upwards(
    run: RunState,
    step: Step,
    name: str,
    question: str,
    *,
    schema: dict[str, JsonValue] | None = None,
    control: Control = "complete_task",
) -> None:
    """A task of this run waits for a person: the run above shows it."""
    if schema is not None and text_bytes(schema) > SCHEMA_MAX_BYTES:
        schema = None
    me = run.identity.workflow_id
    tell_parent(
        run,
        step,
        ChildAsks(
            child=me,
            name=name,
            key=name,
            question=question[:TEXT_MAX_CHARS],
            answer_schema=schema,
            control=control,
        ),
    )


def ask_no_more(run: RunState, step: Step, name: str) -> None:
    """The task has its answer, or needs none any more."""
    tell_parent(run, step, ChildAsks(child=run.identity.workflow_id, name=name, key=name))


def tell_parent(run: RunState, step: Step, asks: ChildAsks) -> None:
    """Pass a question on, under the name that it has one level up."""
    parent = run.lineage.parent
    if parent is not None:
        task = run.identity.workflow_id.removeprefix(f"{parent}/")
        step.do(Tell(parent, "child_asks", asks.model_copy(update={"key": f"{task}.{asks.key}"})))

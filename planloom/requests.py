"""What callers give as a request: a model, a document, or fields by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from planloom.planner.contract.requests import REQUEST_MODELS


def document_of(request: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """A request as a document, with fields given by name over those of the request.

    Raises:
        TypeError: the request is a text, or no request at all.
    """
    if request is None:
        request = {}
    if isinstance(request, str):
        raise TypeError('a text is not a request; a goal is given by its name: goal="…"')
    if isinstance(request, BaseModel):
        request = request.model_dump(mode="json", exclude_unset=True, by_alias=True)
    if not isinstance(request, Mapping):
        raise TypeError(
            f"a request is a RunRequest or a dict of its fields, found {request!r:.100}"
        )
    given = {
        name: value.model_dump(mode="json", exclude_unset=True, by_alias=True)
        if isinstance(value, BaseModel)
        else value
        for name, value in fields.items()
    }
    return {**request, **given}


def check_text(name: str, value: Any) -> None:
    """
    Raises:
        TypeError: the value, given as `name`, is not a text.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is a text, found {value!r:.100}")


def check_seconds(timeout: Any) -> None:
    """
    Raises:
        TypeError: a timeout that is not a number of seconds, or None.
    """
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
        raise TypeError(f"timeout is a number of seconds, found {timeout!r:.100}")


def check_json(what: str, value: Any) -> None:
    """
    Raises:
        TypeError: the value cannot be sent, because something in it is not JSON.
    """
    try:
        to_json(value)
    except PydanticSerializationError as error:
        raise TypeError(f"{what} is not JSON: {error}") from None


def not_ended(id: str, timeout: float | None) -> TimeoutError:
    """What is raised when nobody waits any longer."""
    return TimeoutError(f'run "{id}" has not ended within {timeout:g} s; it continues')


def workflow_of(request: Any, document: dict[str, Any]) -> str:
    """The type of workflow that runs it."""
    for workflow, model in REQUEST_MODELS.items():
        if isinstance(request, model):
            return workflow
    if request is None and "agent" in document:
        return "AgentWorkflow"
    return "TeamWorkflow" if request is None and "team" in document else "DagWorkflow"


def title_of(document: dict[str, Any]) -> str | None:
    """What the Web UI shows beside the run's id: its goal."""
    plan = document.get("plan")
    goal = document.get("goal") or document.get("task") or document.get("template")
    goal = goal or (plan.get("goal") if isinstance(plan, dict) else None)
    return str(goal)[:200] if goal else None


def check_names(workflow: str, fields: dict[str, Any]) -> None:
    """A typing error is known here; what a field holds is checked by the run, all of it at once.

    Raises:
        TypeError: no request of this workflow has a field of that name.
    """
    known = REQUEST_MODELS[workflow].model_fields if workflow in REQUEST_MODELS else {}
    for name in fields:
        if known and name not in known:
            near = get_close_matches(name, list(known), n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Fields: " + ", ".join(known)
            raise TypeError(f'a {REQUEST_MODELS[workflow].__name__} has no field "{name}". {hint}')

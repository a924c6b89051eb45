"""The buttons of a live page: what may be sent, and the form that answers each wait."""

from __future__ import annotations

import json
from typing import Any

from planloom.console.report.facts import RunFacts
from planloom.planner.contract.results import OpenWait
from planloom.planner.syntax.json_text import json_or_text

ALLOWED = (
    "approve_plan",
    "reject_plan",
    "approve_task",
    "complete_task",
    "raise_budget",
    "pause",
    "resume",
)
"""The updates that a live page may send."""


def controls_of(facts: RunFacts) -> dict[str, str] | None:
    """Pause or resume, while the run is in progress."""
    if facts.is_over or facts.progress is None:
        return None
    if facts.progress.status == "paused":
        return {"update": "resume", "label": "Resume"}
    return {"update": "pause", "label": "Pause"}


def forms_of(wait: OpenWait) -> list[dict[str, Any]]:
    """The form that answers a wait; none where another run or pool must give."""
    match wait.update:
        case "approve_plan":
            revision = {"revision": wait.input.get("revision")}
            buttons = [
                _button("Approve", "yes", "approve_plan", revision),
                _button("Reject", "no", "reject_plan", revision),
            ]
            return [_form([_field("by", "your name"), _field("note", "why (recorded)")], buttons)]
        case "approve_task":
            task = {"id": wait.input.get("id")}
            buttons = [
                _button("Approve", "yes", "approve_task", {**task, "approve": True}),
                _button("Reject", "no", "approve_task", {**task, "approve": False}),
            ]
            return [_form([_field("by", "your name"), _field("note", "why (recorded)")], buttons)]
        case "complete_task":
            answer = _field("output", "your answer, as text or JSON", is_long=True)
            task = {"id": wait.input.get("id")}
            buttons = [_button("Answer", "yes", "complete_task", task)]
            return [_form([answer, _field("by", "your name")], buttons)]
        case "raise_budget":
            fields = [_field(k, f"new cap on {k}", str(v)) for k, v in wait.input.items()]
            buttons = [_button("Raise the budget", "yes", "raise_budget", {})]
            return [_form([*fields, _field("by", "your name")], buttons)]
    return []


def payload_of(update: str, given: dict[str, Any]) -> dict[str, Any]:
    """What a form sends, as the contract wants it: JSON where it is JSON, and no empty fields."""
    payload = {k: v for k, v in given.items() if v not in ("", None)}
    if update == "reject_plan" and "note" in payload:
        payload["reason"] = payload.pop("note")
    for name in ("output", "tokens", "usd", "tasks", "parallel"):
        if isinstance(text := payload.get(name), str):
            payload[name] = json_or_text(text)
    return payload


def _form(fields: list[dict[str, Any]], buttons: list[dict[str, str]]) -> dict[str, Any]:
    return {"fields": fields, "buttons": buttons, "update": "", "input": "{}"}


def _field(name: str, label: str, value: str = "", *, is_long: bool = False) -> dict[str, Any]:
    shown = {"name": name, "label": label, "value": value}
    return {**shown, "is_long": is_long, "is_required": is_long}


def _button(label: str, css: str, update: str, payload: dict[str, Any]) -> dict[str, str]:
    return {"label": label, "css": css, "update": update, "input": json.dumps(payload)}

"""The joiner's answer: finish with an answer, or replan with a reason. Never guessed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from planner.values import JsonValue, Problem

JOIN_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "thought": {"type": "string"},
        "action": {"type": "string", "enum": ["finish", "replan"]},
        "answer": {"description": "with finish: the answer to the goal"},
        "feedback": {"type": "string", "description": "with replan: what is missing, and why"},
    },
    "required": ["action"],
}


@dataclass(frozen=True, slots=True)
class JoinDecision:
    """What the joiner decided."""

    action: Literal["finish", "replan"]
    answer: JsonValue = None
    feedback: str = ""
    thought: str = ""


_ACTION = re.compile(r"^[ \t>*_#-]*Action[*_ \t]*:[*_ \t]*(Finish|Replan)\b[ \t]*", re.I | re.M)
_BARE = re.compile(r"^[ \t>*_#-]*(Finish|Replan)[ \t]*\(", re.I | re.M)
_THOUGHT = re.compile(r"^[ \t>*_#-]*Thought[*_ \t]*:[*_ \t]*(.*)$", re.I | re.M)
_HINT = 'Answer with {"action": "finish", "answer": …} or {"action": "replan", "feedback": "…"}.'


def parse_join(text: str) -> JoinDecision | list[Problem]:
    """The decision in a joiner's answer, as JSON or in LLMCompiler's text, or the problems."""
    text = text.replace("\r", "").split("<END_OF_RESPONSE>")[0]
    document = _json_in(text)
    if document is not None:
        return _from_json(document)
    actions = list(_ACTION.finditer(text)) or list(_BARE.finditer(text))
    if not actions:
        said = text.strip()[:80]
        message = f'no action found in "{said}"' if said else "the answer is empty"
        return [Problem(path="join", code="no_action", message=message, hint=_HINT)]
    return _from_text(text, actions[-1])


def _json_in(text: str) -> dict[str, Any] | None:
    """The first JSON object with an action in it, fenced or with prose around."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            found, _ = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            found = None
        if isinstance(found, dict) and "action" in found:
            return found
        at = text.find("{", at + 1)
    return None


def _from_json(document: dict[str, Any]) -> JoinDecision | list[Problem]:
    thought = str(document.get("thought") or "")
    match str(document["action"]).lower():
        case "finish" if "answer" in document:
            return JoinDecision("finish", answer=document["answer"], thought=thought)
        case "replan" if str(document.get("feedback") or "").strip():
            return JoinDecision("replan", feedback=str(document["feedback"]), thought=thought)
        case "finish":
            missing = 'finish needs "answer"'
        case "replan":
            missing = 'replan needs "feedback": what is missing, and why'
        case other:
            missing = f'action "{other}" is neither finish nor replan'
    return [Problem(path="join", code="bad_action", message=missing, hint=_HINT)]


def _from_text(text: str, action: re.Match[str]) -> JoinDecision | list[Problem]:
    start = action.end()
    kind: Literal["finish", "replan"] = "finish" if action[1].lower() == "finish" else "replan"
    if action.re is _BARE:
        start -= 1
    inner = _in_brackets(text, start)
    if inner is None:
        inner = text[start:].strip(" \t:*_")
    inner = inner.strip()
    thoughts = _THOUGHT.findall(text[: action.start()])
    thought = thoughts[-1].strip() if thoughts else ""
    if kind == "replan":
        return JoinDecision(
            "replan", feedback=inner or thought or "no reason given", thought=thought
        )
    if not inner:
        message = "Finish has no answer"
        return [Problem(path="join", code="no_answer", message=message, hint=_HINT)]
    return JoinDecision("finish", answer=inner, thought=thought)


def _in_brackets(text: str, start: int) -> str | None:
    """What stands in the brackets that open at `start`; an answer may hold brackets of its own.

    The closing bracket is the one that matches, else the last on the last line that has one.
    """
    if not text.startswith("(", start):
        return None
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            rest = text[at + 1 :].strip(" \t*_.")
            if not rest or rest.startswith("\n"):
                return text[start + 1 : at]
            depth = 1  # it closed too early: the answer itself is unbalanced
    last = text.rfind(")")
    return text[start + 1 : last] if last > start else text[start + 1 :]

"""The joiner's answer: finish with an answer, replan with a reason, or look. Never guessed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from planloom.planner.language.values import JsonValue, Problem
from planloom.planner.syntax.json_text import objects_in, parse_json

LOOKS_MAX = 2
"""How often one joining may ask to see more of outputs that were cut."""
LOOK_IDS_MAX = 5
"""Outputs of one look: more of them would hardly be shown larger than before."""
QUESTION_MAX_CHARS = 500

JOIN_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "thought": {"type": "string"},
        "action": {"type": "string", "enum": ["finish", "replan", "look"]},
        "answer": {"description": "with finish: the answer to the goal"},
        "feedback": {"type": "string", "description": "with replan: what is missing, and why"},
        "ids": {
            "type": "array",
            "items": {"type": "string"},
            "description": "with look: of outputs that were cut, those to see more of",
        },
        "question": {"type": "string", "description": "with look: what is looked for in them"},
    },
    "required": ["action"],
}


@dataclass(frozen=True, slots=True)
class JoinDecision:
    """What the joiner decided."""

    action: Literal["finish", "replan", "look"]
    answer: JsonValue = None
    feedback: str = ""
    thought: str = ""
    ids: tuple[str, ...] = ()
    question: str = ""


_ACTION = re.compile(r"^[ \t>*_#-]*Action[*_ \t]*:[*_ \t]*(Finish|Replan)\b[ \t]*", re.I | re.M)
_BARE = re.compile(r"^[ \t>*_#-]*(Finish|Replan)(?=[ \t]*\()[ \t]*", re.I | re.M)
_THOUGHT = re.compile(r"^[ \t>*_#-]*Thought[*_ \t]*:[*_ \t]*(.*)$", re.I | re.M)
_QUOTED = re.compile(r'"([^"]*)"|\'([^\']*)\'')
_HINT = 'Answer with {"action": "finish", "answer": …} or {"action": "replan", "feedback": "…"}.'
_ACTIONS = ("finish", "replan", "look")
_ACTIONS_MAX = 50
"""How many places of a text are looked at."""
_WRAPPERS_MAX = 3
"""How deep inside other objects a decision is looked for."""


def parse_join(text: str) -> JoinDecision | list[Problem]:
    """The decision in a joiner's answer, as JSON or in LLMCompiler's text, or the problems.

    Of several decisions the last counts. JSON goes before text; JSON whose action is none of the
    three is a decision gone wrong only when no text form is there either.
    """
    text = text.replace("\r", "").split("<END_OF_RESPONSE>")[0]
    documents = _decisions_in(text)
    good = [d for d in documents if str(d["action"]).strip().lower() in _ACTIONS]
    action = _last_action(text, _ACTION)
    if good and not (action and _is_inside(text, action)):
        return _from_json(good[-1])
    action = action or _last_action(text, _BARE)
    if action is not None:
        return _from_text(text, action)
    if documents:
        return _from_json(documents[-1])
    beginning = text.strip()[:80]
    message = f'no action found in "{beginning}"' if beginning else "the answer is empty"
    return [Problem(path="join", code="no_action", message=message, hint=_HINT)]


def _decisions_in(text: str) -> list[dict[str, Any]]:
    """The JSON objects with an action, fenced, wrapped or with prose around, in order."""
    decisions = [d for d in map(_decision, objects_in(text)) if d is not None]
    begins = [m.start() for m in re.finditer(r"\{", text)][:_ACTIONS_MAX]
    while begins and not decisions:  # a stray brace or quote in prose hides what follows
        inner = objects_in(text[begins.pop(0) + 1 :])
        decisions = [d for d in map(_decision, inner[:_ACTIONS_MAX]) if d is not None]
    return decisions


def _decision(text: str) -> dict[str, Any] | None:
    try:
        return _unwrapped(parse_json(text), _WRAPPERS_MAX)
    except ValueError:
        return None


def _unwrapped(document: Any, depth: int) -> dict[str, Any] | None:
    if not isinstance(document, dict):
        return None
    if "action" in document:
        return document
    inner = (_unwrapped(v, depth - 1) for v in document.values()) if depth else ()
    return next((d for d in inner if d is not None), None)


def _from_json(document: dict[str, Any]) -> JoinDecision | list[Problem]:
    thought = str(document.get("thought") or "")
    match str(document["action"]).strip().lower():
        case "finish" if "answer" in document:
            return JoinDecision("finish", answer=document["answer"], thought=thought)
        case "replan" if str(document.get("feedback") or "").strip():
            return JoinDecision("replan", feedback=str(document["feedback"]), thought=thought)
        case "look" if (ids := _ids(document.get("ids"))) is not None:
            question = str(document.get("question") or "").strip()[:QUESTION_MAX_CHARS]
            return JoinDecision("look", ids=ids, question=question, thought=thought)
        case "look":
            missing = 'look needs "ids": a list of the ids of outputs that were cut'
        case "finish":
            missing = 'finish needs "answer"'
        case "replan":
            missing = 'replan needs "feedback": what is missing, and why'
        case other:
            missing = f'action "{other[:40]}" is neither finish nor replan nor look'
    return [Problem(path="join", code="bad_action", message=missing, hint=_HINT)]


def _ids(given: Any) -> tuple[str, ...] | None:
    """The ids of a look, each once; one id may stand without its list."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not listed or not all(isinstance(i, str) for i in listed):
        return None
    return tuple(dict.fromkeys(i.strip() for i in listed))


def check_look(decision: JoinDecision, cut: Sequence[str], looks_left: int) -> list[Problem]:
    """Why a look cannot be had; `cut` are the outputs that were not shown whole."""
    if decision.action != "look":
        return []
    if looks_left <= 0 or not cut:
        why = "no look is left" if cut else "every output is shown as far as it can be"
        return [Problem(path="join", code="no_look", message=why, hint=_HINT)]
    unknown = [i for i in decision.ids if i not in cut]
    if unknown:
        names = ", ".join(f'"{i[:40]}"' for i in unknown[:10])
        ids = ", ".join(cut[:40])
        hint = f"Outputs that were cut: {ids}."
        return [Problem(path="join", code="unknown_id", message=f"not cut: {names}", hint=hint)]
    if len(decision.ids) > LOOK_IDS_MAX:
        message = f"{len(decision.ids)} ids; at most {LOOK_IDS_MAX} at once"
        return [Problem(path="join", code="too_many", message=message)]
    return []


def _last_action(text: str, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """The last action that does not stand inside the brackets of one before it."""
    last, at = None, 0
    for _ in range(_ACTIONS_MAX):
        match = pattern.search(text, at)
        if match is None:
            break
        last = match
        end = _closing(text, match.end())
        at = match.end() if end is None else end + 1
    return last


def _is_inside(text: str, action: re.Match[str]) -> bool:
    """Whether the JSON is the answer that the text form holds: `Finish({"action": …})`."""
    if not text.startswith("(", action.end()):
        return False
    end = _closing(text, action.end())
    return action.end() < text.find("{") < (len(text) if end is None else end)


def _from_text(text: str, action: re.Match[str]) -> JoinDecision | list[Problem]:
    kind: Literal["finish", "replan"] = "finish" if action[1].lower() == "finish" else "replan"
    inner = _in_brackets(text, action.end())
    if inner is None:
        inner = text[action.end() :].strip(" \t:*_")
    inner = inner.strip()
    thoughts = _THOUGHT.findall(text[: action.start()])
    thought = thoughts[-1].strip() if thoughts else ""
    if quoted := _QUOTED.fullmatch(inner):
        inner = quoted[1] if quoted[1] is not None else quoted[2]
    if kind == "replan":
        return JoinDecision(
            "replan", feedback=inner or thought or "no reason given", thought=thought
        )
    if not inner:
        message = "Finish has no answer"
        return [Problem(path="join", code="no_answer", message=message, hint=_HINT)]
    return JoinDecision("finish", answer=inner, thought=thought)


def _in_brackets(text: str, start: int) -> str | None:
    """What stands in the brackets that open at `start`; an answer may hold brackets of its own."""
    if not text.startswith("(", start):
        return None
    end = _closing(text, start)
    if end is None:
        last = text.rfind(")")
        end = last if last > start else len(text)
    return text[start + 1 : end]


def _closing(text: str, start: int) -> int | None:
    """Where the bracket that opens at `start` closes: the one that matches and ends its line."""
    if not text.startswith("(", start):
        return None
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            if _ends_line(text, at + 1):
                return at
            depth = 1  # it closed too early: the answer itself is unbalanced
    return None


def _ends_line(text: str, at: int) -> bool:
    while at < len(text) and text[at] in " \t*_.`":
        at += 1
    return at == len(text) or text[at] == "\n"

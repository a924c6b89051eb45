"""The joiner's answer: finish with an answer, replan with a reason, or look. Never guessed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from planloom.planner.language.clean_text import clean_text
from planloom.planner.language.values import JsonValue, Problem
from planloom.planner.syntax.json_text import json_in, parse_json

LOOKS_MAX = 2
"""How often one joining may ask to see more of outputs that were cut."""
LOOK_IDS_MAX = 5
"""Outputs of one look: more of them would hardly be shown larger than before."""
QUESTION_MAX_CHARS = 500

_ANSWER_TYPES = ("string", "number", "boolean", "null", "array", "object")
JOIN_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "thought": {"type": "string"},
        "action": {"type": "string", "enum": ["finish", "replan", "look"]},
        "answer": {
            # Each type by name: llama.cpp reads a schema without one as an object, or refuses it.
            "anyOf": [{"type": kind} for kind in _ANSWER_TYPES],
            "description": "with finish: the answer to the goal",
        },
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


_LINE = r"^[ \t>*_#-]*"
_ACTION = re.compile(_LINE + r"Action[*_ \t]*[:：][*_ \t`]*(Finish|Replan)\b[ \t]*", re.I | re.M)
_BARE = re.compile(_LINE + r"(Finish|Replan)(?=[ \t]*[(\[（])[ \t]*", re.I | re.M)
_FINAL = re.compile(_LINE + r"(Final[ _]Answer)[*_ \t]*[:：]", re.I | re.M)
_INPUT = re.compile(
    r"[\s*_>`#-]*(?:Action[ _]?Input|(?:Final[ _]?)?Answer|Output)[*_ \t]*[:：][*_]*", re.I
)
_KEYWORD = re.compile(
    r"(?:(?:answer|final_answer|result)[ \t]*=[ \t]*(?=[\"'\[{])|"
    r"(?:answer|final_answer)=(?=[-\d]|true\b|false\b))",
    re.I,
)
_PLACEHOLDER = re.compile(r"\s*(?:\.{3}|…|<[a-z _-]{1,40}>)?\s*\Z", re.I)
"""Nothing, or the place of an answer that was never filled in."""
_STARS = re.compile(r"[*_`]{1,3}(?=[(\[（])")
_THOUGHT = re.compile(_LINE + r"Thought[*_ \t]*:[*_ \t]*(.*)$", re.I | re.M)
_QUOTED = re.compile(r'"([^"]*)"|\'([^\']*)\'')
_HINT = 'Answer with {"action": "finish", "answer": …} or {"action": "replan", "feedback": "…"}.'
_ACTIONS = ("finish", "replan", "look")
_ANSWERS = ("answer", "action_input", "final_answer", "response", "output")
_REASONS = ("feedback", "reason", "action_input")
"""Under which names models write the answer, and the reason of a replan; the first is the rule."""
_ACTIONS_MAX = 50
"""How many actions of a text are looked at."""
_LOOKED_AT_MAX = 4
"""How often, on average, a character is looked at for the ends of brackets."""
_WRAPPERS_MAX = 3
"""How deep inside other objects a decision is looked for."""


def parse_join(text: str, *, is_cut_off: bool = False) -> JoinDecision | list[Problem]:
    """The decision in a joiner's answer, as JSON or in LLMCompiler's text, or the problems.

    Of several decisions the last counts. JSON goes before text; JSON whose action is not one of the
    three is a decision gone wrong only when no text form is there either. An answer that was cut
    off at its limit holds no decision: what it says is not whole.
    """
    if is_cut_off:
        message = "the answer was cut off at its limit before its end"
        return [Problem(path="join", code="cut_off", message=message, hint="Be brief.")]
    text = clean_text(text).replace("\r", "").split("<END_OF_RESPONSE>")[0]
    brackets = _Brackets(text)
    documents = _decisions_in(text)
    good = [d for d in documents if str(d["action"]).strip().lower() in _ACTIONS]
    action = _last_action(text, _ACTION, brackets)
    if good and not (action and _is_inside(text, action, brackets)):
        return _from_json(good[-1])
    action = action or _last_action(text, _BARE, brackets) or _last_final(text)
    if action is not None:
        return _from_text(text, action, brackets)
    if documents:
        return _from_json(documents[-1])
    beginning = text.strip()[:80]
    message = f'no action found in "{beginning}"' if beginning else "the answer is empty"
    return [Problem(path="join", code="no_action", message=message, hint=_HINT)]


def _decisions_in(text: str) -> list[dict[str, Any]]:
    """The JSON objects with an action, fenced, wrapped or with prose around, in order."""
    found = (_unwrapped(each.value, _WRAPPERS_MAX) for each in json_in(text))
    return [document for document in found if document is not None]


def _unwrapped(document: Any, depth: int) -> dict[str, Any] | None:
    if not isinstance(document, dict):
        return None
    given = {str(key).lower().replace(" ", "_"): value for key, value in document.items()}
    if "action" in document or "action" in given:
        return document if "action" in document else given
    inner = (_unwrapped(v, depth - 1) for v in document.values()) if depth else ()
    return next((d for d in inner if d is not None), None)


def _value_of(document: dict[str, Any], names: Sequence[str]) -> Any:
    return next((document[name] for name in names if name in document), None)


def _from_json(document: dict[str, Any]) -> JoinDecision | list[Problem]:
    thought = str(document.get("thought") or "")
    match str(document["action"]).strip().lower():
        case "finish" if _is_placeholder(_value_of(document, _ANSWERS)):
            missing = "finish has no answer"
        case "finish" if any(name in document for name in _ANSWERS):
            return JoinDecision("finish", answer=_answer_of(document), thought=thought)
        case "replan" if reason := str(_value_of(document, _REASONS) or "").strip():
            return JoinDecision("replan", feedback=reason, thought=thought)
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


def _answer_of(document: dict[str, Any]) -> JsonValue:
    """The answer, also where the action's input is an object that holds nothing else."""
    given: JsonValue = _value_of(document, _ANSWERS)
    if "answer" not in document and isinstance(given, dict) and len(given) == 1:
        ((name, inner),) = given.items()
        return inner if name in _ANSWERS else given
    return given


def _is_placeholder(value: Any) -> bool:
    return isinstance(value, str) and _PLACEHOLDER.match(value) is not None


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


def _last_action(text: str, pattern: re.Pattern[str], brackets: _Brackets) -> re.Match[str] | None:
    """The last action that does not stand inside the brackets of one before it."""
    last, at = None, 0
    for _ in range(_ACTIONS_MAX):
        match = pattern.search(text, at)
        if match is None:
            break
        last = match
        end = brackets.closing(match.end())
        at = match.end() if end is None else end + 1
    return last


def _last_final(text: str) -> re.Match[str] | None:
    return next(iter(deque(_FINAL.finditer(text), maxlen=1)), None)


def _is_inside(text: str, action: re.Match[str], brackets: _Brackets) -> bool:
    """Whether the JSON is the answer that the text form holds: `Finish({"action": …})`."""
    if text[action.end() : action.end() + 1] not in ("(", "[", "（"):
        return False
    end = brackets.closing(action.end())
    return action.end() < text.find("{") < (len(text) if end is None else end)


def _from_text(
    text: str, action: re.Match[str], brackets: _Brackets
) -> JoinDecision | list[Problem]:
    kind: Literal["finish", "replan"] = "replan" if action[1].lower() == "replan" else "finish"
    stars = _STARS.match(text, action.end())  # Action: **Finish**(42)
    inner = brackets.inside(stars.end() if stars else action.end())
    answer: JsonValue = None
    if inner is None:
        inner = text[action.end() :].strip(" \t:*_")
        if given := _INPUT.match(inner):
            inner = inner[given.end() :]
            answer = _wrapped_answer(inner, _ANSWERS if kind == "finish" else _REASONS)
            if answer is None and inner.strip().startswith(('{"', "{'")) and _is_broken(inner):
                message = f"the input of {action[1]} is not whole"
                return [Problem(path="join", code="broken_input", message=message, hint=_HINT)]
    elif kind == "finish" and (keyword := _KEYWORD.match(inner.strip())):
        inner = inner.strip()[keyword.end() :]  # Finish(answer="42")
    inner = inner.strip()
    thoughts = _THOUGHT.findall(text[: action.start()])
    thought = thoughts[-1].strip() if thoughts else ""
    if quoted := _QUOTED.fullmatch(inner):
        inner = quoted[1] if quoted[1] is not None else quoted[2]
    if kind == "replan":
        reason = str(answer or inner or thought or "no reason given")
        return JoinDecision("replan", feedback=reason, thought=thought)
    if answer is not None:
        return JoinDecision("finish", answer=answer, thought=thought)
    if _is_placeholder(inner):
        message = "Finish has no answer"
        return [Problem(path="join", code="no_answer", message=message, hint=_HINT)]
    return JoinDecision("finish", answer=inner, thought=thought)


def _is_broken(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return True
    return False


def _wrapped_answer(text: str, names: Sequence[str]) -> JsonValue:
    """The answer of `Action Input: {"answer": …}`; None when it is not written so."""
    try:
        document = parse_json(text)
    except ValueError:
        return None
    is_wrapped = isinstance(document, dict) and len(document) == 1
    return _value_of(document, names) if is_wrapped else None


class _Brackets:
    """Where the brackets of a text close. All look-ups together take linear time."""

    _SIGNS: dict[str, re.Pattern[str]] = {  # noqa: RUF012 - never changed
        "(": re.compile(r"[()]"),
        "[": re.compile(r"[\[\]]"),
        "（": re.compile(r"[（）]"),
    }
    _ENDS = re.compile(r"[ \t*_.`]{0,200}(?:\n|\Z)")

    def __init__(self, text: str) -> None:
        self._text = text
        self._work = _LOOKED_AT_MAX * len(text) + 10_000

    def closing(self, start: int) -> int | None:
        """Where the bracket that opens at `start` closes: where it matches and ends its line."""
        text, opened = self._text, self._text[start : start + 1]
        signs = self._SIGNS.get(opened)
        if signs is None or self._work <= 0:
            return None
        depth, end = 0, None
        for sign in signs.finditer(text, start):
            depth += 1 if sign[0] == opened else -1
            if depth == 0:
                if self._ENDS.match(text, sign.end()):
                    end = sign.start()
                    break
                depth = 1  # it closed too early: the answer itself is unbalanced
        self._work -= (len(text) if end is None else end) - start
        return end

    def inside(self, start: int) -> str | None:
        """What stands in the bracket that opens at `start`; an answer may hold brackets itself."""
        opened = self._text[start : start + 1]
        if opened not in self._SIGNS:
            return None
        end = self.closing(start)
        if end is None:
            last = self._text.rfind({"(": ")", "[": "]", "（": "）"}[opened])
            end = last if last > start else len(self._text)
        return self._text[start + 1 : end]

"""The labelled form in which agents and members answer: `SUMMARY:`, `CLAIM:`, `RESULT:` … Pure.

Labels are English, one at the start of a line, case ignored; a field is the rest of its line, or
the lines below it up to the next label. Read as well: labels as headings (`## SUMMARY`), numbered,
bold, with the colons of other scripts, and JSON with the same names.
Source: facts on the agents runtime, §1d.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from planloom.planner.language.values import JsonValue
from planloom.planner.syntax.json_text import json_in

LABELS = (
    "SUMMARY",
    "CLAIM",
    "EVIDENCE",
    "DISCUSSION",
    "RESULT",
    "NEXT_STEP",
    "CONFIDENCE",
)
AGENT_REQUIRED = ("SUMMARY", "RESULT", "NEXT_STEP")
MEMBER_REQUIRED = ("SUMMARY", "CLAIM", "EVIDENCE", "RESULT", "NEXT_STEP")
AGENT_MIN_CHARS = 48
MEMBER_MIN_CHARS = 80
MEMBER_WRAP_MIN_CHARS = 10
CONFIDENCE_DEFAULT = 0.5

_LABEL = re.compile(
    r"^(?P<lead>[ \t>*#＃_•+|\u200b\ufeff-]{0,12})"
    r"(?:[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]{1,4}[ \t]{0,3})?"
    r"(?:\(?(?:\d{1,2}|[A-Z]|[IVX]{1,4})[.)][ \t]{0,3})?(?P<bold>[*_`\[<【「]{0,3})"
    r"(?P<name>SUMMARY|CLAIMS?|EVIDENCE|DISCUSSION|RESULTS?|NEXT[ _-]?STEPS?|CONFIDENCE)"
    r"(?P<close>[*_`\]>】」]{0,3})(?:[ \t]?\([^()\n]{1,60}\)(?=[*_ \t]{0,4}[:：]))?[*_]{0,3}"
    r"[ \t]{0,4}(?P<colon>[:：﹕︰]|[-–—→|=](?=[ \t])|)(?P<after>[*_`]{0,3})(?P<rest>[^\n]?)",
    re.MULTILINE | re.IGNORECASE,
)
_RULE = re.compile(r"\A[=-]{3,}[ \t]*\n")
"""What underlines a heading."""
_TAG = re.compile(
    r"<(/?)(SUMMARY|CLAIMS?|EVIDENCE|DISCUSSION|RESULTS?|NEXT[ _-]?STEPS?|CONFIDENCE)>",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\A\s*```[\w-]*\n|\n[ \t]*```\s*\Z")


@dataclass(frozen=True, slots=True)
class _Mark:
    """A label as it stands in a text. A weak one is a plain word: `Evidence:`."""

    label: str
    start: int
    end: int
    is_strong: bool
    is_bold: bool


def parse_labelled(text: str, labels: Collection[str] = LABELS) -> dict[str, str]:
    """The fields of an answer by label in capitals; of several whole answers the last.

    `labels` are those of the form that was asked for: only these are read when they stand as plain
    words among decorated ones, where `Evidence: …` may be a line of the result.
    """
    text = _FENCE.sub("", text)
    closed = {m[2].upper() for m in _TAG.finditer(text) if m[1]} if "</" in text else set()
    if "RESULT" in closed and len(closed) > 1:  # one alone may be a page's own, such as <summary>
        text = _TAG.sub(_untagged, text)
    marks = _marks(text, labels)
    if len({m.label for m in marks}) < 2 and (from_json := _from_json(text)):
        return from_json
    if not marks:
        return {}
    ends = [m.start for m in marks[1:]] + [len(text)]
    groups: list[dict[str, str]] = [{}]
    for mark, end in zip(marks, ends, strict=True):
        value = _RULE.sub("", text[mark.end : end].strip()).removesuffix("|").rstrip()
        value = value.removesuffix(f"</{mark.label}>").rstrip()
        if mark.is_bold and "**" not in value.removesuffix("**"):
            value = value.removesuffix("**").rstrip()
        if groups[-1] and mark.label == next(iter(groups[-1])):
            groups.append({})
        groups[-1].setdefault(mark.label, value)
    whole = [g for g in groups if g.get("RESULT")]
    if whole:
        return whole[-1]
    return {label: value for group in reversed(groups) for label, value in group.items()}


def _untagged(match: re.Match[str]) -> str:
    """`<summary>` as a label, whatever stands before it on its line."""
    return "\n" if match[1] else f"\n{match[2].upper()}: "


def _marks(text: str, labels: Collection[str]) -> list[_Mark]:
    marks = [mark for match in _LABEL.finditer(text) if (mark := _mark_of(match)) is not None]
    strong = {m.label for m in marks if m.is_strong}
    if not strong:
        return marks
    return [m for m in marks if m.is_strong or (m.label in labels and m.label not in strong)]


def _mark_of(match: re.Match[str]) -> _Mark | None:
    name, lead = match["name"], match["lead"]
    is_bold = bool(set(match["bold"]) & set("*_")) or lead.rstrip().endswith(("**", "__"))
    is_heading = "#" in lead or "＃" in lead
    is_upper = name.isupper()
    is_boxed = (
        is_upper and match["bold"][-1:] in tuple("[<【「") and match["close"][:1] in tuple("]>】」")
    )
    if match["colon"] in tuple("-–—→|=") and not is_upper:
        return None
    if not match["colon"] and not is_boxed:
        # Without a colon only what is clearly no sentence, and alone on its line.
        is_alone = not match["rest"].strip()
        if not is_alone or not (is_heading or is_upper or (is_bold and match["close"])):
            return None
    label = re.sub(r"[ -]", "_", name.upper()).rstrip("S") if name.upper() != "SUMMARY" else name
    label = {"NEXTSTEP": "NEXT_STEP"}.get(label.upper(), label.upper())
    end = match.start("rest")
    is_strong = is_upper or is_heading or is_bold
    return _Mark(label, match.start(), end, is_strong, is_bold and not match["close"])


def _from_json(text: str) -> dict[str, str]:
    found = [each.value for each in json_in(text)]
    if text.lstrip().startswith('"'):  # the object's brackets are missing
        found += [each.value for each in json_in(f"{{{text.strip().removesuffix(',')}}}")]
    for value in reversed(found):
        if not isinstance(value, dict):
            continue
        fields = {re.sub(r"[ -]", "_", k.upper()): v for k, v in value.items()}
        if "RESULT" in fields:
            return {k: _as_text(fields[k]) for k in LABELS if k in fields}
    return {}


def _as_text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(_as_text(v) for v in value)
    return json.dumps(value, ensure_ascii=False)


def problem_with(text: str, required: Sequence[str], chars_min: int) -> str | None:
    """Why an answer does not pass the plain check, in the order the reasons are tested."""
    plain = text.strip()
    if not plain:
        return "empty output"
    if len(plain) < chars_min:
        return f"too short ({len(plain)} chars)"
    fields = parse_labelled(plain)
    missing = [f"{label}:" for label in required if label not in fields]
    if missing:
        return "missing labels: " + ", ".join(missing)
    if "CLAIM" not in required and not fields.get("RESULT"):
        return "empty RESULT section"
    return None


FieldLimits = Mapping[str, tuple[int, int, bool]]
"""Of each field: fewest and most characters, and whether it is needed."""
AGENT_LIMITS: FieldLimits = {
    "SUMMARY": (10, 500, True),
    "RESULT": (20, 10_000, True),
    "NEXT_STEP": (0, 500, False),
}
MEMBER_LIMITS: FieldLimits = {
    "SUMMARY": (10, 300, True),
    "CLAIM": (10, 500, True),
    "EVIDENCE": (5, 2_000, True),
    "DISCUSSION": (0, 3_000, False),
    "RESULT": (20, 10_000, True),
    "NEXT_STEP": (1, 500, True),
}


def field_violations(fields: Mapping[str, str], limits: FieldLimits) -> list[str]:
    """What does not fit the form, as `FIELD:missing`, `FIELD:too_short` or `FIELD:too_long`."""
    violations = []
    for name, (least, most, is_needed) in limits.items():
        text = fields.get(name)
        if text is None:
            violations += [f"{name}:missing"] if is_needed else []
        elif len(text) < least:
            violations.append(f"{name}:too_short")
        elif len(text) > most:
            violations.append(f"{name}:too_long")
    return violations


_FORM_RANGE = re.compile(r"\b0(?:\.0)?\s*(?:to|and|-|–|…|\.\.)\s*1(?:\.0)?\b")
_NUMBER = re.compile(r"-?(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d{1,3})?")
_PART_OF = re.compile(r"\s*(?:[/／⁄∕]|out of|of|von|sur)\s*(\d+(?:[.,]\d+)?)", re.IGNORECASE)


def parse_confidence(text: str | None) -> float | None:
    """`80%` and `85` are parts of a hundred, `8/10` is one of ten, `0.8` and `1` are as they are.

    None when it is not a number, or may mean two things: `9` of ten, or of a hundred.
    """
    plain = _FORM_RANGE.sub(" ", text or "")
    match = _NUMBER.search(plain)
    if match is None:
        return None
    value = float(match[0].replace(",", "."))
    behind = plain[match.end() :]
    if whole := _PART_OF.match(behind):
        most = float(whole[1].replace(",", "."))
        if most <= 0:
            return None
        value /= most
    elif behind.lstrip().startswith(("%", "％", "percent", "per cent")):
        value /= 100
    elif 1 < value <= 10:
        return None
    elif value > 10:
        value /= 100
    return min(1.0, max(0.0, value))


def repair_member(text: str) -> str | None:
    """A member's free text wrapped into the form; None when there is too little of it."""
    plain = text.strip()
    if len(plain) < MEMBER_WRAP_MIN_CHARS:
        return None
    line = _first_line(plain)
    summary = clip(line, 100)
    return (
        f"SUMMARY: {summary}\nCLAIM: {clip(line, 120)}\nEVIDENCE: not-provided\n"
        f"RESULT:\n{plain}\nNEXT_STEP: none"
    )


def _first_line(text: str) -> str:
    lines = (re.sub(r"^[\s#>*+-]+|^\d+[.)]\s*", "", line).strip() for line in text.splitlines())
    return next((line for line in lines if line), "(no summary)")


def clip(text: str, chars_max: int) -> str:
    """Text with single blanks, cut with a visible mark."""
    plain = " ".join(text.split())
    return plain if len(plain) <= chars_max else plain[:chars_max] + "..."


_NO_EVIDENCE = ("", "-", "none", "none.", "n/a", "not-provided")


def evidence_count(fields: Mapping[str, str], text: str) -> int:
    """Items of the EVIDENCE field, and every `path.ext:line` of the text; at most 50."""
    line = fields.get("EVIDENCE", "")
    items = [i for i in re.split(r"[,;\n]", line) if i.strip().lower() not in _NO_EVIDENCE]
    # Only from the start of a word, and of bounded length: an answer may be one long word.
    places = re.findall(r"(?<![\w./-])[\w./-]{1,200}?\.\w{1,10}:\d+", text)
    return min(50, len(items) + len(places))


_CONTRADICTION = ("self-contradict", "contradict", "inconsistent", "mutually exclusive")
_CONFLICT = ("disagree", "conflict", "not aligned", "object to", "dispute")


def signals(text: str, words: Sequence[str]) -> int:
    """How many of the words stand in a text."""
    low = text.lower()
    return sum(1 for word in words if word in low)


def contradiction_signals(text: str) -> int:
    return signals(text, _CONTRADICTION)


def conflict_signals(text: str) -> int:
    return signals(text, _CONFLICT)

"""The labelled form in which agents and members answer: `SUMMARY:`, `CLAIM:`, `RESULT:` … Pure.

Labels are English, one at the start of a line, case ignored; a field is the rest of its line, or
the lines below it up to the next label. JSON with the same names is read as well.
Source: facts on the agents runtime, §1d.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from planloom.planner.language.values import JsonValue

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
    r"^[ \t>*#-]{0,8}([A-Z][A-Z_]{2,30})[*]{0,2}[ \t]{0,4}:[*]{0,2}", re.MULTILINE | re.IGNORECASE
)


def parse_labelled(text: str) -> dict[str, str]:
    """The fields of an answer by label in capitals; the first of each wins."""
    from_json = _from_json(text)
    if from_json:
        return from_json
    fields: dict[str, str] = {}
    labels = [m for m in _LABEL.finditer(text) if m[1].upper() in LABELS]
    ends = [m.start() for m in labels[1:]] + [len(text)]
    for label, end in zip(labels, ends, strict=False):
        fields.setdefault(label[1].upper(), text[label.end() : end].strip())
    return fields


def _from_json(text: str) -> dict[str, str]:
    at, decoder = text.find("{"), json.JSONDecoder()
    if at < 0:
        return {}
    try:
        document, _ = decoder.raw_decode(text, at)
    except json.JSONDecodeError:
        return {}
    if not isinstance(document, dict):
        return {}
    upper = {str(k).upper(): v for k, v in document.items()}
    return {k: _as_text(upper[k]) for k in LABELS if k in upper} if "RESULT" in upper else {}


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


def parse_confidence(text: str | None) -> float | None:
    """`80%` and `85` are parts of a hundred, `0.8` and `1` are as they are; None is no number."""
    match = re.search(r"-?\d+(?:\.\d+)?", text or "")
    if match is None:
        return None
    value = float(match[0])
    is_percent = (text or "")[match.end() :].lstrip().startswith("%")
    if value > 1 or is_percent:
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

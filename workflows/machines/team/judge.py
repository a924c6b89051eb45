"""The judge's formula: how far a team's answers can be trusted. Pure.

Ratios over all members; three uncertainties; signals; a verdict. A model may lower the verdict,
never raise it. The source's `untrusted` is read as `uncertain`.
Source: facts on the agents runtime, §2d (weights, thresholds, rows A to G).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["trusted", "partial", "uncertain"]
VERDICTS: tuple[Verdict, ...] = ("trusted", "partial", "uncertain")

INTRA_LIMIT = 0.55
INTER_LIMIT = 0.55
SYSTEM_LIMIT = 0.60
FAILURES_LIMIT = 0.30
NO_EVIDENCE_LIMIT = 0.50


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What is known of one member's answer; the defaults are those of a silent one."""

    is_failed: bool = False
    confidence: float | None = 0.5
    evidence: int = 0
    contradictions: int = 0
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The formula's outcome; all numbers 0 to 1."""

    verdict: Verdict
    confidence: float
    u_intra: float
    u_inter: float
    u_sys: float
    signals: tuple[str, ...]
    reason: str


def judge(members: Sequence[Diagnostics]) -> Judgement:
    """The verdict on a team's answers by the source's formulas and thresholds."""
    if not members or all(m.is_failed for m in members):
        reason = "no member has an answer"
        return Judgement("uncertain", 0.1, 1.0, 1.0, 1.0, ("no_successful_output",), reason)
    n = len(members)
    confidences = [0.5 if m.confidence is None else m.confidence for m in members]
    failed = sum(m.is_failed for m in members) / n
    silent = sum(m.evidence <= 0 for m in members) / n
    contradiction = sum(m.contradictions > 0 for m in members) / n
    conflict = sum(m.conflicts > 0 for m in members) / n
    mean = sum(confidences) / n
    spread = min(1.0, math.sqrt(sum((c - mean) ** 2 for c in confidences) / n) / 0.5)
    u_intra = _unit(0.38 * failed + 0.26 * (1 - mean) + 0.20 * silent + 0.16 * contradiction)
    u_inter = _unit(0.42 * conflict + 0.28 * spread + 0.20 * failed + 0.10 * silent)
    u_sys = _unit(0.45 * u_intra + 0.35 * u_inter + 0.20 * failed)
    found = tuple(
        name
        for name, value, limit in (
            ("high_intra_uncertainty", u_intra, INTRA_LIMIT),
            ("high_inter_disagreement", u_inter, INTER_LIMIT),
            ("high_system_uncertainty", u_sys, SYSTEM_LIMIT),
            ("teammate_failures", failed, FAILURES_LIMIT),
            ("insufficient_evidence", silent, NO_EVIDENCE_LIMIT),
        )
        if value >= limit
    )
    if u_sys >= SYSTEM_LIMIT or failed > 0:
        because = "members failed" if failed else "the answers are uncertain"
        return Judgement("partial", 1 - u_sys, u_intra, u_inter, u_sys, found, because)
    reason = "the answers agree" if not found else "; ".join(found)
    return Judgement("trusted", 1 - 0.6 * u_sys, u_intra, u_inter, u_sys, found, reason)


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.5


def lowered(formula: Judgement, verdict: str, confidence: float | None, reason: str) -> Judgement:
    """What a model judge may change: a lower verdict, a lower confidence; never a higher one.

    A verdict that is not in the list changes nothing.
    """
    word = "uncertain" if verdict == "untrusted" else verdict
    if word not in VERDICTS:
        return formula
    rank = max(VERDICTS.index(formula.verdict), VERDICTS.index(word))
    least = formula.confidence if confidence is None else min(formula.confidence, confidence)
    changed = VERDICTS[rank] != formula.verdict
    return Judgement(
        VERDICTS[rank],
        least,
        formula.u_intra,
        formula.u_inter,
        formula.u_sys,
        formula.signals,
        f"{formula.reason}; the judge: {reason}" if changed and reason else formula.reason,
    )

"""One member of a team: its talk, and what its last answer came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from planloom.planner.contract.results import usage_report
from planloom.planner.language.definitions import MemberSpec, TeamSpec
from planloom.planner.language.values import Outcome, Stored, Usage
from planloom.workflows.conversation import Conversation, Ended
from planloom.workflows.machines.team.judge import Diagnostics
from planloom.workflows.machines.team.rounds import Said


def system_of(team: TeamSpec, spec: MemberSpec) -> str:
    """Who a member is, as its model is told."""
    mission = f"You are {spec.id}, {spec.role or 'a member'} of a team."
    return "\n".join(t for t in (mission, team.description, spec.description, spec.system) if t)


def subtask_text(subtask: str, whole: str) -> str:
    return f"{subtask}\n\n(The team's whole task: {whole})"


@dataclass(slots=True)
class Member:
    """A member at work. Its last answer stands until a later one replaces it."""

    spec: MemberSpec
    talk: Conversation
    ended: Ended | None = None
    outcome: Outcome | None = None
    attempts: int = 0
    is_recovered: bool = False
    is_speaking: bool = False
    has_part: bool = True
    """False when a plan of subtasks gave it nothing to do."""
    usage: Usage = field(default_factory=Usage)

    @property
    def is_good(self) -> bool:
        return self.outcome is Outcome.SUCCEEDED

    @property
    def state(self) -> str:
        if self.is_speaking:
            return "running"
        return self.outcome.value if self.outcome else "waiting"

    def take(self, ended: Ended) -> None:
        """A new answer, or the failure to give one."""
        self.ended = ended
        self.attempts += max(1, ended.attempts)
        self.usage += ended.usage
        has_answer = ended.reply is not None and not ended.reply.problems
        if ended.status == "cancelled":
            self.outcome = Outcome.CANCELLED
        else:
            self.outcome = Outcome.SUCCEEDED if has_answer else Outcome.FAILED

    def text(self) -> Stored | None:
        return self.ended.reply.text if self.ended and self.ended.reply else None

    def said(self) -> Said:
        fields = self.ended.reply.fields if self.ended and self.ended.reply else {}
        return Said(
            self.spec.id,
            self.spec.role,
            self.is_good,
            fields.get("SUMMARY", "") or (self.ended.reason or "" if self.ended else ""),
            fields.get("CLAIM", ""),
            fields.get("EVIDENCE", ""),
            fields.get("NEXT_STEP", ""),
        )

    def diagnostics(self) -> Diagnostics:
        """What the judge's formula is told of it."""
        reply = self.ended.reply if self.ended else None
        if not self.is_good or reply is None:
            return Diagnostics(is_failed=True, confidence=0.0)
        return Diagnostics(
            confidence=reply.confidence,
            evidence=reply.evidence,
            contradictions=reply.contradictions,
            conflicts=reply.conflicts,
        )

    def report(self) -> dict[str, Any]:
        """Its entry in the team's result."""
        ended = self.ended
        reply = ended.reply if ended else None
        text = self.text()
        shown: dict[str, Any] = {}
        if text is not None and text.is_inline:
            shown = {"output": text.value}
        elif text is not None:
            shown = {"preview": text.preview, "blob": text.blob}
        is_failed = ended is not None and not self.is_good
        return {
            "outcome": self.outcome or (Outcome.CANCELLED if self.has_part else Outcome.SKIPPED),
            "fields": dict(reply.fields) if reply is not None else {},
            "confidence": reply.confidence if reply is not None and self.is_good else None,
            "attempts": self.attempts,
            "recovered": self.is_recovered,
            "violations": list(reply.violations) if reply is not None else [],
            "error": ended.reason if is_failed and ended else None,
            "error_class": ended.error_class if is_failed and ended else None,
            **shown,
            "usage": usage_report(self.usage),
        }

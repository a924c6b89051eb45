"""Approval as a pure protocol: bound to a revision, with approver and expiry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from planloom.planner.contract.requests import ApprovalMode

Decision = Literal["approved", "rejected"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a revision was decided, by whom, and why."""

    revision: int
    decision: Decision
    by: str = ""
    note: str = ""
    how: Literal["person", "timeout", "policy"] = "person"


def needs_approval(mode: ApprovalMode, *, is_first: bool, major: Sequence[str] = ()) -> bool:
    """Whether a new revision waits for a person. `major` lists why a replan is material.

    `plan` asks for the first plan, `replan` for later ones, `major` for the first and for
    material changes, `always` for every one, `tainted` for none.
    """
    match mode:
        case "never" | "tainted":  # `tainted` asks task by task
            return False
        case "plan":
            return is_first
        case "replan":
            return not is_first
        case "major":
            return is_first or bool(major)
        case "always":
            return True


@dataclass(slots=True)
class ApprovalState:
    """Which revision waits, and what became of the earlier ones."""

    revision: int = 0
    """The newest revision: the only one that can be decided."""
    is_open: bool = False
    why: tuple[str, ...] = ()
    verdicts: list[Verdict] = field(default_factory=list)
    replaced_by: dict[int, str] = field(default_factory=dict)

    def open(self, revision: int, why: Sequence[str] = ()) -> None:
        self.note_revision(revision)
        self.is_open, self.why = True, tuple(why)

    def close(self) -> None:
        """Nothing waits for a decision any more: another plan is being written."""
        self.is_open = False

    def note_revision(self, revision: int, by: str = "") -> None:
        """A newer revision exists; decisions about older ones are stale from now on."""
        if revision > self.revision:
            if self.revision:
                self.replaced_by[self.revision] = by
            self.revision = revision

    def problem_with(self, revision: int, verb: str) -> str | None:
        """Why a decision about `revision` cannot be taken, or None. Asked by signal and update."""
        if revision < self.revision:
            by = self.replaced_by.get(revision, "")
            who = f' (by "{by}")' if by else ""
            return (
                f"{verb}: revision {revision} was replaced by {self.revision}{who}. "
                f'Look at query "diff", then decide on revision {self.revision}.'
            )
        if revision > self.revision:
            newest = f"the newest is {self.revision}" if self.revision else "there is no plan yet"
            return f"{verb}: there is no revision {revision}; {newest}."
        if not self.is_open:
            last = next((v for v in reversed(self.verdicts) if v.revision == revision), None)
            if last:
                who = f' by "{last.by}"' if last.by else f" by {last.how}"
                return f"{verb}: revision {revision} was {last.decision} already{who}."
            return f"{verb}: revision {revision} does not wait for approval."
        return None

    def decide(self, verdict: Verdict) -> None:
        self.is_open = False
        self.verdicts.append(verdict)

    def verdict_on(self, revision: int) -> Verdict | None:
        return next((v for v in reversed(self.verdicts) if v.revision == revision), None)

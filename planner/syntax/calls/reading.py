"""What a plan's text has brought so far: its names, its problems and its end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.values import Problem
from planloom.planner.syntax.calls.text import call_text, earlier_calls
from planloom.planner.syntax.parsed_plan import ParsedEnd, as_literal

LAST_LINE = 1 << 60
"""Stands for the line of a problem that belongs behind all others."""
WARNINGS_MAX = 100
"""A text may give one for each line: the rest are counted."""


def problem(path: str, code: str, message: str, hint: str = "") -> Problem:
    return Problem(path=path, code=code, message=message, hint=hint)


def listed(names: Sequence[str]) -> str:
    return "Tasks: " + ", ".join(names[:12]) if names else "There is no task before it"


@dataclass(slots=True)
class Reading:
    """Changed by those who read calls, joins and prose; nobody else holds it."""

    given: dict[str, str | None]
    """Ids of earlier plans or attempts with their calls, None where only the id is known."""
    kept: frozenset[str] = frozenset()
    lines: dict[str, int] = field(default_factory=dict)
    """Names that this text has used, with their lines."""
    calls: dict[str, str] = field(default_factory=dict)
    """The calls of accepted tasks by name, as `call_text` writes them."""
    failed: set[str] = field(default_factory=set)
    """Names whose calls were not accepted."""
    ahead: list[tuple[int, str, str, Problem]] = field(default_factory=list)
    """References that named nothing when they were read: (line, task, name, problem)."""
    problems: list[tuple[int, Problem]] = field(default_factory=list)
    end: ParsedEnd = field(default_factory=ParsedEnd)
    warnings_left_out: int = 0

    @classmethod
    def of(cls, earlier: Sequence[str] | Mapping[str, str], kept: Collection[str] = ()) -> Reading:
        return cls(earlier_calls(earlier), frozenset(kept))

    def is_readable(self, name: str) -> bool:
        """Whether a reference may name it: a task of this text, or of an earlier plan."""
        return name in self.lines or name in self.given or name in self.kept

    def near(self, name: str, besides: str = "") -> str:
        """A hint with the nearest name that may be read."""
        names = [n for n in (*sorted({*self.given, *self.kept}), *self.lines) if n != besides]
        near = get_close_matches(name, sorted(names), n=1)
        return f'Did you mean "{near[0]}"?' if near else f"{listed(names)}. {as_literal(name)}"

    def report(self, line: int, path: str, code: str, message: str, hint: str = "") -> None:
        self.problems.append((line, problem(path, code, message, hint)))

    def warn(self, text: str) -> None:
        if len(self.end.warnings) < WARNINGS_MAX:
            self.end.warnings.append(text)
        else:
            self.warnings_left_out += 1

    def accept(self, planned: PlannedTask) -> None:
        self.calls[str(planned.task.id)] = call_text(planned.task)
        self.end.tasks += 1

    def without(self, names: Iterable[str]) -> None:
        """Forget tasks that were read and turned out not to belong to the plan."""
        for name in names:
            self.lines.pop(name, None)
            if self.calls.pop(name, None) is not None:
                self.end.tasks -= 1

    def after_thought(self, started: Mapping[str, str]) -> Reading:
        """The state once all of the text so far was a thought: only started tasks are left."""
        fresh = Reading({**self.given, **started}, self.kept)
        if started:
            names = ", ".join(list(started)[:12])
            fresh.warn(f"tasks of a thought had started when it ended: {names}")
        return fresh

    def settle_references(self) -> None:
        """Now that all lines are read: was a missing name only written later?"""
        for line, name, root, missing in self.ahead:
            if root not in self.lines:
                self.problems.append((line, missing))
                continue
            message = f'line {line}: {name} refers to "{root}", which is written later '
            message += f"(line {self.lines[root]})"
            update = {
                "code": "forward_reference",
                "message": message,
                "hint": f"Write {root} first.",
            }
            self.problems.append((line, missing.model_copy(update=update)))

"""What a run remembers of each task, and the reports made of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planloom.planner.contract.results import TaskReport, TaskTimes, usage_report
from planloom.planner.language.values import JsonValue, Outcome, Stored, TaskId, Usage
from planloom.workflows.machines.shared.sizes import text_bytes, utf8_bytes

RESULT_INLINE_BYTES = 256_000
"""Outputs shown whole in a result, all together; beyond it they are shown as previews."""
TEXTS_MAX_BYTES = 512_000
"""Previews, errors and reasons of a result, all together; beyond it each is cut short."""
TEXT_MIN_BYTES = 60
REPORTS_MAX = 2_000
"""Of more tasks a result holds short reports: the query `tasks` gives the whole ones."""
NO_USAGE, NOTHING_STORED = Usage(), Stored()
"""They cannot be changed, so all records share them: a plan has thousands."""
ERROR_MAX_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Again:
    """A task or item came back from a group, and goes on in its own activity."""

    attempts: int = 0
    """Those that were made in the group."""
    at: float = 0.0
    """When the next one may be made, in seconds since 1970."""


@dataclass(slots=True)
class Batches:
    """Of a map whose items go in batches: `items` and `item_outcomes` have a row for each batch."""

    count: int
    """Items of all batches."""
    size: int
    """Items of a batch; the last one may have fewer."""
    sources: list[Stored] = field(default_factory=list)
    """The items of each batch."""
    counts: dict[str, int] = field(default_factory=dict)
    """How the items of batches that have ended came out."""


@dataclass(slots=True)
class Record:
    """One task: times are seconds since the run started."""

    id: TaskId
    version: int = 1
    """How often it was written: a task written again is its own activity."""
    output: Stored | None = None
    outcome: Outcome | None = None
    error: str | None = None
    error_class: str | None = None
    may_pass: bool = False
    """The failure is of a kind that another DAG-level round may fix."""
    reason: str | None = None
    is_excused: bool = False
    """Cancelled because nobody needs it: no failure of the run."""
    attempts: int = 0
    ready: float | None = None
    started: float | None = None
    ended: float | None = None
    usage: Usage = NO_USAGE
    items_source: Stored = NOTHING_STORED
    """The list of a map, inline or as a reference."""
    items: list[Stored | None] = field(default_factory=list)
    item_outcomes: list[Outcome | None] = field(default_factory=list)
    batches: Batches | None = None
    saved_tokens: int = 0
    saved_usd_nano: int = 0
    holes: int = 0
    """Items of a map that have no value, though the map has one."""
    again: dict[str, Again] = field(default_factory=dict)
    """What came back from a group, by key."""
    is_tainted: bool = False
    """The output came from outside, or was made of something that did."""
    is_decided_outside: bool = False
    """A planner that saw something from outside wrote the task."""

    @property
    def seconds(self) -> float:
        if self.started is None or self.ended is None:
            return 0.0
        return self.ended - self.started

    def reset(self) -> None:
        """Another round: what went wrong is forgotten, what it cost is not."""
        self.output = self.outcome = self.error = self.error_class = self.reason = None
        self.may_pass = False
        self.ended = None
        self.holes = 0
        self.again = {}
        if not self.items:  # else only their list is to be made once more
            self.item_outcomes, self.batches = [], None

    def fail(self, error: str, error_class: str | None, may_pass: bool = False) -> None:
        self.error = error if len(error) <= ERROR_MAX_CHARS else error[:ERROR_MAX_CHARS] + "…"
        self.error_class = error_class
        self.may_pass = may_pass

    def item_counts(self) -> dict[str, int] | None:
        if not self.item_outcomes:
            return None
        if self.batches is not None:
            left = self.batches.count - sum(self.batches.counts.values())
            return self.batches.counts | ({"running": left} if left else {})
        counts: dict[str, int] = {}
        for outcome in self.item_outcomes:
            name = outcome.value if outcome else "running"
            counts[name] = counts.get(name, 0) + 1
        return counts


def good_of(counts: Mapping[str, int]) -> int:
    """How many of these came to a value."""
    return sum(n for name, n in counts.items() if name != "running" and Outcome(name).is_good)


BLOB_BYTES = 120


class _Room:
    """Bytes that the free texts of a result may take together: the server takes 2 MiB in all."""

    def __init__(self, size: int) -> None:
        self.left = size

    def takes(self, size: int) -> bool:
        """Whether there is room for so many bytes more; then they are taken."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def shown(self, text: str | None) -> str | None:
        """The text, or its beginning once the room is used up."""
        if text is None:
            return None
        size = utf8_bytes(text)
        if size > TEXT_MIN_BYTES and size > self.left:
            cut = text.encode("utf-8", "replace")[:TEXT_MIN_BYTES]
            return cut.decode("utf-8", "ignore") + "…"
        self.left -= size
        return text


def task_reports(records: Collection[Record]) -> dict[str, TaskReport]:
    """The `tasks` of a result; outputs are shown whole until the room is used up.

    Of thousands of tasks each that ended well is told by its outcome and, while there is room, its
    output.
    """
    if len(records) > REPORTS_MAX:
        return _short_reports(records)
    room, texts = RESULT_INLINE_BYTES, _Room(TEXTS_MAX_BYTES)
    reports: dict[str, TaskReport] = {}
    for record in records:
        stored = record.output
        shown: dict[str, JsonValue] = {}
        if stored is not None and stored.is_inline:
            size = text_bytes(stored.value)
            if size <= room:
                room -= size
                shown["output"] = stored.value
            else:
                shown["preview"] = texts.shown(str(stored.value)[:80])
        elif stored is not None:
            shown = {
                "preview": texts.shown(stored.preview),
                "blob": stored.blob,
                "size_bytes": stored.size_bytes,
            }
        reports[record.id] = TaskReport.model_validate(
            {
                "outcome": record.outcome or Outcome.CANCELLED,
                "output": None,
                **shown,
                "error": texts.shown(record.error),
                "attempts": record.attempts,
                "times": TaskTimes(
                    ready=_rounded(record.ready),
                    started=_rounded(record.started),
                    ended=_rounded(record.ended),
                ),
                "usage": _short_usage(record.usage),
                **{
                    name: value
                    for name, value in (
                        ("error_class", record.error_class),
                        ("items", record.item_counts()),
                        ("reason", texts.shown(record.reason)),
                        ("tainted", record.is_tainted or None),
                    )
                    if value is not None
                },
            }
        )
    return reports


def _short_reports(records: Iterable[Record]) -> dict[str, TaskReport]:
    room, texts = _Room(RESULT_INLINE_BYTES), _Room(TEXTS_MAX_BYTES)
    reports: dict[str, TaskReport] = {}
    for record in records:
        stored, shown = record.output, dict[str, Any]()
        if stored is not None and stored.is_inline and room.takes(text_bytes(stored.value)):
            shown = {"output": stored.value}
        elif stored is not None and not stored.is_inline and room.takes(BLOB_BYTES):
            shown = {"blob": stored.blob, "size_bytes": stored.size_bytes}
        for name, text in (("error", record.error), ("reason", record.reason)):
            if text and texts.takes(utf8_bytes(text)):
                shown[name] = text
        outcome = record.outcome or Outcome.CANCELLED
        reports[record.id] = TaskReport.model_validate({"outcome": outcome, **shown})
    return reports


def _short_usage(usage: Usage) -> dict[str, JsonValue]:
    """A task's usage without its zeros: a result of a thousand tasks must stay small."""
    shown = usage_report(usage).model_dump(mode="json")
    return {k: v for k, v in shown.items() if v}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def critical_path(
    records: Mapping[TaskId, Record], inputs: Mapping[TaskId, Sequence[TaskId]]
) -> tuple[list[TaskId], float]:
    """The longest path by what tasks really took: its tasks in order, and its seconds.

    No schedule, however parallel, could have ended before these seconds: the ideal makespan.
    """
    total: dict[TaskId, float] = {}
    before: dict[TaskId, TaskId | None] = {}
    for task in _in_order(inputs):
        best = max((i for i in inputs[task] if i in total), key=lambda i: total[i], default=None)
        before[task] = best
        seconds = records[task].seconds if task in records else 0.0
        total[task] = seconds + (total[best] if best is not None else 0.0)
    if not total:
        return [], 0.0
    end = max(total, key=lambda t: total[t])
    length = total[end]
    last: TaskId | None = end
    path: list[TaskId] = []
    while last is not None:
        path.append(last)
        last = before[last]
    return path[::-1], length


def _in_order(inputs: Mapping[TaskId, Sequence[TaskId]]) -> list[TaskId]:
    """Inputs before those that read them; iterative, as plans may be 2,000 deep."""
    done: dict[TaskId, bool] = {}
    order: list[TaskId] = []
    for start in inputs:
        stack = [(start, False)]
        while stack:
            task, is_back = stack.pop()
            if is_back:
                order.append(task)
                continue
            if task in done:
                continue
            done[task] = True
            stack.append((task, True))
            stack.extend((i, False) for i in inputs[task] if i in inputs and i not in done)
    return order

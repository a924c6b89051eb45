"""What a benchmark gives back: figures, each with its limit and spread, as a table and as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from planloom.console.devserver import temporal_program

CHECKOUT = Path(__file__).resolve().parents[1]


class Size(StrEnum):
    """How much a part does."""

    TINY = "tiny"
    """Only whether it starts: for tests."""
    QUICK = "quick"
    """All parts in ten minutes: `make bench`."""
    FULL = "full"
    """What the limits are stated for: `make bench-full`."""

    def pick(self, tiny: Any, quick: Any, full: Any) -> Any:
        """The value of this size."""
        return {Size.TINY: tiny, Size.QUICK: quick, Size.FULL: full}[self]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure: its median (or what its name says), the spread of the rounds, and its limit."""

    measure: str
    median: float
    low: float
    high: float
    unit: str = ""
    """Nothing: a ratio."""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def must_be(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""

    @property
    def is_met(self) -> bool | None:
        """None: there is no limit."""
        if self.at_most is not None:
            return self.median <= self.at_most
        return self.median >= self.at_least if self.at_least is not None else None

    def document(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "must_be": self.must_be,
            "median": round(self.median, 5),
            "spread": [round(self.low, 5), round(self.high, 5)],
            "unit": self.unit,
            "met": self.is_met,
            "note": self.note,
        }


def figure(measure: str, values: Sequence[float], unit: str = "", **more: Any) -> Figure:
    """The median of some values, and their spread."""
    return Figure(measure, statistics.median(values), min(values), max(values), unit, **more)


def ratio(measure: str, ours: Sequence[float], theirs: Sequence[float], **more: Any) -> Figure:
    """The ratio of two medians, and the spread of the rounds' own ratios."""
    rounds = [a / b for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.median(ours) / statistics.median(theirs)
    return Figure(measure, middle, min(rounds), max(rounds), **more)


def single(measure: str, value: float, unit: str = "", **more: Any) -> Figure:
    """A figure that is counted, not timed, or the mean or worst of many."""
    return Figure(measure, value, value, value, unit, **more)


# -- the table ------------------------------------------------------------------------------

HEAD = ("measure", "must be", "median", "spread", "")


def number(value: float) -> str:
    """Three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def row(found: dict[str, Any]) -> list[str]:
    """The cells of one figure, as it stands in the JSON."""
    unit = f" {found['unit']}" if found["unit"] else ""
    low, high = found["spread"]
    spread = f"{number(low)} to {number(high)}" if low != high else ""
    met = {True: "met", False: "not met", None: ""}[found["met"]]
    return [found["measure"], found["must_be"], number(found["median"]) + unit, spread, met]


def table(figures: Sequence[dict[str, Any]]) -> str:
    """The figures of one part in columns."""
    rows = [list(HEAD), *(row(each) for each in figures)]
    widths = [max(len(r[n]) for r in rows) for n in range(len(HEAD))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    notes = [f"  {note}" for note in notes_of(figures)]
    return "\n".join([*lines, *notes])


def notes_of(figures: Sequence[dict[str, Any]]) -> list[str]:
    """What has to be said about figures, each note once, with the first measure that has it."""
    first = {each["note"]: each["measure"] for each in reversed(figures) if each["note"]}
    return [f"{measure}: {note}" for note, measure in reversed(first.items())]


# -- where and when it was measured ---------------------------------------------------------


@dataclass(slots=True)
class PartRun:
    """One part while it is measured, with the load of the machine around it."""

    name: str
    size: Size
    began: float = field(default_factory=time.time)
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    def document(self, figures: Sequence[Figure], error: str = "") -> dict[str, Any]:
        return {
            "size": self.size.value,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.began)),
            "seconds": round(time.time() - self.began, 1),
            "load_average": [round(self.load_before, 2), round(os.getloadavg()[0], 2)],
            "machine": machine(),
            "versions": versions(),
            "error": error,
            "figures": [each.document() for each in figures],
        }


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_gb": round(_memory_bytes() / 1e9, 1),
    }


def in_words(where: dict[str, Any], known: dict[str, str]) -> str:
    """A machine and the versions on it, in a line."""
    cores, memory = where["cores"] or "?", where["memory_gb"]
    versions_told = ", ".join(f"{name} {version}" for name, version in known.items())
    return f"{cores} cores, {where['processor']}, {memory} GB, {where['system']}; {versions_told}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions() -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "commit": _said("git", "describe", "--always", "--dirty"),
    }
    for package in ("planloom", "temporalio"):
        found[package] = importlib.metadata.version(package)
    return found | {"server": _said(temporal_program(), "--version")}


def _said(*command: str) -> str:
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def write(path: Path, part: str, document: dict[str, Any]) -> None:
    """Put one part into the file. Other parts that it holds stay as they were measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = read(path) if path.is_file() else {}
    text = json.dumps({"parts": {**parts, part: document}}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The parts of a file, by name."""
    parts: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["parts"]
    return parts


def tell(text: str) -> None:
    """What a part does meanwhile, beside the tables on standard output."""
    print(f"  {text}", file=sys.stderr, flush=True)

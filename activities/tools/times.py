"""How long each tool takes, learned from its calls: for ranking and estimates."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

WEIGHT = 0.2
"""Share of the newest call in the average: about the last ten calls count."""
SAVE_EVERY_SECONDS = 5.0


class ToolTimes:
    """Moving averages in seconds by tool name, kept in one small JSON file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seconds = _read(path)
        self._saved_at = time.monotonic()

    def record(self, tool: str, seconds: float) -> None:
        earlier = self._seconds.get(tool)
        average = seconds if earlier is None else earlier + WEIGHT * (seconds - earlier)
        self._seconds[tool] = round(average, 6)
        if time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS:
            self.save()

    def likely(self) -> dict[str, float]:
        return dict(self._seconds)

    def save(self) -> None:
        """Write the file; of several workers the last one wins, for these are only estimates."""
        self._saved_at = time.monotonic()
        if self._path is None or not self._seconds:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(self._seconds, sort_keys=True), encoding="utf-8")
        part.replace(self._path)


def _read(path: Path | None) -> dict[str, float]:
    try:
        document = json.loads(path.read_bytes()) if path else {}
        return {str(k): float(v) for k, v in document.items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}

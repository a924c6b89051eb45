"""What an endpoint turned out to accept, by pool and model.

Nothing is known of an endpoint before it is asked. What it refuses is left out of the next try, and
what worked is remembered: for an hour, so that an endpoint that was replaced is found out again.
Settings (`accepts`) say it for good. `planloom models` shows both, from a file in the data folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from planloom.planner.contract.settings import Accepts, PoolSettings, Settings

LIFE_SECONDS = 3600.0
SCHEMAS_MAX = 50
PLACES_MAX = 500
FILE = "endpoints.json"

Format = Literal["json_schema", "json_object", "none"]
FORMATS: tuple[Format, ...] = ("json_schema", "json_object", "none")
"""From the most that an answer can be constrained by to nothing."""


@dataclass(frozen=True, slots=True)
class Quirks:
    """What an endpoint was found not to accept, for one model."""

    dropped: frozenset[str] = frozenset()
    """Parameters that are left out; `messages.NAME` is a field of the conversation."""
    response_format: Format = "json_schema"
    is_limit_swapped: bool = False
    """It knows the other name of `max_tokens` than the one that was tried first."""
    must_stream: bool = False
    """It answers in streams only, or long answers so."""
    max_tokens: int | None = None
    """The largest limit of an answer."""
    window: int | None = None
    """The context window, prompt and answer together."""
    schemas: Mapping[str, Format] = field(default_factory=dict)
    """Schemas that were refused, by fingerprint, and what they were answered with instead."""

    def without(self, name: str) -> Quirks | None:
        """The next thing to try when `name` is refused; None when nothing is left to try."""
        if name in ("max_tokens", "max_completion_tokens"):
            # The limit itself is never left out: the budget was reserved for it.
            return None if self.is_limit_swapped else replace(self, is_limit_swapped=True)
        if name in self.dropped:
            return None
        return replace(self, dropped=self.dropped | {name})

    def format_of(self, schema: Mapping[str, Any]) -> Format:
        """How an answer of this schema is constrained."""
        own = self.schemas.get(fingerprint(schema), "json_schema")
        return max(own, self.response_format, key=FORMATS.index)

    def with_schema(self, schema: Mapping[str, Any], format: Format) -> Quirks:
        """This one schema is refused in every format before `format`."""
        kept = list(self.schemas.items())[-SCHEMAS_MAX + 1 :]
        return replace(self, schemas=dict([*kept, (fingerprint(schema), format)]))


NOTHING_KNOWN = Quirks()


def fingerprint(schema: Mapping[str, Any]) -> str:
    text = json.dumps(schema, sort_keys=True, default=str)
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class QuirkBook:
    """What this worker's process has learned; `path` is where it writes it for people."""

    def __init__(
        self,
        settings: Settings,
        path: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._path, self._clock = settings, path, clock
        self._learned: dict[tuple[str, str], tuple[float, Quirks]] = {}

    def of(self, pool: str, model: str, *, is_openai: bool = False) -> Quirks:
        """What is known now: what the settings say, and what was learned and not forgotten."""
        at, learned = self._learned.get((pool, model), (0.0, NOTHING_KNOWN))
        if not 0 <= self._clock() - at < LIFE_SECONDS:
            learned = NOTHING_KNOWN
        own = self._settings.pools.get(pool, PoolSettings()).accepts_of(model)
        return _settled(learned, own, is_openai)

    def learn(self, pool: str, model: str, quirks: Quirks) -> None:
        """Remember what has just worked."""
        self._learned.pop((pool, model), None)
        self._learned[pool, model] = (self._clock(), quirks)
        for place in list(self._learned)[:-PLACES_MAX]:
            del self._learned[place]
        if self._path is not None:
            with contextlib.suppress(OSError):  # it is for people only
                _write(self._path, self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """Everything learned, for people."""
        return [
            {"pool": pool, "model": model, "learned_at": at, **row_of(quirks)}
            for (pool, model), (at, quirks) in self._learned.items()
        ]


def row_of(quirks: Quirks) -> dict[str, Any]:
    return asdict(quirks) | {"dropped": sorted(quirks.dropped)}


def _settled(learned: Quirks, own: Accepts, is_openai: bool) -> Quirks:
    quirks = learned
    if own.without:
        quirks = replace(quirks, dropped=quirks.dropped | set(own.without))
    if own.response_format is not None:
        quirks = replace(quirks, response_format=own.response_format)
    if own.limit is not None:
        is_new_name = own.limit == "max_completion_tokens"
        quirks = replace(quirks, is_limit_swapped=is_new_name != is_openai)
    if own.max_tokens is not None:
        quirks = replace(quirks, max_tokens=min(own.max_tokens, quirks.max_tokens or 10**9))
    return quirks


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    others = [r for r in read_rows(path) if not any(_is_same(r, mine) for mine in rows)]
    text = json.dumps([*others, *rows][-PLACES_MAX:], indent=1)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _is_same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (row.get("pool"), row.get("model")) == (other["pool"], other["model"])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What workers of this data folder have learned."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [r for r in rows if isinstance(r, dict)] if isinstance(rows, list) else []

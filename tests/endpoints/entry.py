"""The format of a recorded exchange, and how its YAML files are read. README.md explains it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import jmespath
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from planloom.planner.language.values import JsonValue

FOLDER = Path(__file__).parent
MATCHERS = (
    "contains",
    "lacks",
    "matches",
    "at_least",
    "at_most",
    "absent",
    "one_of",
    "not",
)
PRESSING = (401, 402, 403, 408, 409, 425, 429)
"""Statuses that a pool remembers: an exchange with one of them gets a pool of its own."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Chunk(Part):
    """A piece of a body that is written piece by piece: `data`, `times` over, `gap` apart."""

    data: str | bytes
    times: int = 1


class Reply(Part):
    """One answer of the endpoint; one of `text`, `calls`, `message`, `stream`, `events`, `body`,
    `chunks` or `fault` says which form it has."""

    # A whole chat completion.
    text: str | None = None
    calls: list[Any] | None = None
    message: dict[str, Any] | None = None
    choice: dict[str, Any] = Field(default_factory=dict)
    finish: str | None = None
    usage: dict[str, Any] | bool = True
    # A stream.
    stream: list[str] | None = None
    events: list[Any] | None = None
    is_done: bool = True
    # Exact bytes.
    status: int = 200
    headers: dict[str, str] = Field(default_factory=dict)
    type: str | None = None
    body: Any = None
    chunks: list[Chunk] | None = None
    encoding: str = "utf-8"
    fault: Literal["close", "hang", "reset"] | None = None
    # When.
    when: str | dict[str, Any] | None = None
    for_seconds: float | None = None
    delay: float = 0.0
    gap: float = 0.0
    counted: int | None = None
    """Tokens that the server counted for it, where its `usage` does not say so."""

    @model_validator(mode="after")
    def _has_one_form(self) -> Reply:
        forms = [
            f for f in ("stream", "events", "body", "chunks", "fault") if f in self.model_fields_set
        ]
        whole = {"text", "calls", "message"} & self.model_fields_set
        if len(forms) + bool(whole) != 1:
            raise ValueError(
                "give one of text/calls/message, stream, events, body, chunks, fault; "
                f"found {[*forms, *sorted(whole)]}"
            )
        return self

    @property
    def is_pressing(self) -> bool:
        return self.status in PRESSING or self.status >= 500 or self.fault is not None


class Signal(Part):
    """Sent once the run's `progress` is `when` (JMESPath to value)."""

    name: str
    input: JsonValue
    when: dict[str, Any] = Field(default_factory=dict)


class Run(Part):
    """One run and what it must come to: `expect` maps JMESPath over the result to a value."""

    workflow: str = "DagWorkflow"
    request: dict[str, Any]
    signals: list[Signal] = Field(default_factory=list)
    start_signal: Signal | None = None
    expect: dict[str, Any] = Field(default_factory=dict)


class Expected(Part):
    """What must be true in the end, of all runs together."""

    requests: Any = None
    """How many the endpoint saw."""
    sent: dict[int | str, dict[str, Any]] = Field(default_factory=dict)
    """By number of the request (from 1; -1 is the last; "each"): JMESPath to value."""
    ended: dict[int, Any] = Field(default_factory=dict)
    """By number of the request: whole, or aborted where the client stopped reading."""
    seconds: Any = None


class Exchange(Run):
    """One recorded exchange."""

    name: str
    source: str = ""
    """Where it was reported: `owner/repository#number`, or a page."""
    case: str = ""
    """Its number among the reports this table began with."""
    runs: list[Run] = Field(default_factory=list)
    """In place of `request`: several, one after the other."""
    request: dict[str, Any] = Field(default_factory=dict)
    beside: Run | None = None
    """Started before the others, and stopped when they have ended."""
    replies: list[Reply]
    server: list[str | dict[str, Any]] = Field(default_factory=list)
    """Rules of `server_rules.py` that the endpoint checks each request by first."""
    models: list[str] | None = None
    """What `GET /v1/models` lists; without it the one model that the request names."""
    pool: dict[str, Any] | None = None
    """Settings of a pool of its own."""
    settings: dict[str, Any] | None = None
    """Settings of a worker of its own."""
    starts_after: float | None = None
    """Seconds in which nothing listens at its address yet."""
    limit: float = 30.0
    """Seconds after which the run is stopped, and the exchange has failed."""
    then: Expected = Field(default_factory=Expected)
    counts: bool = True
    """Usage must equal what the endpoint counted."""
    not_yet: str | None = None
    """Why it fails today. Once it holds, the test says that this line must go."""
    kind: str = ""
    """The file's name; set when it is read."""

    @property
    def slug(self) -> str:
        """The model's name; also of its pool."""
        words = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        return f"{self.kind}-{words}"[:90].rstrip("-")

    @property
    def has_own_pool(self) -> bool:
        rules = any("429" in str(r) or "401" in str(r) for r in self.server)
        return (
            self.pool is not None
            or self.settings is not None
            or self.starts_after is not None
            or rules
            or any(r.is_pressing for r in self.replies)
        )

    @property
    def all_runs(self) -> list[Run]:
        return self.runs or [self]


def read_all() -> list[Exchange]:
    """Every exchange of every file, in order.

    Raises:
        ValueError: a file or one of its exchanges is not in the format; says which and why.
    """
    found = [each for path in sorted(FOLDER.glob("*.yaml")) for each in read_file(path)]
    slugs = [e.slug for e in found]
    if twice := sorted({s for s in slugs if slugs.count(s) > 1}):
        raise ValueError(f"two exchanges have the same name: {', '.join(twice)}")
    return found


def read_file(path: Path) -> list[Exchange]:
    """The exchanges of one file.

    Raises:
        ValueError: as in `read_all`.
    """
    documents = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    if not isinstance(documents, list):
        raise ValueError(f"{path.name}: give a list of exchanges")
    found = []
    for n, document in enumerate(documents, 1):
        name = document.get("name") if isinstance(document, dict) else None
        try:
            exchange = Exchange.model_validate({**document, "kind": path.stem})
            _check(exchange)
        except Exception as error:
            raise ValueError(f"{path.name}: exchange {n} ({name}): {error}") from None
        found.append(exchange)
    return found


def _check(exchange: Exchange) -> None:
    if bool(exchange.request) == bool(exchange.runs):
        raise ValueError("give `request`, or `runs`")
    for run in exchange.all_runs:
        if not run.expect:
            raise ValueError("a run without `expect` cannot fail")
        for expression in run.expect:
            jmespath.compile(expression)


def difference(value: Any, wanted: Any) -> str | None:
    """How `value` differs from what is wanted, or None."""
    if not (isinstance(wanted, dict) and wanted and set(wanted) <= set(MATCHERS)):
        return None if _is_equal(value, wanted) else f"is {value!r}, not {wanted!r}"
    return next((d for k, w in wanted.items() if (d := _differs(k, value, w))), None)


def _is_equal(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _differs(kind: str, value: Any, wanted: Any) -> str | None:
    text = value if isinstance(value, str) else repr(value)
    each = wanted if isinstance(wanted, list) else [wanted]
    is_number = isinstance(value, int | float)
    right = {
        "contains": lambda: all(str(w) in text for w in each),
        "lacks": lambda: not any(str(w) in text for w in each),
        "matches": lambda: re.search(wanted, text) is not None,
        "at_least": lambda: is_number and value >= wanted,
        "at_most": lambda: is_number and value <= wanted,
        "absent": lambda: (value is None) == wanted,
        "one_of": lambda: value in wanted,
        "not": lambda: not _is_equal(value, wanted),
    }[kind]()
    return None if right else f"is {_short(text)}; wanted {kind}: {wanted!r}"


def _short(text: str) -> str:
    return text if len(text) <= 1500 else f"{text[:700]} … {text[-700:]}"


def differences(document: Any, wanted: dict[str, Any]) -> list[str]:
    """A line for each JMESPath expression whose value is not as wanted."""
    lines = []
    for expression, value in wanted.items():
        if found := difference(jmespath.search(expression, document), value):
            lines.append(f"{expression} {found}")
    return lines

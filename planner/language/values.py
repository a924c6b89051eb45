"""The small values that every part speaks in: ids, outcomes, problems, durations, usage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, NewType

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from planloom.planner.language.field_docs import field_docs

TaskId = NewType("TaskId", str)

ID_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
"""What an id may look like. Numeric ids come from LLMCompiler's own text format."""

VALUE_NAMES = ("params", "item", "index")
"""What references may read beside tasks."""
RESERVED_IDS = (*VALUE_NAMES, "join")

PriorityName = Literal["critical", "high", "normal", "low", "background"]
PRIORITY_KEYS: dict[PriorityName, int] = {
    "critical": 1,
    "high": 2,
    "normal": 3,
    "low": 4,
    "background": 5,
}

NANO = 1_000_000_000
"""Money inside is an integer of nano-dollars, so that the budget invariant is exact."""
USD_MAX = 1e9
TOKENS_MAX = 10**15
"""Bounds of what people type: far above any use, far below what arithmetic cannot carry."""


class Model(BaseModel):
    """Base of all border types: unknown fields are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema, with the sentence under each field as its description."""
        schema = handler(core)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_docs(cls).items():
            field = cls.model_fields.get(name)
            if field is not None and (shown := properties.get(field.alias or name)) is not None:
                shown["description"] = text
        return schema


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a document should, and cannot be read: `why`."""

    why: str


@dataclass(frozen=True, slots=True)
class Locked(Unreadable):
    """Stands where a document should, and is encrypted with a key that is not here."""


class Outcome(StrEnum):
    """How a task ended."""

    SUCCEEDED = "succeeded"
    CACHED = "cached"
    FALLBACK = "fallback"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_good(self) -> bool:
        """Whether a value stands behind it that dependents can use."""
        return self in (Outcome.SUCCEEDED, Outcome.CACHED, Outcome.FALLBACK)


class Problem(Model):
    """One thing wrong with a plan or request: where, what, and how to fix it."""

    path: str
    """Where it is, such as `tasks.ratio.args.expression`."""
    code: str
    """What kind of problem it is, for programs."""
    message: str
    """What is wrong, with the value that was seen."""
    hint: str = ""
    """How to fix it. Empty when there is nothing to add."""
    line_number: int | None = None
    """The line (from 1) of the file it was read from, where that is known."""

    def line(self) -> str:
        """All of it on one line, the hint as its own sentence."""
        end = "" if not self.hint else " " if self.message.endswith((".", "!", "?", ":")) else ". "
        at = f"line {self.line_number}: " if self.line_number is not None else ""
        return f"{at}{self.path}: {self.message}{end}{self.hint}"


class Usage(Model):
    """What work cost. `usd_nano` is money in nano-dollars, rounded up at each charge."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd_nano: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    cache_hits: int = 0
    is_priced: bool = True
    """False when no price was known: the budget then charges what was reserved."""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            usd_nano=self.usd_nano + other.usd_nano,
            model_calls=self.model_calls + other.model_calls,
            tool_calls=self.tool_calls + other.tool_calls,
            cache_hits=self.cache_hits + other.cache_hits,
            is_priced=self.is_priced and other.is_priced,
        )


_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def parse_seconds(value: object) -> object:
    """Seconds from `30`, `"30s"`, `"5m"`, `"250ms"`, `"2h"`, `"1d"`; other values pass through.

    Raises:
        ValueError: the text is not a duration; the message shows the forms.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.match(value)
    if not match:
        raise ValueError(f'"{value}" is not a duration: write seconds (30) or "30s", "5m", "2h"')
    return float(match[1]) * _UNIT_SECONDS[match[2]]


Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    Field(gt=0, le=30 * 86400.0, allow_inf_nan=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)?\s*$"},
            ],
            "description": 'Seconds, or text such as "30s", "5m", "2h".',
        }
    ),
]


class Stored(Model):
    """A value as history carries it: inline when small, else a preview and a blob.

    `blob` is the SHA-256 (hex) of the content; `media` says how the content reads back:
    `json` is a JSON text, `text` is a string's own UTF-8 bytes.
    """

    value: JsonValue = None
    """The value itself, when it is small."""
    blob: str | None = None
    """The SHA-256 (hex) of a large value's content. Without it, the value is inline."""
    size_bytes: int = 0
    """The size of a large value, in bytes."""
    media: Literal["json", "text"] = "json"
    """How the content reads back: `json` is a JSON text, `text` is a string's UTF-8 bytes."""
    preview: str | None = None
    """The first 200 characters of a large value."""

    @property
    def is_inline(self) -> bool:
        return self.blob is None


INLINE_MAX_BYTES = 2_048
"""A value whose JSON is longer goes to the blob store and travels as a reference."""
PREVIEW_MAX_CHARS = 200


class Bindings(Model):
    """What the references of one task body stand for, resolved inside an activity.

    `inputs` maps a reference's first name (a task id, or `params`) to its value. For an item of a
    map, `item` is the item itself, or, with `is_item_of_list`, the whole list it is picked from.
    """

    inputs: dict[str, Stored] = Field(default_factory=dict)
    item: Stored | None = None
    is_item_of_list: bool = False
    index: int | None = None
    first_index: int = 0
    """What `${index}` is for the first item: a batch of a map has some of its items."""
    bundle: Stored | None = None
    """More `inputs` behind one reference: a JSON object of name to `Stored`."""


def is_deeper(value: JsonValue, levels: int) -> bool:
    """Whether objects and lists are nested deeper; looks at each value once, without recursion."""
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


__all__ = [
    "ID_PATTERN",
    "INLINE_MAX_BYTES",
    "NANO",
    "PREVIEW_MAX_CHARS",
    "PRIORITY_KEYS",
    "RESERVED_IDS",
    "TOKENS_MAX",
    "USD_MAX",
    "VALUE_NAMES",
    "Bindings",
    "JsonValue",
    "Locked",
    "Model",
    "Outcome",
    "PriorityName",
    "Problem",
    "Seconds",
    "Stored",
    "TaskId",
    "Unreadable",
    "Usage",
    "is_deeper",
    "parse_seconds",
]

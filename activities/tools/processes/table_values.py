"""Rows of a database as objects that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any


def json_safe_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """One object a row. A column name that occurs twice gets a number; NaN is null."""
    names = _distinct(columns)
    return [
        {name: json_safe(value) for name, value in zip(names, row, strict=True)} for row in rows
    ]


def _distinct(columns: Sequence[str]) -> list[str]:
    names: list[str] = []
    for column in columns:
        name, number = column, 2
        while name in names:
            name, number = f"{column}_{number}", number + 1
        names.append(name)
    return names


def json_safe(value: Any) -> Any:
    """Dates as ISO text, durations in seconds, decimals as numbers, bytes as text or hex."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return _number(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray() | memoryview():
            return _text(bytes(value))
        case dict():
            return {str(k): json_safe(v) for k, v in value.items()}
        case list() | tuple() | set():
            return [json_safe(v) for v in value]
        case _:
            return str(value)


def _number(value: Decimal) -> int | float | None:
    if not value.is_finite():
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.hex()

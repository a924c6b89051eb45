"""Events, commands and states in few words: what is not said has its default."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from planloom.planner.language.catalog import Catalog

TEXT_MAX_CHARS = 60


def brief(value: Any) -> str:
    """A value without what is as usual in it."""
    match value:
        case Enum():
            return str(value.value)
        case str():
            shown = value if len(value) <= TEXT_MAX_CHARS else value[:TEXT_MAX_CHARS] + "…"
            return repr(shown)
        case Catalog():
            return "Catalog(…)"
        case BaseModel():
            given = ((n, getattr(value, n)) for n in type(value).model_fields)
            told = [f"{n}={brief(v)}" for n, v in given if v != type(value).model_fields[n].default]
            return f"{type(value).__name__}({', '.join(t for t in told if not _is_empty(t))})"
        case dict():
            return "{" + ", ".join(f"{k}: {brief(v)}" for k, v in value.items()) + "}"
        case list() | tuple() | set():
            return "[" + ", ".join(brief(v) for v in value) + "]"
        case _ if is_dataclass(value):
            told = [
                f"{f.name}={brief(getattr(value, f.name))}"
                for f in fields(value)
                if not _is_default(f, getattr(value, f.name))
            ]
            return f"{type(value).__name__}({', '.join(told)})"
        case _:
            return repr(value)


def _is_empty(told: str) -> bool:
    return told.endswith(("={}", "=[]", "=''"))


def _is_default(field: Any, value: Any) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default)
    return field.default_factory is not MISSING and bool(value == field.default_factory())


def lines_of(state: Any) -> list[str]:
    """A state, a line each field that is not as at the beginning."""
    shown = [f for f in fields(state) if f.name not in ("catalog", "request")]
    values = ((f, getattr(state, f.name)) for f in shown)
    return [f"    {f.name} = {brief(v)[:3000]}" for f, v in values if not _is_default(f, v)]

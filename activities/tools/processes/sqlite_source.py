"""Rows of an SQLite file that somebody else made: its tables, and none of its program text.

A database can hold text that runs when it is read: views (which may never end), computed columns
(which may be as long as memory), virtual tables. So only what is stored in plain tables is read,
within limits of length. After https://sqlite.org/security.html.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, TextIO
from urllib.parse import quote

VALUE_MAX_BYTES = 10_000_000
COLUMNS_MAX = 2_000
NULL = "\x1f\x1fnull"
"""Stands for NULL in the text that carries the rows; no real text looks like it."""
_FUNCTIONS = {"typeof", "group_concat", "substr"}
"""Those of the statements below."""
_COMPUTED_WHEN_READ = 2
"""The mark `hidden` of such a column in `PRAGMA table_xinfo`."""


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    match action:
        case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_READ:
            return sqlite3.SQLITE_OK
        case sqlite3.SQLITE_FUNCTION if (second or "").lower() in _FUNCTIONS:
            return sqlite3.SQLITE_OK
        case sqlite3.SQLITE_PRAGMA if first == "table_xinfo":
            return sqlite3.SQLITE_OK
        case _:
            return sqlite3.SQLITE_DENY


@contextmanager
def open_sqlite(path: str) -> Iterator[sqlite3.Connection]:
    """A file as a database that is only read."""
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as database:
        database.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_LENGTH, VALUE_MAX_BYTES),
            (sqlite3.SQLITE_LIMIT_COLUMN, COLUMNS_MAX),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1_000_000),
            (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
            (sqlite3.SQLITE_LIMIT_VDBE_OP, 250_000),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
            (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0),
            (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
        ):
            database.setlimit(limit, value)
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "query_only=ON"):
            database.execute(f"PRAGMA {pragma}")
        database.set_authorizer(_authorize)
        yield database


def table_names(database: sqlite3.Connection) -> tuple[list[str], list[str]]:
    """Plain tables, in order of name; and what looks like a table and is not read (views)."""
    listed = database.execute(
        "SELECT name, type, substr(sql, 1, 30) FROM sqlite_master "
        "WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_' ORDER BY name"
    ).fetchall()
    plain: list[str] = []
    other: list[str] = []
    for name, kind, text in listed:
        words = (text or "").upper().split()
        is_plain = kind == "table" and words[:2] != ["CREATE", "VIRTUAL"]
        (plain if is_plain else other).append(str(name))
    return plain, other


def columns_of(database: sqlite3.Connection, table: str) -> tuple[list[str], list[str]]:
    """Stored columns in order; and those computed when they are read, which are left out."""
    rows = database.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
    stored = [str(row[1]) for row in rows if row[6] != _COMPUTED_WHEN_READ]
    return stored, [str(row[1]) for row in rows if row[6] == _COMPUTED_WHEN_READ]


def types_of(database: sqlite3.Connection, table: str, columns: list[str]) -> list[str]:
    """DuckDB's type for each column. SQLite types values, not columns: look at what is there."""
    if not columns:
        return []
    kinds = ", ".join(f"group_concat(DISTINCT typeof({quoted(c)}))" for c in columns)
    row = database.execute(f"SELECT {kinds} FROM {quoted(table)}").fetchone()
    return [_type_of(set((seen or "").split(",")) - {"null", ""}) for seen in row]


def _type_of(kinds: set[str]) -> str:
    if kinds == {"integer"}:
        return "BIGINT"
    return "DOUBLE" if kinds and kinds <= {"integer", "real"} else "VARCHAR"


def write_rows(
    database: sqlite3.Connection, table: str, columns: list[str], carrier: TextIO
) -> None:
    """All rows as CSV, which DuckDB reads."""
    writer = csv.writer(carrier)
    chosen = ", ".join(map(quoted, columns))
    for row in database.execute(f"SELECT {chosen} FROM {quoted(table)}"):
        writer.writerow([NULL if value is None else _carried(value) for value in row])


def _carried(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return repr(value) if isinstance(value, float) else value


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

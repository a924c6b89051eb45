"""`query_sql`: DuckDB over SQLite, CSV, JSON and Parquet files of the workspace, read only."""

from __future__ import annotations

import asyncio
import csv
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from planloom.activities.tools.builtin.table_values import json_safe_rows
from planloom.activities.tools.builtin.workspace import (
    existing_file,
    fingerprint_of,
    inside,
    relative,
    walk,
)
from planloom.activities.tools.decorator import ToolContext, ToolError, tool

ROWS_MAX = 10_000
RESULT_MAX_BYTES = 20_000_000
FETCH_ROWS = 100
"""Few at once: a query may make each row as large as memory."""
TABLES_MAX = 500
MEMORY_LIMIT = "2GB"
NULL = "\x1f\x1fnull"
"""Stands for NULL in the text that carries SQLite's rows; no real text looks like it."""

_READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".json": "read_json_auto",
    ".jsonl": "read_json_auto",
    ".ndjson": "read_json_auto",
    ".parquet": "read_parquet",
}
_SQLITE = (".sqlite", ".sqlite3", ".db", ".db3")
_PACKED = (".gz", ".zst")


@dataclass(frozen=True)
class _File:
    """One source file: its table's name, and how it is read (`sqlite` or a DuckDB function)."""

    path: Path
    name: str
    reader: str


def _file_of(path: Path) -> _File | None:
    bare = path.with_suffix("") if path.suffix in _PACKED else path
    suffix = bare.suffix.lower()
    if suffix in _SQLITE or (suffix not in _READERS and _is_sqlite(path)):
        return _File(path, bare.stem, "sqlite")
    reader = _READERS.get(suffix)
    return _File(path, bare.stem, reader) if reader else None


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _files(context: ToolContext, sources: list[str]) -> list[_File]:
    found: list[_File] = []
    for source in sources:
        real = inside(context, source, tool="query_sql")
        if real.is_dir():
            inner = [f for p in walk(real) if (f := _file_of(p))]
            if not inner:
                raise ToolError(f'query_sql: no table files in folder "{source}". {_KINDS}')
            found += inner
            continue
        real = existing_file(context, source, tool="query_sql")
        file = _file_of(real)
        if file is None:
            raise ToolError(f'query_sql: "{source}" is no table. {_KINDS}')
        found.append(file)
    if len(found) > TABLES_MAX:
        raise ToolError(f"query_sql: {len(found)} files, at most {TABLES_MAX}: name fewer")
    return list(dict.fromkeys(found))


_KINDS = "It reads SQLite, CSV, TSV, JSON, JSON lines and Parquet files (also .gz)."


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Database:
    """An in-memory database that sees the source files and nothing else."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._tables: dict[str, str] = {}
        self._lazy: dict[str, tuple[_File, str]] = {}
        self.connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "python_enable_replacements": "false",  # SQL must not read Python's variables
                "memory_limit": MEMORY_LIMIT,
                "temp_directory": "",
                "threads": "2",
            }
        )

    def open(self, files: list[_File], sql: str) -> None:
        """Make a table or view of each file, then shut the door: no other file, no settings."""
        for file in files:
            if file.reader == "sqlite":
                self._add_sqlite(file, sql)
        views = [f for f in files if f.reader != "sqlite"]
        allowed = ", ".join(_literal(str(f.path)) for f in views)
        self.connection.execute(f"SET allowed_paths=[{allowed}]")
        self.connection.execute("SET enable_external_access=false")
        for file in views:
            self._add_view(file)
        if len(self._tables) == 1 and "data" not in self._tables:
            self._alias("data", next(iter(self._tables)))
        self.connection.execute("SET lock_configuration=true")

    def _add_view(self, file: _File) -> None:
        name = self._free_name(file.name, file)
        try:
            self.connection.execute(
                f"CREATE VIEW {_quoted(name)} AS "
                f"SELECT * FROM {file.reader}({_literal(str(file.path))})"
            )
        except duckdb.Error as error:
            where = relative(self._context, file.path)
            raise ToolError(f'query_sql: "{where}" cannot be read: {_said(error)}') from None
        self._tables[name] = relative(self._context, file.path)
        # `FROM 'data/x.csv'` is how DuckDB's own users write it.
        for alias in (file.path.name, relative(self._context, file.path)):
            self._alias(alias, name)
        if not name.isidentifier():
            self._alias(re.sub(r"\W", "_", f"_{name}" if name[:1].isdigit() else name), name)

    def _alias(self, alias: str, name: str) -> None:
        if alias not in self._tables:
            self.connection.execute(
                f"CREATE VIEW IF NOT EXISTS {_quoted(alias)} AS SELECT * FROM {_quoted(name)}"
            )

    def _free_name(self, name: str, file: _File) -> str:
        taken = {t.lower() for t in self._tables}
        if name.lower() not in taken:
            return name
        longer = f"{file.path.parent.name}_{name}"
        number = 2
        while longer.lower() in taken:
            longer = f"{name}_{number}"
            number += 1
        return longer

    def _add_sqlite(self, file: _File, sql: str) -> None:
        where = relative(self._context, file.path)
        try:
            with _open_sqlite(file.path) as database:
                names = [
                    row[0]
                    for row in database.execute(
                        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
                        "AND name NOT LIKE 'sqlite_%' ORDER BY name"
                    )
                ]
                lowered = sql.lower()
                everything = "information_schema" in lowered or "show" in lowered
                only_one = len(names) == 1 and re.search(r"\bdata\b", lowered) is not None
                for name in names:
                    table = self._free_name(name, file)
                    self._tables[table] = f"{where}: {name}"
                    # Rows are copied, so only those of tables that the query speaks of.
                    rows = only_one or name.lower() in lowered or table.lower() in lowered
                    self._copy_table(database, name, table, rows=rows or everything)
        except sqlite3.Error as error:
            raise ToolError(f'query_sql: "{where}" cannot be read as SQLite: {error}') from None

    def _copy_table(
        self, database: sqlite3.Connection, name: str, table: str, *, rows: bool
    ) -> None:
        cursor = database.execute(f"SELECT * FROM {_quoted(name)} LIMIT 0")
        columns = [c[0] for c in cursor.description]
        types = _types_of(database, name, columns) if rows else ["VARCHAR"] * len(columns)
        declared = ", ".join(f"{_quoted(c)} {t}" for c, t in zip(columns, types, strict=True))
        self.connection.execute(f"CREATE TABLE {_quoted(table)} ({declared})")
        if not rows:
            return
        with tempfile.NamedTemporaryFile(
            "w", suffix=".csv", newline="", encoding="utf-8", errors="replace"
        ) as carrier:
            writer = csv.writer(carrier)
            for row in database.execute(f"SELECT * FROM {_quoted(name)}"):
                if self._context.is_cancelled:
                    return
                writer.writerow([NULL if v is None else _carried(v) for v in row])
            carrier.flush()
            self.connection.execute(
                f"COPY {_quoted(table)} FROM {_literal(carrier.name)} (FORMAT csv, HEADER false, "
                f"NULLSTR {_literal(NULL)}, QUOTE '\"', ESCAPE '\"', DELIMITER ',', "
                "STRICT_MODE false, AUTO_DETECT false, MAX_LINE_SIZE 20000000)"
            )

    def tables_line(self) -> str:
        """The tables and their columns: what a model needs to mend its query."""
        lines = []
        for table in list(self._tables)[:20]:
            described = self.connection.execute(f"DESCRIBE {_quoted(table)}").fetchall()
            columns = ", ".join(f"{row[0]} {row[1]}" for row in described[:50])
            lines.append(f"{_quoted(table) if not table.isidentifier() else table}({columns})")
        more = f" and {len(self._tables) - 20} more" if len(self._tables) > 20 else ""
        return "Tables: " + "; ".join(lines) + more


def _open_sqlite(path: Path) -> Any:
    from contextlib import closing
    from urllib.parse import quote

    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return closing(connection)


def _types_of(database: sqlite3.Connection, name: str, columns: list[str]) -> list[str]:
    # SQLite types values, not columns: look at what is really there.
    if not columns:
        return []
    kinds = ", ".join(f"group_concat(DISTINCT typeof({_quoted(c)}))" for c in columns)
    row = database.execute(f"SELECT {kinds} FROM {_quoted(name)}").fetchone()
    return [_type_of(set((seen or "").split(",")) - {"null", ""}) for seen in row]


def _type_of(kinds: set[str]) -> str:
    if kinds == {"integer"}:
        return "BIGINT"
    return "DOUBLE" if kinds and kinds <= {"integer", "real"} else "VARCHAR"


def _carried(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return repr(value) if isinstance(value, float) else value


def _said(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400]


def _check_select(connection: Any, sql: str) -> None:
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise ToolError(f"query_sql: the SQL cannot be read: {_said(error)}") from None
    if len(statements) != 1:
        raise ToolError(f"query_sql: one statement is needed, {len(statements)} were given")
    kind = statements[0].type.name
    if kind != "SELECT":
        # No EXPLAIN either: EXPLAIN ANALYZE runs what it explains, a COPY over a source included.
        raise ToolError(f"query_sql: only SELECT is allowed (sources are read only), not {kind}")


def _query(context: ToolContext, sql: str, sources: list[str], started: _Started) -> list[Any]:
    files = _files(context, sources)
    database = _Database(context)
    started.set(database.connection)
    with database.connection as connection:
        _check_select(connection, sql)
        database.open(files, sql)
        try:
            cursor = connection.execute(sql)
            columns = [c[0] for c in cursor.description or []]
            rows, is_cut = _fetched(cursor)
        except duckdb.InterruptException:
            raise ToolError("query_sql: the query was stopped", retry=True) from None
        except duckdb.Error as error:
            raise ToolError(f"query_sql: {_said(error)} {database.tables_line()}") from None
        except MemoryError:
            raise ToolError("query_sql: its rows are larger than memory: select less") from None
    found = json_safe_rows(columns, rows)
    if is_cut:
        mark = f"… the first {len(rows):,} rows: aggregate, or add LIMIT and OFFSET"
        found.append({"_truncated": mark})
    return found


def _fetched(cursor: Any) -> tuple[list[Any], bool]:
    """Rows up to the limits of number and size, and whether there are more.

    Raises:
        ToolError: a single row is beyond the limit.
    """
    rows: list[Any] = []
    size = 0
    while part := cursor.fetchmany(FETCH_ROWS):
        for row in part:
            size += sum(map(_size_of, row))
            if len(rows) == ROWS_MAX or size > RESULT_MAX_BYTES:
                if not rows:
                    raise ToolError(
                        f"query_sql: a row is larger than {RESULT_MAX_BYTES:,} bytes: select "
                        "fewer columns, or a part with substr()"
                    )
                return rows, True
            rows.append(row)
    return rows, False


def _size_of(value: Any) -> int:
    match value:
        case str() | bytes():
            return len(value)
        case list() | tuple() | set():
            return 8 + sum(map(_size_of, value))
        case dict():
            return 8 + sum(_size_of(k) + _size_of(v) for k, v in value.items())
        case _:
            return 8


class _Started:
    """The connection of a query in another thread, for whoever must stop it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._is_stopped = False

    def set(self, connection: Any) -> None:
        with self._lock:
            self._connection = connection

    def stop(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()


def _sources(source: str | Iterable[str]) -> list[str]:
    sources = [source] if isinstance(source, str) else list(source)
    if not sources:
        raise ToolError('query_sql: no source: name a file or a folder, such as "data/table.csv"')
    return sources


def _fingerprint(context: ToolContext, args: dict[str, Any]) -> str:
    paths = [inside(context, s, tool="query_sql") for s in _sources(args["source"])]
    return ";".join(fingerprint_of(p) for p in paths)


@tool(
    fingerprint=_fingerprint,
    examples=[
        'query_sql(sql="SELECT origin, avg(delay) AS delay FROM flights GROUP BY origin", '
        'source="data/flights.csv")'
    ],
)
async def query_sql(
    sql: str, source: str | list[str], context: ToolContext
) -> list[dict[str, Any]]:
    """Run one SELECT (DuckDB SQL) over table files of the workspace; gives a list of objects.

    Each file is a table named as the file without its ending (data/flights.csv is `flights`; a
    SQLite file gives its own tables); a single table is also called `data`.

    Args:
        sql: the SELECT
        source: a SQLite, CSV, JSON or Parquet file, a folder of such files, or a list of them
    """
    started = _Started()
    query = asyncio.create_task(asyncio.to_thread(_query, context, sql, _sources(source), started))
    try:
        return await asyncio.shield(query)
    except asyncio.CancelledError:
        # Without this the query would go on, unseen, with all its memory.
        context.cancelled.set()
        started.stop()
        query.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise

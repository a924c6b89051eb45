"""One SELECT over files, in DuckDB: an in-memory database that sees its sources, nothing else."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from pathlib import PurePath
from typing import Any

import duckdb

from planloom.activities.tools.processes.limits import Job, Refused
from planloom.activities.tools.processes.sqlite_source import (
    NULL,
    columns_of,
    open_sqlite,
    quoted,
    table_names,
    types_of,
    write_rows,
)
from planloom.activities.tools.processes.table_files import TableFile
from planloom.activities.tools.processes.table_values import json_safe_rows

ROWS_MAX = 10_000
RESULT_MAX_BYTES = 20_000_000
VALUES_MAX = 300_000
"""Text of 20 MB is copied in a moment; a hundred thousand numbers are not."""
FETCH_ROWS = 100
"""Few at once: a query may make each row as large as memory."""
TABLES_MAX = 500
MEMORY_LIMIT = "400MB"
"""Of what DuckDB counts; the limit of the process holds for the rest."""
SPILL_LIMIT = "1GB"
"""For sorts and joins that do not fit."""


def run_query(job: Job) -> list[dict[str, Any]]:
    """Rows as objects, the last of them a mark when there were more.

    Raises:
        Refused: with what is wrong with the query, and the tables that there are.
        MemoryError: DuckDB's limit is used up.
    """
    try:
        return _run_query(job)
    except duckdb.OutOfMemoryException:
        raise MemoryError from None


def _run_query(job: Job) -> list[dict[str, Any]]:
    database = _Database()
    with database.connection as connection:
        _check_select(connection, job["sql"])
        database.open([TableFile(**file) for file in job["files"]], job["sql"])
        try:
            cursor = connection.execute(job["sql"])
            columns = [c[0] for c in cursor.description or []]
            rows, is_cut = _fetched(cursor)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise Refused(f"{_first_lines(error)} {database.tables_line()}") from None
    found = json_safe_rows(columns, rows)
    if is_cut:
        mark = f"… the first {len(rows):,} rows: aggregate, or add LIMIT and OFFSET"
        found.append({"_truncated": mark})
    return found


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _one_file(path: str) -> str:
    """The path as a pattern that is found in this one file: a name may hold `*`, `?` or `[`."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


class _Database:
    """The tables by name, and where each comes from."""

    def __init__(self) -> None:
        self._tables: dict[str, str] = {}
        self._unread: list[str] = []
        self.connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "python_enable_replacements": "false",  # SQL must not read Python's variables
                "memory_limit": MEMORY_LIMIT,
                "temp_directory": os.environ.get("TMPDIR", ""),
                "max_temp_directory_size": SPILL_LIMIT,
                "threads": "2",
            }
        )
        self.connection.execute("SET enable_progress_bar=false")

    def open(self, files: list[TableFile], sql: str) -> None:
        """Make a table or view of each file, then close all else: other files, settings."""
        for file in files:
            if file.reader == "sqlite":
                self._add_sqlite(file, sql)
        views = [f for f in files if f.reader != "sqlite"]
        # DuckDB looks at the pattern, and again at the file that it finds by it.
        paths = dict.fromkeys(p for f in views for p in (f.path, _one_file(f.path)))
        allowed = ", ".join(map(_literal, paths))
        self.connection.execute(f"SET allowed_paths=[{allowed}]")
        self.connection.execute("SET enable_external_access=false")
        for file in views:
            self._add_view(file)
        if len(self._tables) == 1 and "data" not in self._tables:
            self._alias("data", next(iter(self._tables)))
        self.connection.execute("SET lock_configuration=true")

    def _add_view(self, file: TableFile) -> None:
        name = self._free_name(file.name, file)
        try:
            self.connection.execute(
                f"CREATE VIEW {quoted(name)} AS SELECT * "
                f"FROM {file.reader}({_literal(_one_file(file.path))})"
            )
        except duckdb.Error as error:
            raise Refused(f'"{file.shown}" cannot be read: {_first_lines(error)}') from None
        self._tables[name] = file.shown
        # `FROM 'data/x.csv'` is how DuckDB's own users write it.
        for alias in (PurePath(file.path).name, file.shown):
            self._alias(alias, name)
        if not name.isidentifier():
            self._alias(re.sub(r"\W", "_", f"_{name}" if name[:1].isdigit() else name), name)

    def _alias(self, alias: str, name: str) -> None:
        if alias not in self._tables:
            self.connection.execute(
                f"CREATE VIEW IF NOT EXISTS {quoted(alias)} AS SELECT * FROM {quoted(name)}"
            )

    def _free_name(self, name: str, file: TableFile) -> str:
        taken = {t.lower() for t in self._tables}
        if name.lower() not in taken:
            return name
        longer = f"{PurePath(file.path).parent.name}_{name}"
        number = 2
        while longer.lower() in taken:
            longer = f"{name}_{number}"
            number += 1
        return longer

    def _add_sqlite(self, file: TableFile, sql: str) -> None:
        lowered = sql.lower()
        everything = "information_schema" in lowered or "show" in lowered
        try:
            with open_sqlite(file.path) as database:
                names, other = table_names(database)
                if len(names) > TABLES_MAX:
                    raise Refused(f'"{file.shown}" has {len(names)} tables, at most {TABLES_MAX}')
                self._unread += [f'view "{name}" of {file.shown}' for name in other]
                only_one = len(names) == 1 and re.search(r"\bdata\b", lowered) is not None
                for name in names:
                    table = self._free_name(name, file)
                    # Rows are copied, so only those of tables that the query speaks of.
                    is_named = only_one or name.lower() in lowered or table.lower() in lowered
                    try:
                        self._copy_table(database, name, table, rows=is_named or everything)
                    except sqlite3.DatabaseError:
                        if is_named:
                            raise
                        continue  # a table that cannot be read hides no other
                    self._tables[table] = f"{file.shown}: {name}"
        except sqlite3.Error as error:
            raise Refused(f'"{file.shown}" cannot be read as SQLite: {error}') from None

    def _copy_table(
        self, database: sqlite3.Connection, name: str, table: str, *, rows: bool
    ) -> None:
        columns, computed = columns_of(database, name)
        self._unread += [f'computed column "{column}" of {table}' for column in computed]
        types = types_of(database, name, columns) if rows else ["VARCHAR"] * len(columns)
        declared = ", ".join(f"{quoted(c)} {t}" for c, t in zip(columns, types, strict=True))
        self.connection.execute(f"CREATE TABLE {quoted(table)} ({declared})")
        if not rows:
            return
        with tempfile.NamedTemporaryFile(
            "w", suffix=".csv", newline="", encoding="utf-8", errors="replace"
        ) as carrier:
            write_rows(database, name, columns, carrier)  # type: ignore[arg-type]
            carrier.flush()
            self.connection.execute(
                f"COPY {quoted(table)} FROM {_literal(carrier.name)} (FORMAT csv, HEADER false, "
                f"NULLSTR {_literal(NULL)}, QUOTE '\"', ESCAPE '\"', DELIMITER ',', "
                "STRICT_MODE false, AUTO_DETECT false, MAX_LINE_SIZE 20000000)"
            )

    def tables_line(self) -> str:
        """The tables and their columns: what a model needs to correct its query."""
        lines = []
        for table in list(self._tables)[:20]:
            described = self.connection.execute(f"DESCRIBE {quoted(table)}").fetchall()
            columns = ", ".join(f"{row[0]} {row[1]}" for row in described[:50])
            lines.append(f"{quoted(table) if not table.isidentifier() else table}({columns})")
        more = f" and {len(self._tables) - 20} more" if len(self._tables) > 20 else ""
        unread = f". Not read: {', '.join(self._unread[:5])}" if self._unread else ""
        return "Tables: " + "; ".join(lines) + more + unread


def _first_lines(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400]


def _check_select(connection: Any, sql: str) -> None:
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise Refused(f"the SQL cannot be read: {_first_lines(error)}") from None
    if len(statements) != 1:
        raise Refused(f"one statement is needed, {len(statements)} were given")
    kind = statements[0].type.name
    if kind != "SELECT":
        # No EXPLAIN either: EXPLAIN ANALYZE runs what it explains, a COPY over a source included.
        raise Refused(f"only SELECT is allowed (sources are read only), not {kind}")


def _fetched(cursor: Any) -> tuple[list[Any], bool]:
    """Rows up to the limits of number and size, and whether there are more.

    Raises:
        Refused: a single row is beyond the limit.
    """
    rows: list[Any] = []
    size = values = 0
    while part := cursor.fetchmany(FETCH_ROWS):
        for row in part:
            counts = [_size_of(value) for value in row]
            size += sum(size for size, _ in counts)
            values += sum(number for _, number in counts)
            if len(rows) == ROWS_MAX or size > RESULT_MAX_BYTES or values > VALUES_MAX:
                if not rows:
                    raise Refused(
                        f"a row is larger than {RESULT_MAX_BYTES:,} bytes or {VALUES_MAX:,} "
                        "values: select fewer columns, or a part with substr()"
                    )
                return rows, True
            rows.append(row)
    return rows, False


def _size_of(value: Any) -> tuple[int, int]:
    """Bytes and number of values."""
    match value:
        case str() | bytes():
            return len(value), 1
        case list() | tuple() | set():
            inner = [_size_of(each) for each in value]
        case dict():
            inner = [_size_of(each) for pair in value.items() for each in pair]
        case _:
            return 8, 1
    return 8 + sum(size for size, _ in inner), 1 + sum(number for _, number in inner)

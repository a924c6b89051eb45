"""`query_sql`: DuckDB over SQLite, CSV, JSON and Parquet files of the workspace, read only.

The query runs in a child process with limits of time and memory: DuckDB bounds neither for a
single large value, and cannot be stopped while it makes one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from planloom.activities.tools.builtin.workspace import (
    existing_file,
    fingerprint_of,
    inside,
    relative,
    walk,
)
from planloom.activities.tools.decorator import ToolContext, ToolError, tool
from planloom.activities.tools.processes.pool import POOL, JobError
from planloom.activities.tools.processes.table_files import KINDS, TableFile, table_file

FILES_MAX = 500
SQL_MAX_CHARS = 100_000


def _files(context: ToolContext, sources: list[str]) -> list[TableFile]:
    found: list[TableFile] = []
    for source in sources:
        real = inside(context, source, tool="query_sql")
        if real.is_dir():
            inner = [f for p in walk(context, real) if (f := table_file(p, relative(context, p)))]
            if not inner:
                raise ToolError(f'query_sql: no table files in folder "{source}". {KINDS}')
            found += inner
            continue
        real = existing_file(context, source, tool="query_sql")
        file = table_file(real, relative(context, real))
        if file is None:
            raise ToolError(f'query_sql: "{source}" is not a table. {KINDS}')
        found.append(file)
    if len(found) > FILES_MAX:
        raise ToolError(f"query_sql: {len(found)} files, at most {FILES_MAX}: name fewer")
    return list(dict.fromkeys(found))


def _sources(source: str | Iterable[str]) -> list[str]:
    sources = [source] if isinstance(source, str) else list(source)
    if not sources:
        raise ToolError('query_sql: no source: name a file or a folder, such as "data/table.csv"')
    return sources


def _fingerprint(context: ToolContext, args: dict[str, Any]) -> str:
    paths = [inside(context, s, tool="query_sql") for s in _sources(args["source"])]
    return ";".join(fingerprint_of(context, p) for p in paths)


@tool(
    fingerprint=_fingerprint,
    examples=[
        'query_sql(sql="SELECT origin, avg(delay) AS delay FROM flights GROUP BY origin", '
        'source="data/flights.csv")'
    ],
)
def query_sql(sql: str, source: str | list[str], context: ToolContext) -> list[dict[str, Any]]:
    """Run one SELECT (DuckDB SQL) over table files of the workspace; gives a list of objects.

    Each file is a table named as the file without its ending (data/flights.csv is `flights`; a
    SQLite file gives its own tables); a single table is also called `data`.

    Args:
        sql: the SELECT
        source: a SQLite, CSV, JSON or Parquet file, a folder of such files, or a list of them
    """
    if len(sql) > SQL_MAX_CHARS:
        raise ToolError(
            f"query_sql: the SQL has {len(sql):,} characters, at most {SQL_MAX_CHARS:,}"
        )
    files = [asdict(file) for file in _files(context, _sources(source))]
    try:
        rows: list[dict[str, Any]] = POOL.run(
            {"kind": "query", "sql": sql, "files": files},
            owner=context.owner,
            cancelled=context.cancelled,
        )
    except JobError as error:
        raise ToolError(f"query_sql: {error}", retry=error.reason == "cancelled") from None
    return rows

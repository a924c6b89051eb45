"""`query_sql`: one SELECT over the files it was given, and over nothing else."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from planloom.activities.tools.builtin.sql import ROWS_MAX, query_sql
from planloom.activities.tools.decorator import ToolContext, ToolError


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ToolContext:
    root = tmp_path_factory.mktemp("tables")
    (root / "d").mkdir()
    (root / "cities.csv").write_text("city,pop,day\nParis,2,2020-01-01\nRome,3,2021-02-03\n")
    (root / "d" / "2020-extra.json").write_text(json.dumps([{"city": "Rome", "x": [1, 2]}]))
    (root / "d" / "lines.jsonl").write_text('{"a": 1}\n{"a": null}\n')
    (root / "packed.csv.gz").write_bytes(gzip.compress(b"n\n1\n2\n"))
    (root / "plain.txt").write_text("x")
    (root / "broken.csv").write_bytes(b"\xff\xfe\x00")
    (root.parent / "secret.csv").write_text("k\nsecret\n")
    target = str(root / "d" / "t.parquet").replace("'", "''")
    duckdb.sql(f"COPY (SELECT 1 AS p, 2.5::DECIMAL(5,2) AS q) TO '{target}' (FORMAT parquet)")
    with sqlite3.connect(root / "shop.sqlite") as shop:
        shop.execute("CREATE TABLE orders(id INTEGER, price REAL, note TEXT, raw BLOB)")
        rows = [(1, 1.5, 'a,"b\nc', b"\xff\0"), (2, 2, None, b""), (3, 3.0, "", None)]
        shop.executemany("INSERT INTO orders VALUES(?,?,?,?)", rows)
        shop.execute("CREATE TABLE mixed(a)")
        shop.executemany("INSERT INTO mixed VALUES(?)", [(1,), ("x",), (2.5,)])
        shop.execute("CREATE VIEW cheap AS SELECT * FROM orders WHERE price < 2")
        shop.execute("CREATE TABLE empty(z INTEGER)")
    return ToolContext(workspace=root)


async def run(context: ToolContext, sql: str, source: Any) -> Any:
    return await query_sql(sql, source, context)


@pytest.mark.parametrize(
    ("sql", "source", "rows"),
    [
        ("SELECT city FROM cities WHERE pop > 2", "cities.csv", [{"city": "Rome"}]),
        ("SELECT sum(pop) AS n FROM data", "cities.csv", [{"n": 5}]),
        ("SELECT count(*) AS n FROM 'cities.csv'", "cities.csv", [{"n": 2}]),
        ("SELECT day FROM cities LIMIT 1", "cities.csv", [{"day": "2020-01-01"}]),
        ("SELECT sum(n) AS n FROM packed", "packed.csv.gz", [{"n": 3}]),
        ("SELECT p, q FROM t", "d/t.parquet", [{"p": 1, "q": 2.5}]),
        ("SELECT x FROM _2020_extra", "d", [{"x": [1, 2]}]),
        ("SELECT a FROM lines ORDER BY a", "d/lines.jsonl", [{"a": 1}, {"a": None}]),
        (
            'SELECT c.city, e.city FROM cities c JOIN "2020-extra" e USING (city)',
            ["cities.csv", "d"],
            [{"city": "Rome", "city_2": "Rome"}],
        ),
        ("SELECT id, price FROM orders WHERE id = 2", "shop.sqlite", [{"id": 2, "price": 2.0}]),
        ("SELECT note FROM orders ORDER BY id", "shop.sqlite", None),
        ("SELECT count(*) AS n FROM cheap", "shop.sqlite", [{"n": 1}]),
        ("SELECT count(*) AS n FROM empty", "shop.sqlite", [{"n": 0}]),
        ("SELECT a FROM mixed ORDER BY a", "shop.sqlite", [{"a": "1"}, {"a": "2.5"}, {"a": "x"}]),
        ("SELECT 'NaN'::DOUBLE AS n, INTERVAL 1 DAY AS d", "cities.csv", [{"n": None, "d": 86400}]),
        ("SHOW TABLES", "cities.csv", None),
    ],
)
async def test_files_are_tables(context: ToolContext, sql: str, source: Any, rows: Any) -> None:
    found = await run(context, sql, source)
    json.dumps(found, allow_nan=False)
    assert rows is None or found == rows


async def test_null_and_empty_text_of_sqlite_stay_apart(context: ToolContext) -> None:
    found = await run(context, "SELECT note, raw FROM orders ORDER BY id", "shop.sqlite")
    assert found == [
        {"note": 'a,"b\nc', "raw": "ff00"},
        {"note": None, "raw": ""},
        {"note": "", "raw": None},
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('../secret.csv')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '{outside}'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_blob('{root}/plain.txt')",
        "COPY cities TO '{root}/cities.csv'",
        "COPY (SELECT 1) TO '/tmp/planloom-escape.csv'",
        "ATTACH '{root}/shop.sqlite' AS x",
        "SET enable_external_access = true",
        "PRAGMA enable_external_access = true",
        "INSTALL sqlite",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW cities",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM secret_variable",
    ],
)
async def test_sql_reaches_nothing_but_its_sources(context: ToolContext, sql: str) -> None:
    secret_variable = duckdb.sql("SELECT 1")  # DuckDB would find a Python variable by name
    root = context.workspace
    before = (root / "cities.csv").read_bytes()
    text = sql.format(root=root, outside=root.parent / "secret.csv")
    with pytest.raises(ToolError, match="query_sql"):
        await run(context, text, "cities.csv")
    assert (root / "cities.csv").read_bytes() == before
    assert not Path("/tmp/planloom-escape.csv").exists()
    assert secret_variable is not None


@pytest.mark.parametrize(
    ("sql", "source", "said"),
    [
        ("SELECT nope FROM cities", "cities.csv", "Tables: cities(city VARCHAR, pop BIGINT"),
        ("SELECT * FROM order", "shop.sqlite", "query_sql"),
        ("SELECT * FROM orderz", "shop.sqlite", "orders("),
        ("SELECT 1", "citis.csv", 'Did you mean "cities.csv"?'),
        ("SELECT 1", "plain.txt", "is no table"),
        ("SELECT 1", "../secret.csv", "outside the workspace"),
        ("SELECT 1", [], "no source"),
        ("DELETE FROM cities", "cities.csv", "only SELECT is allowed"),
    ],
)
async def test_a_query_that_fails_says_how_to_mend_it(
    context: ToolContext, sql: str, source: Any, said: str
) -> None:
    with pytest.raises(ToolError) as caught:
        await run(context, sql, source)
    assert said in str(caught.value)


async def test_too_many_rows_are_cut_with_a_mark(context: ToolContext) -> None:
    found = await run(context, "SELECT range AS n FROM range(20000)", "cities.csv")
    assert len(found) == ROWS_MAX + 1
    assert "10,000 rows" in found[-1]["_truncated"]


async def test_large_rows_are_cut_before_they_fill_memory(context: ToolContext) -> None:
    sql = "SELECT range AS i, repeat('x', 300000) AS v FROM range(1000)"
    rows = await query_sql(sql, "cities.csv", context)
    assert 60 < len(rows) < 70
    assert "_truncated" in rows[-1]
    with pytest.raises(ToolError, match="a row is larger than 20,000,000 bytes"):
        await query_sql("SELECT repeat('x', 21000000) AS v", "cities.csv", context)


async def test_explaining_a_copy_does_not_write_over_a_source(context: ToolContext) -> None:
    # EXPLAIN ANALYZE runs what it explains, and the sources are the paths that DuckDB may open.
    source = context.workspace / "cities.csv"
    before = source.read_bytes()
    copy = f"COPY (SELECT 1 AS a) TO '{source}' (USE_TMP_FILE false)"
    for sql in (copy, f"EXPLAIN ANALYZE {copy}", f"EXPLAIN (ANALYZE) {copy}", f"EXPLAIN {copy}"):
        with pytest.raises(ToolError, match="only SELECT"):
            await query_sql(sql, "cities.csv", context)
    assert source.read_bytes() == before


async def test_a_cancelled_query_stops(context: ToolContext) -> None:
    endless = "SELECT count(*) FROM range(10000000000) a, range(1000000) b"
    query = asyncio.create_task(run(context, endless, "cities.csv"))
    await asyncio.sleep(0.3)
    began = time.process_time()
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query
    await asyncio.sleep(0.5)
    assert time.process_time() - began < 0.4  # it would have burnt two cores

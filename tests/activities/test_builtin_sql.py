"""`query_sql`: one SELECT over the files it was given, and over nothing else."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from planloom.activities.tools.builtin.sql import query_sql
from planloom.activities.tools.decorator import ToolContext, ToolError
from planloom.activities.tools.processes.query import ROWS_MAX
from planloom.activities.tools.threads import in_thread


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
    return await in_thread(lambda: query_sql(sql, source, context))


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


@pytest.mark.parametrize("name", ["*.csv", "aws_?redentials.csv", "[a]b.csv", "a[1].csv", "**.csv"])
async def test_the_name_of_a_source_is_no_pattern(tmp_path: Path, name: str) -> None:
    """Found: a file `*.csv` was read as all of them, and the error named what is closed."""
    for other in ("aws_credentials.csv", "ab.csv", "a1.csv"):
        (tmp_path / other).write_text("other\nsecret\n")
    (tmp_path / name).write_text("own\n7\n")
    context = ToolContext(key="k", workspace=tmp_path)
    assert await run(context, "SELECT * FROM data", name) == [{"own": 7}]


@pytest.mark.parametrize(
    ("sql", "source", "said"),
    [
        ("SELECT nope FROM cities", "cities.csv", "Tables: cities(city VARCHAR, pop BIGINT"),
        ("SELECT * FROM order", "shop.sqlite", "query_sql"),
        ("SELECT * FROM orderz", "shop.sqlite", "orders("),
        ("SELECT 1", "citis.csv", 'Did you mean "cities.csv"?'),
        ("SELECT 1", "plain.txt", "is not a table"),
        ("SELECT * FROM cheap", "shop.sqlite", 'Not read: view "cheap" of shop.sqlite'),
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
    rows = query_sql(sql, "cities.csv", context)
    assert 60 < len(rows) < 70
    assert "_truncated" in rows[-1]
    with pytest.raises(ToolError, match="a row is larger than 20,000,000 bytes"):
        query_sql("SELECT repeat('x', 21000000) AS v", "cities.csv", context)


async def test_explaining_a_copy_does_not_write_over_a_source(context: ToolContext) -> None:
    # EXPLAIN ANALYZE runs what it explains, and the sources are the paths that DuckDB may open.
    source = context.workspace / "cities.csv"
    before = source.read_bytes()
    copy = f"COPY (SELECT 1 AS a) TO '{source}' (USE_TMP_FILE false)"
    for sql in (copy, f"EXPLAIN ANALYZE {copy}", f"EXPLAIN (ANALYZE) {copy}", f"EXPLAIN {copy}"):
        with pytest.raises(ToolError, match="only SELECT"):
            query_sql(sql, "cities.csv", context)
    assert source.read_bytes() == before


async def test_a_cancelled_query_stops(context: ToolContext) -> None:
    endless = "SELECT count(*) FROM range(10000000000) a, range(1000000) b"
    call = replace(context, cancelled=threading.Event())
    query = asyncio.create_task(in_thread(lambda: query_sql(endless, "cities.csv", call)))
    await asyncio.sleep(0.3)
    call.cancelled.set()  # as the runner does, for a cancel and for a timeout
    with pytest.raises(ToolError, match="it was cancelled"):
        await asyncio.wait_for(query, 60)
    assert (await run(context, "SELECT 1 AS a", "cities.csv")) == [{"a": 1}]


# -- what a file or a query may not do to the worker -------------------------------------------

ENDLESS = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT a FROM t"


@pytest.mark.parametrize(
    "computed",
    [
        "CAST(zeroblob(900000000) AS TEXT)",
        "printf('%.*c', 900000000, 'x')",
        "replace(printf('%.*c', 9000, 'x'), 'x', printf('%.*c', 100000, 'y'))",
        "printf('%.*c', 5000, 'a') LIKE '%a%a%a%a%a%a%a%a%b'",
    ],
)
async def test_a_computed_column_of_sqlite_is_not_computed(
    context: ToolContext, computed: str
) -> None:
    """`zeroblob` in a view took 5 GB of the worker's memory; a computed column could as well."""
    path = context.workspace / "giant.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t(a INTEGER, kept AS (a + a) STORED)")
        made.execute("INSERT INTO t(a) VALUES(1)")
        made.execute(f"ALTER TABLE t ADD COLUMN b AS ({computed})")
        made.commit()
    assert await run(context, "SELECT * FROM t", "giant.sqlite") == [{"a": 1, "kept": 2}]
    with pytest.raises(ToolError, match='Not read: computed column "b" of t'):
        await run(context, "SELECT b FROM t", "giant.sqlite")


async def test_views_and_virtual_tables_of_sqlite_are_not_read(context: ToolContext) -> None:
    """A view with an endless recursion could not be cancelled, and kept its thread for good."""
    path = context.workspace / "views.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"CREATE VIEW endless AS {ENDLESS}")
        made.execute("CREATE VIEW giant AS SELECT zeroblob(1000000000) AS z")
        made.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        made.execute("CREATE TABLE plain(n)")
        made.commit()
    for name in ("endless", "giant", "words"):
        with pytest.raises(ToolError, match="Not read") as caught:
            await run(context, f"SELECT * FROM {name}", "views.sqlite")
        assert f'view "{name}" of views.sqlite' in str(caught.value)
    assert await run(context, "SELECT count(*) AS n FROM plain", "views.sqlite") == [{"n": 0}]


async def test_a_value_of_sqlite_beyond_the_limit_is_refused(context: ToolContext) -> None:
    with closing(sqlite3.connect(context.workspace / "long.sqlite")) as made:
        made.execute("CREATE TABLE t(v)")
        made.execute("INSERT INTO t VALUES(zeroblob(20000000))")
        made.commit()
    with pytest.raises(ToolError, match="too big"):
        await run(context, "SELECT length(v) FROM t", "long.sqlite")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT range(300000000)[1] AS n",
        "SELECT length(repeat('x', 4000000000)) AS n",
        "SELECT list(range) AS n FROM range(200000000)",
        "SELECT length(string_agg(repeat('x', 1000000), '')) AS n FROM range(5000)",
    ],
)
async def test_a_giant_value_is_refused_and_takes_no_memory_of_the_worker(
    context: ToolContext, sql: str
) -> None:
    """DuckDB's own limit does not hold for one value: 300 million numbers took 14 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ToolError, match="memory"):
        await run(context, sql, "cities.csv")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


async def test_a_query_without_end_is_stopped(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planloom.activities.tools.processes.pool.JOB_SECONDS", 1.0)
    for sql in (ENDLESS, "SELECT length(lpad('x', 2000000000, 'y'))"):
        with pytest.raises(ToolError, match=r"longer than 1 s|memory"):
            await run(context, f"SELECT count(*) FROM ({sql})", "cities.csv")


async def test_many_small_values_are_cut_too(context: ToolContext) -> None:
    columns = ", ".join(f"{n} AS c{n}" for n in range(100))
    found = await run(context, f"SELECT {columns} FROM range(9000)", "cities.csv")
    assert len(found) == 3_001
    assert "_truncated" in found[-1]


async def test_sorting_more_than_memory_holds_still_works(context: ToolContext) -> None:
    sql = "SELECT max(n) AS n FROM (SELECT a * 7 % 8000009 AS n, repeat('x', 40) AS t "
    sql += "FROM range(8000000) r(a) ORDER BY t, n LIMIT 7000000)"
    assert (await run(context, sql, "cities.csv"))[0]["n"] > 0

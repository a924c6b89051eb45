"""DBOS, in its own environment: a chain and a fan-out of steps that do nothing, on SQLite.

Its best settings, each tried against the other way: asynchronous steps of one workflow, started
together (a queue takes an entry of the database and a poll for each); the database in WAL mode with
`synchronous=NORMAL`, as Planloom's own server has it; no tracing, no console output.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from dbos import DBOS
from protocol import serve
from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "connect")
def _commit_without_sync(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


@DBOS.step()
async def noop(n: int) -> int:
    return n


@DBOS.workflow()
async def chain(length: int) -> int:
    value = 0
    for _ in range(length):
        value = await noop(value + 1)
    return value


@DBOS.workflow()
async def fan_out(width: int) -> int:
    return len(await asyncio.gather(*(noop(n) for n in range(width))))


SHAPES = {"chain": chain, "fan-out": fan_out}


async def run(shape: str, count: int) -> float:
    began = time.perf_counter()
    found = await SHAPES[shape](count)
    seconds = time.perf_counter() - began
    assert found == count, found
    return seconds


async def main(folder: Path) -> None:
    file = folder / "dbos.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # it is kept in the file
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": f"sqlite:///{file}",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    await serve(run)
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

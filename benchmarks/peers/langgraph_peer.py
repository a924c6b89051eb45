"""LangGraph, in its own environment: a chain and a fan-out of nodes that do nothing, on SQLite.

Its best settings, each tried against the other way: the synchronous saver and `invoke` (the
asynchronous ones are no faster), WAL mode with `synchronous=NORMAL` (`sync=FULL` is as the package
leaves it), and for the fan-out one `Send` for each item. `durability="sync"`: a step starts when
the checkpoint before it is written.
"""

from __future__ import annotations

import asyncio
import operator
import sqlite3
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from protocol import serve


class Chain(TypedDict):
    value: int


class Fan(TypedDict):
    count: int
    found: Annotated[list[int], operator.add]


def chain(length: int, saver: SqliteSaver) -> Any:
    graph = StateGraph(Chain)
    names = [f"n{n}" for n in range(length)]
    for name in names:
        graph.add_node(name, lambda state: {"value": state["value"] + 1})
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


def fan_out(saver: SqliteSaver) -> Any:
    graph = StateGraph(Fan)
    graph.add_node("item", lambda n: {"found": [n]})
    graph.add_conditional_edges(
        START, lambda state: [Send("item", n) for n in range(state["count"])], ["item"]
    )
    graph.add_edge("item", END)
    return graph.compile(checkpointer=saver)


async def main(folder: Path, sync: str) -> None:
    connection = sqlite3.connect(folder / "langgraph.sqlite", check_same_thread=False)
    connection.execute(f"PRAGMA synchronous={sync}")
    saver = SqliteSaver(connection)  # sets WAL mode itself
    graphs: dict[tuple[str, int], Any] = {}

    async def run(shape: str, count: int) -> float:
        if (shape, count) not in graphs:
            graphs[shape, count] = chain(count, saver) if shape == "chain" else fan_out(saver)
        graph = graphs[shape, count]
        config = {
            "configurable": {"thread_id": uuid.uuid4().hex},
            "recursion_limit": 10 + count,
            "max_concurrency": None,
        }
        given = {"value": 0} if shape == "chain" else {"count": count, "found": []}
        began = time.perf_counter()
        found = graph.invoke(given, config, durability="sync")
        seconds = time.perf_counter() - began
        assert (found["value"] if shape == "chain" else len(found["found"])) == count, found
        return seconds

    await serve(run)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2].removeprefix("sync=")))

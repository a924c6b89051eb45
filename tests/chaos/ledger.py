"""What tools did, written down outside Temporal and outside the workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One word of a tool: `start`, `act`, or `look` (of a check)."""

    what: str
    tool: str
    run: str
    task: str
    key: str
    attempt: int
    args: str
    pid: int

    @property
    def act(self) -> tuple[str, str, str]:
        """Which act it is: the same one has the same key, tool and arguments."""
        return self.key, self.tool, self.args


Hears = Callable[[Entry], Awaitable[str]]


class Ledger:
    """A server on a port of its own. `hears` is awaited before the tool gets its answer."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.hears: Hears | None = None
        self.address = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Ledger:
        self._server = await asyncio.start_server(self._heard, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _heard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            line = await reader.readline()
            if not line.endswith(b"\n"):
                return  # killed before it had said anything
            said: dict[str, Any] = json.loads(line)
            entry = Entry(**said)
            word = "go"
            if entry.what == "look":
                word = "done" if self.has_acted(entry) else "not"
            else:
                self.entries.append(entry)
            if self.hears is not None:
                word = await self.hears(entry) or word
            writer.write(word.encode() + b"\n")
            await writer.drain()
        writer.close()

    def has_acted(self, entry: Entry) -> bool:
        return any(e.what == "act" and e.key == entry.key for e in self.entries)

    def of(self, run: str) -> list[Entry]:
        """The entries of a run and its children."""
        return [e for e in self.entries if e.run == run or e.run.startswith(f"{run}/")]

"""One HTTP exchange of the scripted model server."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

DISCONNECT_CHECK_SECONDS = 0.02


class Exchange:
    """One HTTP/1.1 exchange on asyncio streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read_request(self) -> tuple[str, str, dict[str, str], bytes] | None:
        line = await self.reader.readline()
        if not line:
            return None
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := await self.reader.readline()) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return method, path, headers, body

    async def pause(self, seconds: float) -> None:
        """Sleep, but notice within 20 ms that the client went away."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check()
            await asyncio.sleep(min(left, DISCONNECT_CHECK_SECONDS))
        self._check()

    def _check(self) -> None:
        if self.reader.at_eof() or self.writer.is_closing():
            raise ConnectionResetError("the client went away")

    async def send(
        self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        self._head(status, content_type, (headers or {}) | {"content-length": str(len(body))})
        self.writer.write(body)
        await self.writer.drain()

    async def send_json(
        self, status: int, body: Any, headers: dict[str, str] | None = None
    ) -> None:
        raw = body if isinstance(body, str) else json.dumps(body)
        await self.send(status, raw.encode(), "application/json", headers)

    async def begin_stream(
        self, headers: dict[str, str], content_type: str, status: int = 200
    ) -> None:
        self._head(status, content_type, headers | {"transfer-encoding": "chunked"})
        await self.writer.drain()

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}"]
        lines += [f"{k}: {v}" for k, v in headers.items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def send_event(self, data: Any) -> None:
        await self.send_chunk(f"data: {json.dumps(data)}\n\n".encode())

    async def send_chunk(self, data: bytes) -> None:
        self._check()
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def end_stream(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

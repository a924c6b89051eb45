"""Liveness and readiness of a worker over HTTP, for Kubernetes, Compose and load balancers.

Answered by a thread, so that an event loop which no longer turns is seen. `/live` asks whether it
turns; `/ready` whether the workers poll, the server answers, and nobody has asked them to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HEALTH_ADDRESS = "PLANLOOM_HEALTH_ADDRESS"
BEAT_SECONDS = 1.0
STUCK_SECONDS = 60.0
"""An event loop that has not turned for so long will not turn again."""
ASK_SECONDS = 5.0
UNREACHED_SECONDS = 20.0
"""A server may be restarted; a worker is not ready when it is away for longer."""
REQUEST_SECONDS = 5.0


class Health:
    """How a worker stands: its event loop writes, the thread that answers reads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._turned = now()
        self._reached: float | None = None
        self.is_polling = False
        self.is_stopping = False

    def turned(self) -> None:
        self._turned = self._now()

    def reached(self) -> None:
        self._reached = self._now()

    def not_live(self) -> list[str]:
        """Why the process should be restarted; empty when it should not."""
        still = self._now() - self._turned
        return [f"the event loop has not turned for {still:.0f} s"] if still > STUCK_SECONDS else []

    def not_ready(self) -> list[str]:
        """Why no work should be expected of it; empty when it works."""
        reasons = self.not_live()
        if not self.is_polling:
            reasons.append("the workers do not poll yet")
        if self.is_stopping:
            reasons.append("it is stopping")
        if self._reached is None:
            reasons.append("the Temporal server has not answered yet")
        elif (away := self._now() - self._reached) > UNREACHED_SECONDS:
            reasons.append(f"the Temporal server has not answered for {away:.0f} s")
        return reasons


@contextlib.asynccontextmanager
async def watched(
    health: Health, ask_server: Callable[[], Awaitable[object]]
) -> AsyncIterator[None]:
    """While the block runs, `health` hears of the event loop and of the server."""
    tasks = [asyncio.create_task(_beat(health)), asyncio.create_task(_ask(health, ask_server))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _beat(health: Health) -> None:
    while True:
        health.turned()
        await asyncio.sleep(BEAT_SECONDS)


async def _ask(health: Health, ask_server: Callable[[], Awaitable[object]]) -> None:
    while True:
        with contextlib.suppress(Exception):  # not answered: readiness says so
            await asyncio.wait_for(ask_server(), ASK_SECONDS)
            health.reached()
        await asyncio.sleep(ASK_SECONDS)


class HealthServer:
    """`GET /live` and `GET /ready`: 200, or 503 with the reasons."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        class Answers(_Answers):
            pages: Mapping[str, Callable[[], list[str]]] = {
                "/live": health.not_live,
                "/ready": health.not_ready,
            }

        self._server = ThreadingHTTPServer((host, port), Answers)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="planloom-health", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def health_server(health: Health, environment: Mapping[str, str]) -> HealthServer | None:
    """The server that a setting asks for.

    Raises:
        ValueError: the address cannot be used.
    """
    address = environment.get(HEALTH_ADDRESS)
    if not address:
        return None
    host, colon, port = address.rpartition(":")
    try:
        if not colon:
            raise ValueError("there is no port")
        return HealthServer(health, host.strip("[]"), int(port))
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{HEALTH_ADDRESS}={address}: {reason}. Write host:port.") from None


class _Answers(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server_version = "planloom"
    sys_version = ""
    pages: Mapping[str, Callable[[], list[str]]] = {}

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self._answer(HTTPStatus.NOT_FOUND, ["ask /live or /ready"])
            return
        reasons = page()
        self._answer(HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, reasons)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def _answer(self, status: HTTPStatus, reasons: list[str]) -> None:
        body = json.dumps({"ok": not reasons, "reasons": reasons}).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A probe every few seconds is no news."""

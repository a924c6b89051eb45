"""The live page: served on loopback only, under a path that nobody else knows.

The path holds a random token, so another user of this machine, or a page of another site in the
same browser, can neither read the run nor decide about it. A request must also name this server in
its `Host`, as a site that resolves its own name to 127.0.0.1 does not, and a decision must come
from this page's own origin. The page is about the run that had the id when it was opened: a later
run with the same id is neither shown nor decided about.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import queue
import re
import secrets
import threading
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from planloom import Client, PlanloomError
from planloom.console.report.answers import ALLOWED, payload_of
from planloom.console.report.facts import RunFacts, facts_of_run, live_facts
from planloom.console.report.page import LIVE_POLICY, live_page, live_parts
from planloom.console.this_run import ThisRun
from planloom.planner.language.clean_text import clean_value

LOOK_SECONDS = 0.7
"""Between two looks at the run; with nobody watching it is not looked at."""
LOOK_MAX_SECONDS = 3.0
BEAT_SECONDS = 15.0
"""A comment on a silent stream: a browser that has gone is noticed by it."""
BODY_MAX_BYTES = 1_000_000
WATCHERS_MAX = 32
HOST = "127.0.0.1"
SCRIPT = Path(__file__).parent / "live.js"

Event = tuple[str, Any]


class LivePage:
    """One run's page on a separate port, for as long as `serve` runs."""

    def __init__(self, client: Client, run: str, port: int = 0) -> None:
        self._client = client
        self._run = run
        self._token = secrets.token_urlsafe(24)
        self._facts: RunFacts | None = None
        self._watchers: list[queue.SimpleQueue[Event]] = []
        self._shown: dict[str, str] = {}
        self._lock = threading.Lock()
        self._server = _Server((HOST, port), self)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}/{self._token}/"

    async def serve(self, ready: Callable[[str], None]) -> None:
        """Serve until cancelled; `ready` is called with the address.

        Raises:
            NoSuchRun: no run of that id.
        """
        self._loop = asyncio.get_running_loop()
        self._this = await ThisRun.of(self._client, self._run)
        self._facts = await facts_of_run(self._client, self._this)
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        ready(self.url)
        try:
            await self._look()
        finally:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()

    async def _look(self) -> None:
        """Tell the watchers what has changed, forever: after the end they may still come."""
        pause = LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            facts = self._facts
            if facts is None or not self._watchers:
                continue
            if facts.is_over:
                self._tell(("end", {}))
                pause = LOOK_MAX_SECONDS
                continue
            try:
                self._facts = await live_facts(self._this, facts)
            except PlanloomError as error:
                self._tell(("trouble", str(error)))
                pause = LOOK_MAX_SECONDS
                continue
            if self._facts.is_over:  # the whole story, decisions included
                self._facts = await facts_of_run(self._client, self._this)
            changed = self._changed(live_parts(self._facts))
            if changed:
                self._tell(("parts", changed))
            pause = LOOK_SECONDS if changed else min(LOOK_MAX_SECONDS, pause * 1.3)

    def _changed(self, parts: dict[str, str]) -> dict[str, str]:
        with self._lock:
            changed = {n: html for n, html in parts.items() if self._shown.get(n) != html}
            self._shown = parts
        return changed

    def _tell(self, event: Event) -> None:
        with self._lock:
            for watcher in self._watchers:
                watcher.put(event)

    # -- called from the server's threads ---------------------------------------------------

    def is_known(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())

    def hosts(self) -> tuple[str, ...]:
        port = self._server.server_address[1]
        return f"{HOST}:{port}", f"localhost:{port}"

    def page(self) -> str:
        assert self._facts is not None
        return live_page(self._facts)

    def watch(self) -> queue.SimpleQueue[Event] | None:
        """A stream of what changes from now on; None when too many watch."""
        with self._lock:
            if len(self._watchers) >= WATCHERS_MAX:
                return None
            watcher: queue.SimpleQueue[Event] = queue.SimpleQueue()
            if self._shown:  # the page may be older than the last look
                watcher.put(("parts", self._shown))
            self._watchers.append(watcher)
            return watcher

    def leave(self, watcher: queue.SimpleQueue[Event]) -> None:
        with self._lock:
            self._watchers.remove(watcher)

    def act(self, update: str, given: dict[str, Any]) -> tuple[HTTPStatus, str]:
        """Send a decision; what the run says of it."""
        if update not in ALLOWED:
            return HTTPStatus.FORBIDDEN, f'"{update}" cannot be sent from here'
        try:
            reply = self._in_loop(self._this.update(update, payload_of(update, given)))
        except PlanloomError as error:
            return HTTPStatus.CONFLICT, str(error)
        return HTTPStatus.OK, reply.message

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: LivePage) -> None:
        self.page = page
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "planloom", ""
    timeout = 60
    _TYPES: ClassVar = {
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "json": "application/json",
    }

    def do_GET(self) -> None:
        """The page, its script, or the stream of what changes."""
        match self._asked():
            case "":
                self._answer(HTTPStatus.OK, "html", self.server.page.page())
            case "live.js":
                self._answer(HTTPStatus.OK, "js", SCRIPT.read_text(encoding="utf-8"))
            case "events":
                self._stream()
            case None:
                pass
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        """A decision."""
        if (asked := self._asked()) is None:
            return
        size = self.headers.get("Content-Length", "")
        origins = [f"http://{host}" for host in self.server.page.hosts()]
        if asked != "act":
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")
        elif self.headers.get("Origin") not in origins:
            self._refuse(HTTPStatus.FORBIDDEN, "only this page may send decisions")
        elif self.headers.get("Content-Type") != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        elif not re.fullmatch("[0-9]{1,10}", size) or int(size) > BODY_MAX_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
        else:
            self._act(self.rfile.read(int(size)))

    def _act(self, body: bytes) -> None:
        try:
            document = clean_value(json.loads(body))
            update, given = document["update"], document["input"]  # type: ignore[call-overload, index]
        except (ValueError, KeyError, TypeError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "needs {update, input}")
            return
        if not isinstance(update, str) or not isinstance(given, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "needs {update, input}")
            return
        status, message = self.server.page.act(update, given)
        self._answer(status, "json", json.dumps({"message": message}))

    def _asked(self) -> str | None:
        """What is asked for behind the token; None once the request was refused."""
        if self.headers.get("Host") not in self.server.page.hosts():
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
            return None
        token, _, rest = self.path.split("?")[0].lstrip("/").partition("/")
        if not self.server.page.is_known(token):
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")
            return None
        return rest

    def _stream(self) -> None:
        watcher = self.server.page.watch()
        if watcher is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                try:
                    name, value = watcher.get(timeout=BEAT_SECONDS)
                except queue.Empty:
                    self.wfile.write(b": still here\n\n")
                    continue
                text = json.dumps(value, ensure_ascii=True)
                self.wfile.write(f"event: {name}\ndata: {text}\n\n".encode())
                if name == "end":
                    return
        except OSError:
            return  # the browser has gone
        finally:
            self.server.page.leave(watcher)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self.close_connection = True
        self._answer(status, "json", json.dumps({"message": message}))

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", self._TYPES[kind])
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", f"{LIVE_POLICY}; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the address holds the token."""

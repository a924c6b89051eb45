"""`examples/notify.py`: messages about waits and ends, and links that decide one revision."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.docs.pages import CHECKOUT
from tests.support.harness import Planloom
from tests.support.waiting import until

Messages = list[dict[str, Any]]


@pytest.fixture
def chat() -> Iterator[tuple[str, Messages]]:
    """What a chat system's webhook would get."""
    got: Messages = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


@contextlib.asynccontextmanager
async def notifier(planloom: Planloom, url: str) -> AsyncIterator[None]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{made.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHECKOUT / "examples" / "notify.py"),
        env={
            **os.environ,
            **planloom.env,
            "NOTIFY_URL": url,
            "NOTIFY_SECRET": "secret of sixteen",
            "NOTIFY_LINK": f"http://{listen}",
            "NOTIFY_LISTEN": listen,
            "NOTIFY_SECONDS": "0.2",
        },
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def _ask(link: str, method: str) -> tuple[int, str]:
    request = urllib.request.Request(link, method=method)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_a_waiting_run_is_announced_and_its_link_approves_it(
    planloom: Planloom, chat: tuple[str, Messages]
) -> None:
    url, messages = chat
    plan = {"tasks": [{"id": "a", "tool": "calculate", "args": {"expression": "6 * 7"}}]}
    async with planloom.worker_process(), notifier(planloom, url):
        run = await planloom.start({"plan": plan, "approval": "always"})

        def told(event: str) -> Messages:
            return [m for m in messages if m["run"] == run.id and m["event"] == event]

        await until(lambda: bool(told("approval")), 30)
        (message,) = told("approval")
        assert "approve_plan" in message["command"]
        link = message["approve"]

        forged = link.replace("revision=1", "revision=2")
        assert (await asyncio.to_thread(_ask, forged, "POST"))[0] == 403
        status, page = await asyncio.to_thread(_ask, link, "GET")
        assert (status, "<form method=" in page) == (200, True)
        assert (await planloom.progress(run)).awaiting == "approval", "a preview decides nothing"

        assert (await asyncio.to_thread(_ask, link, "POST"))[0] == 200
        assert (await planloom.result(run))["status"] == "completed"
        await until(lambda: bool(told("ended")), 30)
        assert len(told("approval")) == 1
        assert (await asyncio.to_thread(_ask, link, "POST"))[0] == 409, "too late"
        for odd in (link.replace("signature=", "signature=%C3%A9"), link.replace("run=", "run=no")):
            assert (await asyncio.to_thread(_ask, odd, "POST"))[0] == 403

        again = await planloom.start({"plan": plan, "approval": "always"}, id=run.id)
        await planloom.until(again, lambda progress: progress.awaiting == "approval")
        assert (await asyncio.to_thread(_ask, link, "POST"))[0] == 403, "a link of an earlier run"
        assert (await planloom.progress(again)).awaiting == "approval"

"""What an endpoint can make a reader of its answers do: time is linear, headers stay at home."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from planloom.activities.models.client import ChatRequest, ModelClient
from planloom.activities.models.errors import _page_text
from planloom.activities.models.reply_builder import ReplyBuilder
from planloom.activities.models.sse import SseDecoder
from planloom.planner.contract.settings import PoolSettings, Settings
from tests.support.linear import assert_linear, repeated

ANSWER = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}


def test_lines_behind_a_long_one_take_linear_time() -> None:
    """Each comment behind a line that ends with spaces had those spaces read again."""
    assert_linear(
        lambda body: SseDecoder().feed(body),
        lambda n: b'data: {"a":1}' + b" " * (n * 4) + b"\n" + b":\n" * n,
        25_000,
    )


@pytest.mark.parametrize("unit", ["<script", "<style>", "<script></style>", "<", "</script>"])
def test_an_error_page_full_of_beginnings_takes_linear_time(unit: str) -> None:
    assert_linear(lambda page: _page_text(page), lambda n: "<html>" + unit * n, 10_000)


def test_the_words_of_a_page_are_those_outside_its_scripts() -> None:
    page = "<html><STYLE>a{}</STYLE><h1>No\nroom</h1><script>if (a<b) {}</script>Try later</html>"
    assert _page_text(page) == "No room Try later"
    assert _page_text("<p>a</p><script src=x>b") == "a b"


def test_a_refusal_in_tiny_pieces_takes_linear_time() -> None:
    def read(text: str) -> None:
        builder = ReplyBuilder()
        for at in range(0, len(text), 20):
            refused = {"delta": {"refusal": text[at : at + 20]}}
            builder.add_event(json.dumps({"choices": [refused]}))

    assert_linear(read, repeated("no, and "), 400_000)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


async def test_secret_headers_do_not_follow_a_redirect_to_another_host() -> None:
    seen: list[dict[str, str]] = []
    elsewhere = ""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append({k.lower(): v for k, v in self.headers.items()})
            is_sent_on = self.path == "/here/chat/completions"
            self.send_response(307 if is_sent_on else 200)
            if is_sent_on:
                self.send_header("Location", f"{elsewhere}/there")
            body = json.dumps(ANSWER).encode()
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as other, serving(Handler) as own:
        pool = PoolSettings(base_url=f"{own}/here", headers_env={"X-Api-Key": "GATEWAY_API_KEY"})
        environment = {"OPENAI_API_KEY": "sk-1234567890", "GATEWAY_API_KEY": "gateway-secret"}
        client = ModelClient(Settings(pools={"default": pool}), environment)
        asked = ChatRequest(model="m", messages=[{"role": "user", "content": "hello"}])
        assert (await client.chat("default", asked)).text == "yes"
        elsewhere = other
        assert (await client.chat("default", asked)).text == "yes"
        await client.close()
    given = [(h.get("x-api-key"), h.get("authorization")) for h in seen]
    mine = ("gateway-secret", "Bearer sk-1234567890")
    assert given == [mine, mine, mine, (None, None)]

"""`http_get` against a real server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from planloom.activities.tools.builtin.web import BODY_MAX_BYTES, http_get, refusal_of
from planloom.activities.tools.decorator import ToolError


class _Pages(BaseHTTPRequestHandler):
    hosts: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        page = self.path.partition("?")[0].lstrip("/")
        {
            "json": lambda: self._send(200, b'{"a": [1]}', "application/json; charset=utf-8"),
            "text": lambda: self._send(
                200, "h\u00e9".encode("latin-1"), "text/plain; charset=latin-1"
            ),
            "binary": lambda: self._send(200, b"\0\1", "image/png"),
            "busy": lambda: self._send(429, b"", "text/plain", {"Retry-After": "7"}),
            "gone": lambda: self._send(404, b"", "text/plain"),
            "big": lambda: self._send(200, b"x" * (BODY_MAX_BYTES + 1), "text/plain"),
            "loop": lambda: self._send(302, b"", "text/plain", {"Location": "/loop"}),
            "hop": lambda: self._send(302, b"", "text/plain", {"Location": "/json"}),
            "meta": lambda: self._send(
                302, b"", "text/plain", {"Location": "http://169.254.169.254/latest"}
            ),
            "file": lambda: self._send(302, b"", "text/plain", {"Location": "file:///etc/passwd"}),
        }[page]()

    def _send(
        self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


async def test_json_comes_as_its_value_and_text_as_text(port: int) -> None:
    assert await http_get(f"http://127.0.0.1:{port}/json") == {"a": [1]}
    assert await http_get(f"http://127.0.0.1:{port}/text") == "hé"
    assert await http_get(f"http://127.0.0.1:{port}/hop") == {"a": [1]}


async def test_a_name_keeps_its_host_header_though_its_address_is_connected_to(port: int) -> None:
    assert await http_get(f"http://localhost:{port}/json") == {"a": [1]}
    assert _Pages.hosts[-1] == f"localhost:{port}"


@pytest.mark.parametrize(
    ("page", "said", "retry", "retry_after"),
    [
        ("busy", "429", True, 7.0),
        ("gone?key=hidden", "404", False, None),
        ("big", "larger than 5,000,000 bytes", False, None),
        ("binary", "neither text nor JSON", False, None),
        ("loop", "redirects more than 5", False, None),
        ("meta", "never reached", False, None),
        ("file", "only http", False, None),
    ],
)
async def test_what_is_no_answer_is_told(
    port: int, page: str, said: str, retry: bool, retry_after: float | None
) -> None:
    with pytest.raises(ToolError, match=said) as caught:
        await http_get(f"http://127.0.0.1:{port}/{page}")
    assert (caught.value.retry, caught.value.retry_after) == (retry, retry_after)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://169.254.169.254/latest/meta-data", "never reached"),
        ("http://[fe80::1]/", "never reached"),
        ("http://[::ffff:169.254.169.254]/", "never reached"),
        ("http://metadata.google.internal/", "metadata service"),
        ("http://0.0.0.0/", "no address of a server"),
        ("ftp://example.org/x", "only http"),
        ("file:///etc/passwd", "only http"),
        ("no address", "only http"),
        ("http://127.0.0.1:1/", "ConnectError"),
        ("http://no-such-host.invalid/", "not found"),
    ],
)
async def test_what_may_not_or_cannot_be_reached_is_told(url: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        await http_get(url)


async def test_private_addresses_can_be_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANLOOM_HTTP_ALLOW_PRIVATE", "0")
    with pytest.raises(ToolError, match="private addresses are closed"):
        await http_get(f"http://localhost:{port}/json")
    for address in ("10.0.0.1", "192.168.1.1", "::1", "fc00::1", "100.64.0.1", "::ffff:10.0.0.1"):
        assert refusal_of(address, allow_private=False)
    assert refusal_of("93.184.216.34", allow_private=False) is None

"""`http_get` against a real server on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from planloom.activities.tools.builtin import web
from planloom.activities.tools.builtin.addresses import Allowed, allowed_from, refusal_of
from planloom.activities.tools.builtin.http_body import (
    BODY_MAX_BYTES,
    CHARSETS,
    BodyError,
    charset_of,
    content_of,
    read_body,
)
from planloom.activities.tools.builtin.web import http_get
from planloom.activities.tools.decorator import ToolError

GZIP_TWICE = gzip.compress(bytes(500_000_000), 9)
"""949 bytes, packed once more, became 500 MB."""


class _Pages(BaseHTTPRequestHandler):
    hosts: list[str] = []  # noqa: RUF012
    authorizations: list[str | None] = []  # noqa: RUF012
    hops: dict[str, str] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        self.authorizations.append(self.headers["Authorization"])
        page = self.path.partition("?")[0].rpartition("/")[2]
        if (hop := self.hops.get(f"/{page}")) is not None:
            self._send(302, b"", "text/plain", {"Location": hop})
            return
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
            "nowhere": lambda: self._send(302, b"", "text/plain"),
            "empty": lambda: self._send(301, b"", "text/plain", {"Location": ""}),
            "odd": lambda: self._send(302, b"", "text/plain", {"Location": "http://[::1/"}),
            "same": lambda: self._send(304, b"", "text/plain"),
            "punycode": lambda: self._send(200, b"a" * 200_000, "text/plain; charset=punycode"),
            "idna": lambda: self._send(200, b"a.b" * 70_000, "text/html; charset='idna'"),
            "star": lambda: self._send(200, b"a" * 200_000, "text/plain; charset*=punycode''a"),
            "packed": lambda: self._packed(gzip.compress(b"hello"), "gzip"),
            "parts": lambda: self._packed(gzip.compress(b"hel") + gzip.compress(b"lo"), "x-gzip"),
            "zlib": lambda: self._packed(zlib.compress(b"hello"), "deflate"),
            "bare": lambda: self._packed(zlib.compress(b"hello")[2:-4], "deflate"),
            "bomb": lambda: self._packed(gzip.compress(bytes(300_000_000), 1), "gzip"),
            "twice": lambda: self._packed(gzip.compress(GZIP_TWICE), "gzip, gzip"),
            "mixed": lambda: self._packed(zlib.compress(GZIP_TWICE), "gzip, deflate"),
            "brotli": lambda: self._packed(b"x", "br"),
            "torn": lambda: self._packed(gzip.compress(b"hello" * 100)[:-9], "gzip"),
            "crumbs": lambda: self._packed(gzip.compress(b"") * 50_000, "gzip"),
            "cookies": lambda: self._send(
                200, b"ok", "text/plain", {"Set-Cookie": "a=b; expires=" + "1 " * 15_000}
            ),
        }[page]()

    def _packed(self, body: bytes, encoding: str) -> None:
        self._send(200, body, "text/plain", {"Content-Encoding": encoding})

    def _send(
        self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the tool hangs up on what is too large
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


@pytest.fixture(autouse=True)
def _this_machine_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANLOOM_HTTP_ALLOW_PRIVATE", "127.0.0.0/8,::1")


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
        ("nowhere", "answered 302 .a redirect. and does not say where to", False, None),
        ("empty", "answered 301 .a redirect. and does not say where to", False, None),
        ("odd", "redirects to what is not an address", False, None),
        ("same", "answered 304", False, None),
        ("bomb", "larger than 5,000,000 bytes", False, None),
        ("twice", "is packed as 'gzip, gzip'; gzip and deflate, once, are read", False, None),
        ("mixed", "is packed as 'gzip, deflate'", False, None),
        ("brotli", "is packed as 'br'", False, None),
        ("torn", "ends in the middle", False, None),
        ("crumbs", "more than 100 parts", False, None),
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
        ("http://0.0.0.0/", "not the address of a server"),
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


async def test_a_name_and_password_in_the_address_are_sent_and_never_shown(port: int) -> None:
    assert await http_get(f"http://ann:s%C3%A9cret@127.0.0.1:{port}/json") == {"a": [1]}
    assert _Pages.authorizations[-1] == "Basic YW5uOnPDqWNyZXQ="
    with pytest.raises(ToolError) as caught:
        await http_get(f"http://ann:secret@127.0.0.1:{port}/gone")
    assert "secret" not in str(caught.value)


async def test_a_packed_body_is_unpacked(port: int) -> None:
    for page in ("packed", "parts", "zlib", "bare"):
        assert await http_get(f"http://127.0.0.1:{port}/{page}") == "hello"


@pytest.mark.parametrize("page", ["punycode", "idna", "star", "cookies"])
async def test_a_strange_charset_or_header_costs_no_time(port: int, page: str) -> None:
    """`charset=punycode` took 12 s of the event loop for 200 KB."""
    began = time.process_time()
    assert await http_get(f"http://127.0.0.1:{port}/{page}")
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'{"a": NaN}', '{"a": NaN}'),
        (b'{"a": 1e999}', '{"a": 1e999}'),
        (b"9" * 5_000, "9" * 5_000),
        (b"[" * 100_000, "[" * 100_000),
        (b'{"a": "\\ud83d"}', {"a": "\ufffd"}),
        (b'{"a": "\xff"}', '{"a": "\ufffd"}'),
    ],
    ids=["json", "no number", "too large", "digits", "deep", "half", "bytes"],
)
def test_what_is_called_json_and_is_none_is_text(body: bytes, value: Any) -> None:
    """A `NaN` in it failed the task, as no output may hold one."""
    assert content_of("application/json", body) == value


@pytest.mark.parametrize("levels", [600, 900, 5_000])
def test_a_body_nested_without_end_is_text(levels: int) -> None:
    """Found: where JSON was read and its texts could not be cleaned, the page was fetched again."""
    body = b"[" * levels + b"]" * levels
    assert content_of("application/json", body) == body.decode()


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("text/html; charset=ISO-8859-15", "iso-8859-15"),
        ('text/html; charset="Shift_JIS"', "shift_jis"),
        ("text/html;charset = windows-31j ; x=y", "cp932"),
        ("text/html; charset=UTF-7", "utf-8-sig"),
        ("text/html; charset=base64", "utf-8-sig"),
        ("text/html; charset=unicode_escape", "utf-8-sig"),
        ("text/html", "utf-8-sig"),
        ("", "utf-8-sig"),
    ],
)
def test_only_character_sets_of_the_web_are_decoded(kind: str, codec: str) -> None:
    assert charset_of(kind) == codec
    assert content_of(kind or "text/plain", b"abc") in ("abc", "\u6261\ufffd")


@pytest.mark.parametrize("charset", sorted(CHARSETS))
def test_a_body_is_decoded_in_slices_as_it_would_be_as_a_whole(
    charset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five megabytes of bytes that a table lacks held the whole worker up for 1.3 s."""
    codec = charset_of(f"text/plain; charset={charset}")
    words = "na\u00efve \u043f\u0440\u0438 \u65e5\u672c\u8a9e \ud55c\uad6d x".encode(
        codec, "replace"
    )
    for body in (words, words + b"\xff\x81\x1b", b""):
        whole = body.decode(codec, "replace")
        for size in (1, 3, 1000):
            monkeypatch.setattr("planloom.activities.tools.builtin.http_body.DECODED_AT_ONCE", size)
            assert content_of(f"text/plain; charset={charset}", body) == whole


async def test_private_addresses_are_closed_unless_the_operator_opens_them(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for closed in ("", "0", "off", "10.0.0.0/8"):
        monkeypatch.setenv("PLANLOOM_HTTP_ALLOW_PRIVATE", closed)
        with pytest.raises(ToolError, match="private addresses are closed"):
            await http_get(f"http://localhost:{port}/json")
    for opened in ("1", "TRUE", "10.0.0.0/8, 127.0.0.1, ::1"):
        monkeypatch.setenv("PLANLOOM_HTTP_ALLOW_PRIVATE", opened)
        assert await http_get(f"http://localhost:{port}/json") == {"a": [1]}
    monkeypatch.setenv("PLANLOOM_HTTP_ALLOW_PRIVATE", "nobody")
    with pytest.raises(ToolError, match="PLANLOOM_HTTP_ALLOW_PRIVATE cannot be read"):
        await http_get(f"http://localhost:{port}/json")


PRIVATE = ["10.0.0.1", "192.168.1.1", "127.0.0.1", "::1", "fc00::1", "100.64.0.1", "198.18.0.1"]
PRIVATE += ["3fff::1", "5f00::1", "192.0.0.8"]
DISGUISED = {
    "::ffff:10.0.0.1": "private",
    "::ffff:0a00:1": "private",
    "64:ff9b::10.0.0.1": "private",
    "64:ff9b::7f00:1": "private",
    "64:ff9b::169.254.169.254": "never reached",
    "64:ff9b:1::10.0.0.1": "never reached",
    "2002:7f00:1::1": "never reached",
    "2002:a9fe:a9fe::": "never reached",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe": "never reached",
    "::10.0.0.1": "never reached",
    "::ffff:0:10.0.0.1": "never reached",
    "2a00:1450::5efe:10.0.0.1": "never reached",
    "2a00:1450::200:5efe:8.8.8.8": "never reached",
    "fec0::1": "never reached",
    "192.88.99.1": "never reached",
    "fe80::1%eth0": "never reached",
    "fd00:ec2::254": "never reached",
    "fd00:ec2::23": "never reached",
    "fd20:ce::254": "never reached",
    "255.255.255.255": "not the address of a server",
    "224.0.0.1": "not the address of a server",
    "ff02::1": "not the address of a server",
    "::": "not the address of a server",
    "no address": "not an address",
}


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_needs_the_operators_word(address: str) -> None:
    assert "private" in (refusal_of(address) or "")
    assert refusal_of(address, Allowed(is_all_private=True)) is None


@pytest.mark.parametrize(("address", "said"), DISGUISED.items())
def test_an_address_in_another_address_is_found(address: str, said: str) -> None:
    """NAT64, 6to4, Teredo and `::a.b.c.d` passed the check and led to 127.0.0.1."""
    assert said in (refusal_of(address) or "")
    if said != "private":
        assert said in (refusal_of(address, Allowed(is_all_private=True)) or "")


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::8.8.8.8"])
def test_a_public_address_is_open(address: str) -> None:
    assert refusal_of(address) is None


def test_networks_open_what_they_hold_and_nothing_else() -> None:
    allowed = allowed_from("10.1.0.0/16, fd12::/16")
    assert refusal_of("10.1.2.3", allowed) is None
    assert refusal_of("fd12::5", allowed) is None
    assert refusal_of("::ffff:10.1.2.3", allowed) is None
    assert refusal_of("10.2.0.1", allowed)
    assert refusal_of("169.254.169.254", allowed_from("169.254.0.0/16"))


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "127.1", "017700000001", "localhost.", "[::ffff:127.0.0.1]"]
)
async def test_an_address_written_in_another_way_is_found(
    port: int, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLANLOOM_HTTP_ALLOW_PRIVATE")
    with pytest.raises(ToolError, match=r"private addresses are closed|is not found"):
        await http_get(f"http://{host}:{port}/json")


async def test_a_redirect_to_a_private_address_is_refused(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first stop is open here; `/hop` leads to the same machine under another name."""
    monkeypatch.setenv("PLANLOOM_HTTP_ALLOW_PRIVATE", "127.0.0.1")
    monkeypatch.setattr(_Pages, "hops", {"/away": f"http://127.0.0.2:{port}/json"})
    with pytest.raises(ToolError, match=r'"127\.0\.0\.2" is at 127\.0\.0\.2: private'):
        await http_get(f"http://127.0.0.1:{port}/away")


async def test_a_name_that_changes_its_address_gets_no_second_look(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the checked answer is the one that is connected to."""
    answers = iter(["127.0.0.1", "169.254.169.254", "169.254.169.254"])
    real = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **more: Any) -> Any:
        return real(next(answers) if host == "rebind.test" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert await http_get(f"http://rebind.test:{port}/json") == {"a": [1]}
    assert next(answers) == "169.254.169.254"  # it was asked once
    with pytest.raises(ToolError, match="never reached"):
        await http_get(f"http://rebind.test:{port}/json")


def _make_certificate(folder: Path) -> None:
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=right.test -keyout k.pem "
    made += "-out c.pem -addext subjectAltName=DNS:right.test"
    subprocess.run(made.split(), cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
async def test_a_certificate_is_checked_against_the_name_and_not_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_certificate(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = server.server_port
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", here))]
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c.pem"))
    web._tls.cache_clear()
    try:
        assert await http_get(f"https://right.test:{here}/json") == {"a": [1]}
        with pytest.raises(ToolError, match="CERTIFICATE_VERIFY_FAILED"):
            await http_get(f"https://wrong.test:{here}/json")
    finally:
        web._tls.cache_clear()
        server.shutdown()
        server.server_close()


async def test_one_bad_address_of_a_name_is_enough_to_refuse_it(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(*_: Any, **__: Any) -> Any:
        return [(2, 1, 6, "", (a, port)) for a in ("127.0.0.1", "169.254.169.254")]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(ToolError, match="never reached"):
        await http_get(f"http://two.test:{port}/json")


async def test_slow_name_servers_leave_the_executor_of_all_others_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looked up by the event loop, forty names took every thread that claims and blobs go by."""
    answered = threading.Event()
    monkeypatch.setattr(web, "RESOLVE_SECONDS", 1.0)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(60))
    calls = [asyncio.create_task(http_get(f"http://n{n}.test/")) for n in range(40)]
    await asyncio.sleep(0.1)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 30) == "done"
    ends = await asyncio.gather(*calls, return_exceptions=True)
    answered.set()
    for ended in ends:
        assert isinstance(ended, ToolError)
        assert ended.retry
        assert "within 1 s" in ended.message


async def test_a_name_with_a_dead_address_is_reached_at_the_next(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(*_: Any, **__: Any) -> Any:
        return [(2, 1, 6, "", (a, port)) for a in ("127.0.0.77", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert await http_get(f"http://two.test:{port}/json") == {"a": [1]}


async def test_proxies_of_the_environment_are_not_used(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy no address is checked: it could be told to fetch a private one."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    _Pages.hosts.clear()
    with pytest.raises(ToolError, match="not found"):
        await http_get("http://no-such-host.invalid/json")
    assert _Pages.hosts == []


async def test_an_operators_proxy_is_used_and_known_addresses_are_still_checked(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANLOOM_HTTP_PROXY", f"http://127.0.0.1:{port}")
    assert await http_get("http://no-such-host.invalid/json") == {"a": [1]}
    assert _Pages.hosts[-1] == "no-such-host.invalid"
    for bad in ("http://169.254.169.254/json", "http://10.0.0.1/json"):
        with pytest.raises(ToolError, match=r"never reached|private"):
            await http_get(bad)


@pytest.mark.parametrize(
    "proxy", ["me:canary@x", "htp://me:canary@x", "socks5://me:canary@x", "://"]
)
async def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was quoted in the task's error, and so in history."""
    monkeypatch.setenv("PLANLOOM_HTTP_PROXY", proxy)
    with pytest.raises(ToolError, match="PLANLOOM_HTTP_PROXY cannot be used") as seen:
        await http_get("https://example.org/")
    assert "canary" not in str(seen.value)
    assert seen.value.__cause__ is None


async def test_a_body_in_single_bytes_lets_others_go_on_and_ends() -> None:
    """All that has come is given without a pause: 64 KB of it held the event loop for a second."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def bytes_without_end() -> AsyncIterator[bytes]:
        while True:
            yield b"a"

    beside = asyncio.create_task(others())
    with pytest.raises(BodyError, match="more than 50,000 pieces"):
        await read_body(bytes_without_end(), "")
    beside.cancel()
    assert turns > 400

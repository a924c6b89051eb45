"""A codec server: the Web UI and the `temporal` program read encrypted runs through it.

It answers POST /encode and /decode as Temporal's own samples do, on this machine only. Whoever may
ask it reads everything, so it checks who asks: see `_refusal`.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

from google.protobuf.json_format import MessageToJson, Parse, ParseError
from temporalio.api.common.v1 import Payloads
from temporalio.converter import PayloadCodec

from planloom.codec import EncryptionCodec
from planloom.console.devserver import DevServer
from planloom.console.documents import settings_now
from planloom.keys import key_ring

BODY_MAX_BYTES = 64 * 1024 * 1024
REFUSED_MAX_BYTES = 64 * 1024
"""Of a caller who gets nothing: nobody fills the memory without being allowed to ask."""
IDLE_SECONDS = 30.0
"""After so long without a byte a connection is closed."""


class CodecServer:
    """Encodes and decodes payloads over HTTP until it is stopped.

    Args:
        codec: what encrypts and decrypts.
        web_uis: origins whose pages may read the answers, such as `http://localhost:8233`.
        token: when given, every request must carry `Authorization: Bearer <token>`.
        port: 0 means a free one; `address` says which.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        codec: PayloadCodec,
        *,
        web_uis: Sequence[str] = (),
        token: str | None = None,
        ip: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._server = _Server((ip, port), _Handler)
        self._server.codec = codec
        self._server.web_uis = tuple(origin.rstrip("/") for origin in web_uis)
        self._server.token = token
        self._server.is_loopback = ip_address(ip).is_loopback
        host = f"[{ip}]" if ":" in ip else ip
        self.address = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="planloom-codec-server", daemon=True
        )

    def start(self) -> CodecServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def wait(self) -> None:
        self._thread.join()


def codec_server_for(server: DevServer) -> CodecServer | None:
    """For a development server's Web UI, when the settings have keys; the server must not run yet.

    Raises:
        SettingsError: a key cannot be read.
    """
    keys = key_ring(settings_now())
    if keys is None or not server.given_ui_port:
        return None
    pages = [f"http://{host}:{server.given_ui_port}" for host in ("localhost", server.ip)]
    codec_server = CodecServer(EncryptionCodec(keys), web_uis=pages).start()
    server.codec_endpoint = codec_server.address
    return codec_server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    codec: PayloadCodec
    web_uis: tuple[str, ...]
    token: str | None
    is_loopback: bool


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = IDLE_SECONDS
    protocol_version = "HTTP/1.1"
    server_version = "planloom"
    sys_version = ""

    def do_OPTIONS(self) -> None:
        """A browser asks before a page of the Web UI may."""
        self._answer(HTTPStatus.NO_CONTENT if self._is_allowed_page() else HTTPStatus.FORBIDDEN)

    def do_POST(self) -> None:
        refusal = self._refusal()
        body = self._body(BODY_MAX_BYTES if refusal is None else REFUSED_MAX_BYTES)
        if body is None:
            return
        if refusal is not None:
            self._answer(*refusal)
            return
        try:
            payloads = Parse(body, Payloads()).payloads
        except (ParseError, UnicodeDecodeError, RecursionError):
            self._answer(HTTPStatus.BAD_REQUEST, "the body is not Payloads as JSON")
            return
        codec = self.server.codec
        work = codec.encode if self.path == "/encode" else codec.decode
        done = asyncio.run(work(payloads))
        self._answer(HTTPStatus.OK, MessageToJson(Payloads(payloads=done)), "application/json")

    def _body(self, max_bytes: int) -> bytes | None:
        """Read also when it is refused, if it is short: the connection can then be used again."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,10}", length) or int(length) > max_bytes:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length else HTTPStatus.LENGTH_REQUIRED
            self.close_connection = True
            self._answer(status)
            return None
        return self.rfile.read(int(length))

    def _refusal(self) -> tuple[HTTPStatus, str] | None:
        """Why the caller gets nothing.

        A page of another site can send requests here; it may not read the answers (`Origin`), may
        not come in by a name that leads here (`Host`), and cannot ask with this content type
        without a question before.
        """
        if self.path not in ("/encode", "/decode"):
            return HTTPStatus.NOT_FOUND, "POST to /encode or /decode"
        if self.server.is_loopback and not self._is_own_host():
            return HTTPStatus.FORBIDDEN, "ask for this server by its address"
        if self.headers.get("Origin") is not None and not self._is_allowed_page():
            return HTTPStatus.FORBIDDEN, "this page is not the Web UI; name it with --web-ui"
        if (self.headers.get("Content-Type") or "").partition(";")[0].strip() != "application/json":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json"
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        token = self.server.token
        # A header is read as Latin-1, whatever was sent.
        if token is not None and not hmac.compare_digest(given.encode("latin-1"), token.encode()):
            return HTTPStatus.UNAUTHORIZED, "send Authorization: Bearer and the token"
        return None

    def _is_own_host(self) -> bool:
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host", "")
        if host == "localhost":
            return True
        try:
            return ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False

    def _is_allowed_page(self) -> bool:
        return self.headers.get("Origin") in self.server.web_uis

    def _answer(self, status: HTTPStatus, text: str = "", kind: str = "text/plain") -> None:
        content = text.encode()
        self.send_response(status)
        if self._is_allowed_page():
            self.send_header("Access-Control-Allow-Origin", self.headers["Origin"])
            self.send_header("Access-Control-Allow-Methods", "POST")
            allowed = "content-type,x-namespace,authorization"
            self.send_header("Access-Control-Allow-Headers", allowed)
            self.send_header("Vary", "Origin")
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: a line for each request of the Web UI helps nobody."""

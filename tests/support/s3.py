"""An object store for tests: S3's own protocol over HTTP, in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest


class _S3(BaseHTTPRequestHandler):
    """What S3 answers to PUT (also conditional), GET, HEAD, DELETE and lists, over a dict."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    times: dict[str, float]
    lock: threading.Lock

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            if self.headers.get("If-None-Match") == "*" and self.path in self.objects:
                return self._answer(412)
            self.objects[self.path] = content
            self.times[self.path] = time.time()
        return self._answer(200)

    def do_GET(self) -> None:
        if "list-type=2" in self.path:
            return self._list()
        content = self.objects.get(self.path)
        return self._answer(404) if content is None else self._answer(200, content)

    do_HEAD = do_GET  # noqa: N815

    def _list(self) -> None:
        url = urlsplit(self.path)
        bucket, asked = url.path.rstrip("/"), parse_qs(url.query)
        start = f"{bucket}/{asked.get('prefix', [''])[0]}"
        rows = [
            f"<Contents><Key>{escape(path[len(bucket) + 1 :])}</Key><Size>{len(content)}</Size>"
            f"<LastModified>{time.strftime('%FT%T.000Z', time.gmtime(self.times[path]))}"
            '</LastModified><ETag>"e"</ETag></Contents>'
            for path, content in sorted(self.objects.items())
            if path.startswith(start)
        ]
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(rows)}"
        self._answer(200, f"{body}</ListBucketResult>".encode())

    def do_DELETE(self) -> None:
        self.objects.pop(self.path, None)
        self._answer(204)

    def _answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("ETag", '"e"')
        modified = self.times.get(self.path, 1735689600)
        self.send_header("Last-Modified", formatdate(modified, usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def s3(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, float] | None = None
) -> Iterator[dict[str, bytes]]:
    """The objects by path; the environment points `s3://…` here, in processes started later too.

    `times` holds when each was written, and may be changed.
    """
    times = {} if times is None else times
    handler = type("_S3", (_S3,), {"objects": {}, "times": times, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    try:
        yield handler.objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

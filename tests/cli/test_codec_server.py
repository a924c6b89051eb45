"""Who gets an answer of the codec server, and how much it reads."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator

import pytest

from planloom.codec import EncryptionCodec
from planloom.console.codec_server import CodecServer
from planloom.keys import KeyRing

PLAIN = {"payloads": [{"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "ImhlbGxvIg=="}]}
UI = "http://localhost:8233"


@pytest.fixture(scope="module")
def server() -> Iterator[CodecServer]:
    codec = EncryptionCodec(KeyRing("k", {"k": secrets.token_bytes(32)}))
    server = CodecServer(codec, web_uis=[UI]).start()
    yield server
    server.stop()


def ask(
    server: CodecServer, path: str, body: bytes | str, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=20)
    given = {"Content-Type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_what_was_encoded_is_decoded(server: CodecServer) -> None:
    status, _, encoded = ask(server, "/encode", json.dumps(PLAIN))
    assert status == 200
    assert b"ImhlbGxvIg" not in encoded
    status, headers, decoded = ask(server, "/decode", encoded, Origin=UI, X_Namespace="default")
    assert (status, json.loads(decoded)) == (200, PLAIN)
    assert headers["Access-Control-Allow-Origin"] == UI


def test_the_web_ui_may_ask_and_no_other_page(server: CodecServer) -> None:
    status, headers, _ = ask(server, "/decode", b"", "OPTIONS", Origin=UI)
    assert status == 204
    assert headers["Access-Control-Allow-Methods"] == "POST"
    assert headers["Access-Control-Allow-Headers"] == "content-type,x-namespace,authorization"
    for origin in ("http://evil.example", "http://localhost:8234", "null"):
        status, headers, _ = ask(server, "/decode", b"", "OPTIONS", Origin=origin)
        assert status == 403
        assert "Access-Control-Allow-Origin" not in headers
        status, headers, _ = ask(server, "/decode", json.dumps(PLAIN), Origin=origin)
        assert status == 403
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:8081"}, 403),
        ({"Host": "10.0.0.1"}, 403),
        ({"Host": "[::1]:8081"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_a_name_that_leads_here_and_a_form_get_nothing(
    server: CodecServer, headers: dict[str, str], status: int
) -> None:
    given = {name.replace("-", "_"): value for name, value in headers.items()}
    assert ask(server, "/decode", json.dumps(PLAIN), **given)[0] == status


@pytest.mark.parametrize(
    "body", ["", "{", '{"payloads": 1}', '{"x": 1}', b"\xff\xfe", "[" * 100_000]
)
def test_a_body_that_is_no_payloads_is_refused(server: CodecServer, body: bytes | str) -> None:
    assert ask(server, "/decode", body)[0] == 400


def test_a_body_without_an_end_is_not_read(server: CodecServer) -> None:
    for length in ("9" * 30, "9" * 6000, "-1", "x", str(65 * 1024 * 1024)):
        assert ask(server, "/decode", b"", Content_Length=length)[0] == 413


def test_a_token_that_is_asked_for_must_be_sent() -> None:
    codec = EncryptionCodec(KeyRing("k", {"k": secrets.token_bytes(32)}))
    server = CodecServer(codec, token="open sesame").start()
    try:
        body = json.dumps(PLAIN)
        assert ask(server, "/decode", body)[0] == 401
        assert ask(server, "/decode", body, Authorization="Bearer open")[0] == 401
        assert ask(server, "/decode", body, Authorization="Bearer open sesame")[0] == 200
        # Of who may not ask nothing long is waited for, and nothing is kept.
        assert ask(server, "/decode", b"", Content_Length="60000000")[0] == 413
    finally:
        server.stop()


def test_a_token_may_hold_any_letters() -> None:
    codec = EncryptionCodec(KeyRing("k", {"k": secrets.token_bytes(32)}))
    server = CodecServer(codec, token="sésame").start()
    try:
        sent = "Bearer sésame".encode().decode("latin-1")  # as curl sends what was typed
        assert ask(server, "/decode", json.dumps(PLAIN), Authorization=sent)[0] == 200
    finally:
        server.stop()

"""`http_get`: one page or JSON document, within limits of place, size and time."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx

from planloom.activities.http_dates import moment_of
from planloom.activities.tools.builtin.addresses import (
    METADATA_NAMES,
    Allowed,
    allowed_from,
    refusal_of,
)
from planloom.activities.tools.builtin.http_body import BodyError, content_of, read_body
from planloom.activities.tools.decorator import ToolError, tool
from planloom.activities.tools.threads import in_thread

TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 10.0
RESOLVE_SECONDS = 10.0
ADDRESSES_MAX = 4
REDIRECTS_MAX = 5
URL_MAX_CHARS = 8_000
RETRY_AFTER_MAX_SECONDS = 300.0
ALLOW_PRIVATE = "PLANLOOM_HTTP_ALLOW_PRIVATE"
PROXY = "PLANLOOM_HTTP_PROXY"
"""An operator's proxy, which then decides what is reached. The proxies of the environment
(`HTTPS_PROXY` …) are not used: behind them no address can be checked."""

_REDIRECT_STATUS = (301, 302, 303, 307, 308)
_RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
_HEADERS = {
    "User-Agent": "planloom",
    "Accept": "application/json, text/*;q=0.9, */*;q=0.5",
    "Accept-Encoding": "gzip, deflate",
}


class _NotFoundError(ToolError):
    """The name has no address here."""


def _allowed() -> Allowed:
    try:
        return allowed_from(os.environ.get(ALLOW_PRIVATE, ""))
    except ValueError as error:
        raise ToolError(f"http_get: {ALLOW_PRIVATE} cannot be read: {error}") from None


async def _checked_addresses(url: httpx.URL) -> list[str]:
    """The addresses to connect to, each checked.

    Connecting to the very address that was checked: a name that resolves to another address at
    the second look gets no second look.
    """
    host = url.raw_host.decode("ascii").rstrip(".").lower()
    if host in METADATA_NAMES:
        raise ToolError(f'http_get: "{host}" is a metadata service and never reached')
    try:
        addresses = [str(ipaddress.ip_address(host.strip("[]")))]
    except ValueError:
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await _resolved(host, port)
    allowed = _allowed()
    for address in addresses:
        if why := refusal_of(address, allowed):
            raise ToolError(f'http_get: "{host}" is at {address}: {why}')
    return addresses


async def _resolved(host: str, port: int) -> list[str]:
    # In a thread of its own: slow name servers must not fill the executor that all others share.
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            infos = await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        raise ToolError(
            f'http_get: the address of "{host}" was not found within {RESOLVE_SECONDS:g} s',
            retry=True,
        ) from None
    except (OSError, UnicodeError) as error:
        raise _NotFoundError(
            f'http_get: the host "{host}" is not found ({error}). Is the address right?',
            retry=isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN,
        ) from None
    return list(dict.fromkeys(str(info[4][0]) for info in infos))[:ADDRESSES_MAX]


def _parsed_url(text: str) -> httpx.URL:
    if len(text) > URL_MAX_CHARS:
        raise ToolError(f"http_get: the address is longer than {URL_MAX_CHARS:,} characters")
    try:
        url = httpx.URL(text.strip())
        host = url.host  # a name in the form of IDNA is first read here
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise ToolError(f"http_get: this is not an address: {error}") from None
    if url.scheme not in ("http", "https") or not host:
        raise ToolError(
            'http_get: only http:// and https:// addresses are read, such as "https://example.org/"'
        )
    return url


def _next_url(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    """Where a redirect leads; to be checked like the first."""
    location = response.headers.get("location", "")
    if not location:
        raise ToolError(
            f"http_get: {_shown(url)} answered {response.status_code} (a redirect) and does not "
            "say where to"
        )
    try:
        return _parsed_url(str(url.join(location[: URL_MAX_CHARS + 1])))
    except (httpx.InvalidURL, ValueError) as error:
        raise ToolError(
            f"http_get: {_shown(url)} redirects to what is not an address: {error}"
        ) from None


def _shown(url: httpx.URL) -> str:
    # Without query and password: either may hold a key.
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))


@lru_cache(1)
def _tls() -> ssl.SSLContext:
    """Read once: it takes longer than most requests."""
    return httpx.create_ssl_context()


async def _transport() -> httpx.AsyncHTTPTransport:
    """httpx without its client, which would read cookies and redirects on its own."""
    verify, proxy = await in_thread(_tls), os.environ.get(PROXY)
    try:
        return httpx.AsyncHTTPTransport(
            verify=verify, trust_env=False, proxy=httpx.Proxy(proxy) if proxy else None
        )
    except (ValueError, ImportError, httpx.InvalidURL):  # it quotes the address, and a password
        message = f"{PROXY} cannot be used where the worker runs: write http://host:port"
        raise ToolError(f"http_get: {message}") from None


async def _send(transport: httpx.AsyncHTTPTransport, url: httpx.URL) -> httpx.Response:
    if os.environ.get(PROXY):
        with contextlib.suppress(_NotFoundError):  # the proxy knows more names than this machine
            await _checked_addresses(url)
        return await transport.handle_async_request(_request(url, {}))
    addresses = await _checked_addresses(url)
    for address in addresses[:-1]:
        try:
            return await _send_to(transport, url, address)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            continue  # the next one may answer
    return await _send_to(transport, url, addresses[-1])


def _request(url: httpx.URL, extensions: dict[str, Any]) -> httpx.Request:
    headers = dict(_HEADERS)
    if url.userinfo:
        headers["Authorization"] = "Basic " + b64encode(unquote_to_bytes(url.userinfo)).decode()
    waits = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS).as_dict()
    return httpx.Request("GET", url, headers=headers, extensions={"timeout": waits, **extensions})


async def _send_to(
    transport: httpx.AsyncHTTPTransport, url: httpx.URL, address: str
) -> httpx.Response:
    request = _request(url, {"sni_hostname": url.raw_host.decode("ascii").rstrip(".")})
    request.url = url.copy_with(host=address)  # its header Host stays that of the name
    response = await transport.handle_async_request(request)
    peer = _peer_of(response)
    if peer is not None and (why := refusal_of(peer, _allowed())):
        await response.aclose()
        raise ToolError(f'http_get: "{url.host}" is at {peer}: {why}')
    return response


def _peer_of(response: httpx.Response) -> str | None:
    stream = response.extensions.get("network_stream")
    found: Sequence[Any] | None = stream.get_extra_info("server_addr") if stream else None
    return str(found[0]) if found else None


def _wait_seconds(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "").strip()[:100]
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        moment = moment_of(text)
        if moment is None:
            return None
        seconds = moment - time.time()
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS) if seconds == seconds else None


def _check_status(response: httpx.Response, where: str) -> None:
    status = response.status_code
    if status < 300:
        return
    retry = status in _RETRY_STATUS
    raise ToolError(
        f"http_get: {where} answered {status} {response.reason_phrase[:100]}".rstrip(),
        retry=retry,
        retry_after=_wait_seconds(response) if retry else None,
    )


async def _content(response: httpx.Response, where: str) -> Any:
    headers = response.headers
    try:
        body = await read_body(response.aiter_raw(), headers.get("content-encoding", ""))
        kind = headers.get("content-type", "")
        return await in_thread(lambda: content_of(kind, body))
    except BodyError as error:
        raise ToolError(f"http_get: {where} {error}") from None


@tool(outside=True, timeout=60, examples=['http_get(url="https://example.org/data.json")'])
async def http_get(url: str) -> Any:
    """Fetch an http(s) address; gives the parsed value of JSON, else the text.

    Args:
        url: the whole address
    """
    current = _parsed_url(url)
    where = _shown(current)
    try:
        async with await _transport() as transport:
            for _ in range(REDIRECTS_MAX + 1):
                async with asyncio.timeout(TIMEOUT_SECONDS):  # also of interim answers without end
                    response = await _send(transport, current)
                try:
                    if response.status_code in _REDIRECT_STATUS:
                        # By hand: each stop is checked like the first.
                        current = _next_url(current, response)
                        continue
                    _check_status(response, where)
                    return await _content(response, where)
                finally:
                    await response.aclose()
    except (httpx.TimeoutException, TimeoutError):
        raise ToolError(
            f"http_get: {where} did not answer within {TIMEOUT_SECONDS:g} s", retry=True
        ) from None
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
        raise ToolError(f"http_get: {where} cannot be asked for: {error}") from None
    except httpx.HTTPError as error:
        raise ToolError(f"http_get: {where}: {type(error).__name__}: {error}", retry=True) from None
    raise ToolError(f"http_get: {where} redirects more than {REDIRECTS_MAX} times")

"""`http_get`: one page or JSON document, within limits of place, size and time."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from planloom.activities.tools.decorator import ToolError, tool

BODY_MAX_BYTES = 5_000_000
TIMEOUT_SECONDS = 30.0
REDIRECTS_MAX = 5
RETRY_AFTER_MAX_SECONDS = 300.0
ALLOW_PRIVATE = "PLANLOOM_HTTP_ALLOW_PRIVATE"
"""`0` keeps `http_get` off loopback and private addresses, where a plan might reach services that
trust their own network. Link-local addresses (a cloud's metadata service) are never reached."""

_METADATA_NAMES = ("metadata.google.internal", "metadata", "instance-data")
_METADATA_ADDRESSES = ("100.100.100.200", "fd00:ec2::254", "192.0.0.192", "168.63.129.16")
_RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)


def _may_reach_private() -> bool:
    return os.environ.get(ALLOW_PRIVATE, "1").strip().lower() not in ("0", "false", "no", "off")


def refusal_of(address: str, *, allow_private: bool) -> str | None:
    """Why an address may not be reached, or None."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    if str(found) in _METADATA_ADDRESSES or found.is_link_local:
        return "link-local and metadata addresses are never reached"
    if found.is_multicast or found.is_unspecified:
        return "it is no address of a server"
    if not allow_private and (found.is_private or found.is_loopback or not found.is_global):
        return f"private addresses are closed ({ALLOW_PRIVATE}=0)"
    return None


async def _checked_address(url: httpx.URL) -> str | None:
    """The address to connect to, checked; None when a proxy stands between and resolves it.

    Connecting to the very address that was checked: a name that resolves to another address at
    the second look gets no second look.
    """
    host = url.host.rstrip(".")
    if host.lower() in _METADATA_NAMES:
        raise ToolError(f'http_get: "{host}" is a metadata service and never reached')
    allow_private = _may_reach_private()
    try:
        addresses = [str(ipaddress.ip_address(host))]
    except ValueError:
        if getproxies().get(url.scheme) and not proxy_bypass(host):
            return None
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            loop = asyncio.get_running_loop()
            infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ToolError(
                f'http_get: the host "{host}" is not found ({error}). Is the address right?',
                retry=isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN,
            ) from None
        addresses = [str(info[4][0]) for info in infos]
    for address in addresses:
        if why := refusal_of(address, allow_private=allow_private):
            raise ToolError(f'http_get: "{host}" is at {address}: {why}')
    return addresses[0]


def _parsed_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.strip())
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise ToolError(f"http_get: this is no address: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ToolError(
            'http_get: only http:// and https:// addresses are read, such as "https://example.org/"'
        )
    return url


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return _parsed_url(str(url.join(location)))
    except httpx.InvalidURL as error:
        raise ToolError(f"http_get: {_shown(url)} redirects to no address: {error}") from None


def _shown(url: httpx.URL) -> str:
    # Without query and password: either may hold a key.
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))


async def _send(client: httpx.AsyncClient, url: httpx.URL) -> httpx.Response:
    address = await _checked_address(url)
    headers = {"User-Agent": "planloom", "Accept": "application/json, text/*;q=0.9, */*;q=0.5"}
    extensions: dict[str, Any] = {}
    target = url
    if address is not None and address != url.host:
        headers["Host"] = url.netloc.decode("ascii").rpartition("@")[2]
        extensions["sni_hostname"] = url.host
        target = url.copy_with(host=address)
    request = client.build_request("GET", target, headers=headers, extensions=extensions)
    return await client.send(request, stream=True)


async def _body(response: httpx.Response, where: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > BODY_MAX_BYTES:
            raise ToolError(f"http_get: {where} is larger than {BODY_MAX_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _wait_seconds(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS) if seconds == seconds else None


def _check_status(response: httpx.Response, where: str) -> None:
    status = response.status_code
    if status < 400:
        return
    retry = status in _RETRY_STATUS
    raise ToolError(
        f"http_get: {where} answered {status} {response.reason_phrase}".rstrip(),
        retry=retry,
        retry_after=_wait_seconds(response) if retry else None,
    )


def _content(response: httpx.Response, body: bytes, where: str) -> Any:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return body.decode("utf-8", "replace")
    texts = ("text/", "application/xml", "application/javascript", "application/x-ndjson")
    is_text = kind.startswith(texts) or kind.endswith("+xml") or b"\0" not in body[:8192]
    if kind and not is_text:
        raise ToolError(f"http_get: {where} is {kind}, neither text nor JSON")
    try:
        return body.decode(response.charset_encoding or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


@tool(timeout=60, examples=['http_get(url="https://example.org/data.json")'])
async def http_get(url: str) -> Any:
    """Fetch an http(s) address; gives the parsed value of JSON, else the text.

    Args:
        url: the whole address
    """
    current = _parsed_url(url)
    where = _shown(current)
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client:
            for _ in range(REDIRECTS_MAX + 1):
                response = await _send(client, current)
                try:
                    if response.is_redirect:
                        # By hand: each stop is checked like the first.
                        current = _joined(current, response.headers["location"])
                        continue
                    _check_status(response, where)
                    return _content(response, await _body(response, where), where)
                finally:
                    await response.aclose()
    except httpx.TimeoutException:
        raise ToolError(
            f"http_get: {where} did not answer within {TIMEOUT_SECONDS:g} s", retry=True
        ) from None
    except httpx.HTTPError as error:
        raise ToolError(f"http_get: {where}: {type(error).__name__}: {error}", retry=True) from None
    raise ToolError(f"http_get: {where} redirects more than {REDIRECTS_MAX} times")

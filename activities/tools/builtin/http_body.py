"""An HTTP body as text or JSON: every step bounded, whatever the server says about it."""

from __future__ import annotations

import asyncio
import codecs
import re
import zlib
from collections.abc import AsyncIterable
from typing import Any

from planloom.planner.syntax.json_text import strict_json

BODY_MAX_BYTES = 5_000_000
DECODED_AT_ONCE = 100_000
PARTS_MAX = 50_000
"""Five megabytes in pieces of a hundred bytes; of single bytes it would be minutes of work."""
PARTS_AT_ONCE = 100
MEMBERS_MAX = 100
"""Parts of one gzip stream; honest servers send one."""
CHARSETS = {
    *("utf-8", "utf8", "utf-16", "utf-16le", "utf-16be", "utf-32", "us-ascii", "ascii"),
    *(f"iso-8859-{n}" for n in range(1, 17) if n != 12),
    *(f"windows-{n}" for n in range(1250, 1259)),
    *("latin-1", "latin1", "macintosh", "koi8-r", "koi8-u", "tis-620", "ibm866"),
    *("shift_jis", "shift-jis", "sjis", "windows-31j", "euc-jp", "iso-2022-jp"),
    *("gb2312", "gbk", "gb18030", "big5", "big5-hkscs", "euc-kr", "ks_c_5601-1987", "windows-949"),
}
"""Character sets of the web. Python knows more codecs: some are not text, and `punycode` takes a
second for a few kilobytes."""
_SPELLED = {
    "windows-31j": "cp932",
    "windows-949": "cp949",
    "macintosh": "mac_roman",
    "ibm866": "cp866",
    "ks_c_5601-1987": "cp949",
}
_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})")
_TEXTS = ("text/", "application/xml", "application/javascript", "application/x-ndjson")


class BodyError(Exception):
    """A body that cannot be used: too large, packed in an unknown way, not text."""


async def read_body(parts: AsyncIterable[bytes], encoding: str) -> bytes:
    """The body, unpacked, at most `BODY_MAX_BYTES` before and after.

    `encoding` is the header `Content-Encoding`.

    Raises:
        BodyError: it is larger, or is packed twice or in another way than gzip or deflate.
    """
    unpack = _Unpacker(encoding)
    received = count = 0
    body = bytearray()
    async for part in parts:
        received, count = received + len(part), count + 1
        if count > PARTS_MAX:
            raise BodyError(f"comes in more than {PARTS_MAX:,} pieces")
        if count % PARTS_AT_ONCE == 0:
            await asyncio.sleep(0)  # what has come already is given without a pause
        body += unpack.add(part, BODY_MAX_BYTES + 1 - len(body))
        if received > BODY_MAX_BYTES or len(body) > BODY_MAX_BYTES:
            raise BodyError(f"is larger than {BODY_MAX_BYTES:,} bytes")
    unpack.end()
    return bytes(body)


class _Unpacker:
    """Unpacks as it comes and never makes more than it is asked for."""

    def __init__(self, encoding: str) -> None:
        kind = encoding.strip().lower()
        if kind not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise BodyError(
                f"is packed as {encoding.strip()[:60]!r}; gzip and deflate, once, are read"
            )
        self._is_gzip = kind.endswith("gzip")
        self._is_plain = kind in ("", "identity")
        self._members = 0
        self._inflate: Any = None

    def add(self, part: bytes, room: int) -> bytes:
        if self._is_plain:
            return part
        out = bytearray()
        while part and len(out) < room:
            if self._inflate is None:
                self._begin(part)
            elif self._inflate.eof:
                if not (self._is_gzip and part.startswith(b"\x1f")):
                    break  # bytes after the end, which all programs ignore
                self._begin(part)
            try:
                out += self._inflate.decompress(part, room - len(out))
            except zlib.error as error:
                raise BodyError(f"cannot be unpacked: {error}") from None
            # What did not fit is left behind: the caller has had more than it takes.
            part = self._inflate.unused_data
        return bytes(out)

    def _begin(self, part: bytes) -> None:
        self._members += 1
        if self._members > MEMBERS_MAX:
            raise BodyError(f"is packed in more than {MEMBERS_MAX} parts")
        if self._is_gzip:
            self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        else:
            # "deflate" means a zlib stream, but some servers leave out its head.
            has_head = part[0] & 0x0F == 8 and (len(part) < 2 or (part[0] << 8 | part[1]) % 31 == 0)
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS)

    def end(self) -> None:
        if self._inflate is not None and not self._inflate.eof:
            raise BodyError("ends in the middle of its packing")


def content_of(kind: str, body: bytes) -> Any:
    """The parsed value of JSON, else the text; `kind` is the header `Content-Type`.

    Raises:
        BodyError: it is neither.
    """
    media = kind.partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            return strict_json(body)
        except ValueError:
            return body.decode("utf-8-sig", "replace")
    is_text = media.startswith(_TEXTS) or media.endswith("+xml") or b"\0" not in body[:8192]
    if media and not is_text:
        raise BodyError(f"is {media[:100]}, neither text nor JSON")
    return _decoded(body, charset_of(kind))


def _decoded(body: bytes, charset: str) -> str:
    """The text of a body. In slices: where every byte is wrong, Python decodes four megabytes a
    second, and nothing else in the worker runs until a slice is done.
    """
    decoder = codecs.getincrementaldecoder(charset)("replace")
    slices = range(0, len(body), DECODED_AT_ONCE)
    parts = [decoder.decode(body[at : at + DECODED_AT_ONCE]) for at in slices]
    return "".join([*parts, decoder.decode(b"", final=True)])


def charset_of(kind: str) -> str:
    """The codec for a `Content-Type`: the one it names if that is one of the web's, else UTF-8."""
    found = _CHARSET.search(kind[:1000])
    name = found[1].lower() if found else "utf-8"
    if name not in CHARSETS or name in ("utf-8", "utf8"):
        return "utf-8-sig"
    return _SPELLED.get(name, name)

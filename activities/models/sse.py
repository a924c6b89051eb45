"""Server-sent events from bytes, however they are cut. Pure and bounded."""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
TELLING_BYTES = 4_000
"""So many bytes of a body tell whether it holds events."""


class SseDecoder:
    """Server-sent events from bytes, however they are cut: each event's data, when complete.

    Blank data, `data: null` and comments are no events. A line `error: {…}` or an event named
    `error` gives its data too: what it holds is read as an error by whoever reads the data.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._data: list[str] = []
        self._is_first = True

    def feed(self, chunk: bytes) -> list[str]:
        """The data of each event that this chunk completes. Time is linear in what was fed."""
        if b"\n" not in chunk:
            self._rest.append(chunk)
            return []
        # Lines end at \n only: str.splitlines would also cut inside JSON strings, at U+2028.
        *lines, rest = (b"".join(self._rest) + chunk).split(b"\n")
        self._rest = [rest]
        events = []
        for raw in lines:
            if self._is_first:
                raw, self._is_first = raw.removeprefix(BOM), False
            line = raw.decode("utf-8", errors="replace").rstrip("\r")
            if (not line or self._begins_anew(line)) and (event := self._end()) is not None:
                events.append(event)
            if line:
                self._take(line)
        return events

    def close(self) -> list[str]:
        """What a stream without a last blank line still holds."""
        return self.feed(b"\n\n")

    def _begins_anew(self, line: str) -> bool:
        """Whether this line begins another event, though no blank line ended the one before: inside
        JSON nothing that ends with `}` is followed by `{`."""
        # This line first: what it ends is then looked at once, however many lines come behind it.
        if not line.startswith(("data: {", "data:{", "data: [DONE", "data:[DONE")):
            return False
        return bool(self._data) and self._data[-1].rstrip().endswith("}")

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name in ("data", "error"):
            self._data.append(value.removeprefix(" "))

    def _end(self) -> str | None:
        data, self._data = "\n".join(self._data), []
        return None if data.strip() in ("", "null") else data


def is_event_stream(body: bytes) -> bool:
    """Whether a body holds server-sent events, whatever its label says."""
    for line in body[:TELLING_BYTES].removeprefix(BOM).split(b"\n"):
        line = line.strip()
        if line.startswith((b"data:", b"error:", b"event:")):
            return True
        if line and not line.startswith((b":", b"id:", b"retry:")):
            return False
    return False

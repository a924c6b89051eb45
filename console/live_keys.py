"""Single keys from a terminal, while something else is shown on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator


def can_read_keys() -> bool:
    """Whether there is a terminal to read from, on a system where keys can be read one by one."""
    if not sys.stdin.isatty():
        return False
    try:
        import termios  # noqa: F401 - Windows has none
    except ImportError:
        return False
    return True


class Keys:
    """Keys as they are pressed; `line` takes a whole line in between."""

    def __init__(self) -> None:
        self._pressed: asyncio.Queue[str] = asyncio.Queue()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Keys]:
        """Keys come one by one, and are not shown, until the end of the block."""
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        loop = asyncio.get_running_loop()
        tty.setcbreak(descriptor)
        loop.add_reader(descriptor, self._read, descriptor)
        try:
            yield self
        finally:
            loop.remove_reader(descriptor)
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    def _read(self, descriptor: int) -> None:
        data = os.read(descriptor, 64).decode(errors="ignore")
        if data and not data.startswith("\x1b"):  # an arrow key is no letter
            self._pressed.put_nowait(data[0])

    async def next(self, seconds: float) -> str:
        """The next key, or nothing after so many seconds."""
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._pressed.get(), seconds)
        return ""


async def ask_line(question: str) -> str:
    """A line that a person types, outside of `reading`."""
    return (await asyncio.to_thread(input, question)).strip()

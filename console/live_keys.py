"""Single keys from a terminal, while something else is shown on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator

from planloom.console.safe import print_safely

LINE_MAX_BYTES = 65_536


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
    """A line that a person types, outside of `reading`.

    Not by `input` in a thread: after Ctrl-C the program would wait for the thread, until Enter.

    Raises:
        EOFError: Ctrl-D.
    """
    descriptor, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    read: asyncio.Future[bytes] = loop.create_future()
    print_safely(question, end="")

    def take() -> None:
        if not read.done():
            read.set_result(os.read(descriptor, LINE_MAX_BYTES))

    loop.add_reader(descriptor, take)
    try:
        line = await read
    finally:
        loop.remove_reader(descriptor)
    if not line:
        raise EOFError
    return line.decode(errors="replace").strip()

"""Places for work that keeps a core busy, shared by all runs of a worker."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

POLL_SECONDS = 0.2


class NoTurnError(Exception):
    """The call was cancelled while it waited."""


class Turns:
    """At most `size` at once, and never all of them for one owner (a run).

    One run's slow work holds up that run, and not those of others. Waiting threads take no time of
    the interpreter.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._changed = threading.Condition()
        self._busy: Counter[str] = Counter()

    @contextmanager
    def turn(self, owner: str, cancelled: threading.Event) -> Iterator[None]:
        """A place, from when there is one until the block ends.

        Raises:
            NoTurnError: cancelled before that.
        """
        with self._changed:
            while self._busy.total() >= self._size or self._busy[owner] >= max(1, self._size - 1):
                if cancelled.is_set():
                    raise NoTurnError("it was cancelled")
                self._changed.wait(POLL_SECONDS)
            self._busy[owner] += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy[owner] -= 1
                if not self._busy[owner]:
                    del self._busy[owner]
                self._changed.notify_all()

    def count(self, owner: str) -> int:
        """Places that an owner holds now."""
        return self._busy[owner]


COMPUTING = Turns(2)
"""For tools that compute in Python. Each thread that does so makes the event loop wait up to 5 ms
for each of its steps; a hundred of them would stop it."""

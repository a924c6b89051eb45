"""Consoles on which nothing that a task, a model or an endpoint wrote can act.

Text is printed as it is: square brackets are no markup, and control characters, which could move
the cursor, change the terminal's title or write to the clipboard, are shown as signs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from planloom.visible import visible


def plain(text: str) -> str:
    """The text with every control character made visible, and read in the order it is shown in."""
    if not text.isascii():
        # Loaded here: `--help` needs none of it.
        from planloom.planner.language.clean_text import in_its_order

        text = in_its_order(text)
    return visible(text)


class SafeConsole(Console):
    """A console without markup, whose texts hold no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)


def print_safely(text: str, *, to_stderr: bool = False, end: str = "\n") -> None:
    """Print a text: as it is into a pipe or file, without control characters on a terminal."""
    stream = sys.stderr if to_stderr else sys.stdout
    print(plain(text) if stream.isatty() else text, file=stream, end=end, flush=True)

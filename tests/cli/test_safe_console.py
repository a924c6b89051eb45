"""What a task wrote is shown, and does nothing to the terminal."""

from __future__ import annotations

import io

from rich.table import Table
from rich.text import Text

from planloom.console.safe import SafeConsole, plain

HOSTILE = "[bold red]x[/] [link=http://e]y[/link] :smile: \x1b]52;c;ZXZpbA==\x07\x9b31m\b\x7f z"
SHOWN = "[bold red]x[/] [link=http://e]y[/link] :smile: ␛]52;c;ZXZpbA==␇�31m␈␡ z"


def test_control_characters_become_visible_and_lines_stay() -> None:
    assert plain(HOSTILE) == SHOWN
    assert plain("a\tb\nc\r\nd") == "a\tb\nc\nd"
    assert plain("a\rb") == "a␍b"  # a carriage return would write over the line


def test_nothing_is_shown_in_another_order_than_it_is_read_in() -> None:
    """`cancel_task --id \u202egnp.exe` looks like another command."""
    for mark in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
        assert plain(f"a{mark}b") == "a\ufffdb"
        file = io.StringIO()
        SafeConsole(file=file, force_terminal=True, width=80).print(f"a{mark}b")
        assert mark not in file.getvalue()
    assert plain("שלום, عالم") == "שלום, عالم"  # letters have their own direction


def test_a_console_prints_no_markup_and_no_control_of_others() -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, force_terminal=True, width=200, color_system="truecolor")
    table = Table(box=None)
    table.add_column("what")
    table.add_row(HOSTILE)
    console.print(HOSTILE)
    console.print(table)
    console.print(Text(HOSTILE, "red"))
    text = file.getvalue()
    assert "[bold red]x[/]" in text
    assert "\x1b]" not in text
    assert "\x9b" not in text
    assert "\x07" not in text
    assert "\x1b[31m" in text  # our own colours stay

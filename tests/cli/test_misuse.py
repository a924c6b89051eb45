"""Words that fit no command, argument or option: one line of ours, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from planloom.cli import app
from planloom.console.documents import tool_specs_now
from planloom.console.misuse import misuse


def said(*arguments: str) -> tuple[str, str]:
    with pytest.raises(TyperException) as refused:
        app(args=list(arguments), prog_name="planloom", standalone_mode=False)
    return misuse(refused.value, app, arguments)


def commands(path: tuple[str, ...] = (), command: Any = None) -> Iterator[tuple[Any, Any]]:
    command = command or typer.main.get_command(app)
    for name, inner in getattr(command, "commands", {}).items():
        yield (*path, name), inner
        yield from commands((*path, name), inner)


NUMBERS = [
    (path, command, option)
    for path, command in commands()
    for option in command.params
    if any(kind in option.display_type(typer.Context(command)) for kind in ("int", "float"))
]


def test_there_are_numbers_to_get_wrong() -> None:
    assert len(NUMBERS) > 20
    assert (("dev",), "port") in [(path, option.name) for path, _, option in NUMBERS]


@pytest.mark.parametrize(
    ("path", "command", "option"),
    NUMBERS,
    ids=[f"{'-'.join(path)}-{option.name}" for path, _, option in NUMBERS],
)
def test_a_number_that_is_none_is_named_with_its_option(
    path: tuple[str, ...], command: Any, option: Any
) -> None:
    places = ["x" for p in command.params if p.param_type_name == "argument" and p.required]
    name = next(n for n in option.opts if n.startswith("--"))
    message, hint = said(*path, *places, name, "abc")
    assert message in (f"{name} abc: needs a whole number", f"{name} abc: needs a number")
    assert hint == f"planloom {' '.join(path)} --help"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("eval", "--parallel", "0"), "--parallel 0: needs 1 or more", "planloom eval --help"),
        (("dev", "--port"), "Option '--port' requires an argument", "planloom dev --help"),
        (("run", "Compare", "France"), 'no place for "France"', "needs quotes around it"),
        (("models", "extra"), 'no place for "extra"', "See: planloom models --help"),
        (("run", "--goal", "x"), "No such option: --goal", "planloom run GOAL"),
        (("approve", "--run=x"), "No such option: --run", "planloom approve RUN"),
        (("plan", "chek", "x"), "Did you mean 'check'?", "planloom plan --help"),
        (("run", "-z"), "No such option: -z", "planloom run --help"),
        (("runn",), "Did you mean 'run'", "planloom --help"),
        (("--nope",), "No such option: --nope", "planloom --help"),
    ],
)
def test_words_that_do_not_fit(arguments: tuple[str, ...], message: str, hint: str) -> None:
    found = said(*arguments)
    assert (message in found[0], hint in found[1]) == (True, True), found
    assert "\n" not in "".join(found)


def test_a_tool_module_that_prints_when_it_is_loaded_is_used_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`planloom tools`, `plan check`, `doctor` and `gc` read the print as the worker's answer."""
    lines = [
        "import os",
        "from planloom import tool",
        "print('a banner')",
        "os.system('echo another')",
        "@tool",
        "def mine(a: int) -> int:",
        "    'Give it back.'",
        "    return a",
    ]
    (tmp_path / "loud.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLANLOOM_TOOLS", "loud")
    assert "mine" in [spec.name for spec in tool_specs_now()]

"""`--help` starts at once: it imports nothing that only a running command needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "asyncio",
    "pydantic",
    "temporalio",
    "yaml",
    "jsonschema",
    "platformdirs",
    "planloom.client",
    "planloom.planner",
    "planloom.activities",
)


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, os\n"
        "from planloom import cli\n"
        f"sys.argv = ['planloom', *{arguments!r}]\n"
        "cli.leave = lambda code: print('\\n'.join(sys.modules), file=sys.stderr)\n"
        "cli.main()\n"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("plan", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert "Usage" in done.stdout
    loaded = set(done.stderr.split())
    assert "typer" in loaded
    # Typer itself reads a group's words with pydantic.
    allowed = set() if arguments == ("--help",) else {"pydantic"}
    assert loaded.intersection(HEAVY) <= allowed


def test_help_is_grouped_with_run_on_top() -> None:
    shown = cli("--help").stdout
    groups = ("Run and watch", "Decide", "Plans, agents and teams", "Set up")
    places = [shown.index(group) for group in groups]
    assert places == sorted(places)
    assert shown.index("│ run ") < shown.index("│ watch ") < shown.index("Decide")
    assert "Commands" not in shown  # no command is left without a group


def test_a_program_that_used_the_client_pauses_before_it_ends() -> None:
    """Else a thread of the SDK's core aborts it now and then, after its work is done."""
    code = "import time\ntime.sleep = lambda s: print('pause', s)\nimport planloom.client\n"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "pause 0.05\n")

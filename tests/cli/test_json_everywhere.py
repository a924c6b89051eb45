"""`--json` and `--dry-run`: every command has them, or is named here with the reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from planloom import cli

NO_JSON = {"mcp": "standard output is the protocol's"}
READS = {
    "blob", "capacity", "plan check", "plan diff", "plan graph", "plan show", "progress", "ps",
    "report", "result", "agents", "doctor", "models", "teams", "templates", "tools", "watch",
}  # fmt: skip
ADDS_A_FILE = {"backup", "plan save", "plan store"}
SERVES = {"codec-server", "demo", "dev", "mcp"}


def commands(group: Any, above: str = "") -> Iterator[tuple[str, set[str]]]:
    for name, command in group.commands.items():
        path = f"{above} {name}".strip()
        inner = getattr(command, "commands", None)
        if inner is None or getattr(command, "invoke_without_command", False):
            yield path, {o for p in command.params for o in p.opts}
        if inner is not None:
            yield from commands(command, path)


ALL = dict(commands(typer.main.get_command(cli.app)))


def test_every_command_prints_json() -> None:
    assert {name for name, options in ALL.items() if "--json" not in options} == set(NO_JSON)


def test_whatever_changes_state_can_be_tried_first() -> None:
    without = {name for name, options in ALL.items() if "--dry-run" not in options}
    assert without == READS | ADDS_A_FILE | SERVES


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command in an empty folder, without a server; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["planloom", *words])
        done = CliRunner().invoke(cli.app, list(words))
        return done.exit_code, done.stdout, done.stderr

    return command


def test_an_agent_and_a_team_can_be_tried_without_a_server(run: Any) -> None:
    code, out, _ = run("agent", "run", "researcher", "Look", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out) == {"dry_run": True, "request": {"agent": "researcher", "task": "Look"}}
    code, out, _ = run("team", "run", "panel", "Decide", "--rounds", "2", "--dry-run")
    assert code == 0
    assert "would start a run with" in out
    assert "rounds: 2" in out
    code, _, err = run("team", "run", "panel", "Decide", "--strategy", "both", "--dry-run")
    assert code == 2
    assert "strategy: needs 'parallel' or 'sequential'" in err


def test_a_project_can_be_tried_first_and_says_what_it_wrote(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("init", "--dry-run", "--json")
    assert code == 0
    would = json.loads(out)
    assert would["dry_run"] is True
    assert "planloom.toml" in would["written"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "plan.yaml").write_text("# mine\n")
    made = json.loads(run("init", "--json")[1])
    assert made["left"] == ["plan.yaml"]
    assert (tmp_path / "planloom.toml").exists()


PLAN = """
tasks:
  - {id: a, tool: calculate, args: {expression: "6 * 7"}}
  - {id: b, tool: calculate, args: {expression: "${a} + 1"}}
answer: "${b}"
"""


def test_a_graph_as_json_says_what_each_task_reads(run: Any, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    drawn = json.loads(run("plan", "graph", "plan.yaml", "--json")[1])
    assert drawn["levels"] == [["a"], ["b"]]
    assert drawn["tasks"]["b"] == {"kind": "tool", "tool": "calculate", "reads": ["a"]}


def test_a_run_of_nothing_and_a_parameter_of_a_goal_are_refused(run: Any, tmp_path: Path) -> None:
    code, _, err = run("run", "--json")
    assert (code, json.loads(err)["error"]["message"]) == (2, "nothing to run")
    code, _, err = run("run", "Compare", "-p", "city=Lyon", "--dry-run")
    assert code == 2
    assert "-p goes with --plan or --template" in err
    (tmp_path / "plan.yaml").write_text("params: {n: {type: integer}}\n" + PLAN)
    code, out, _ = run("run", "--plan", "plan.yaml", "-p", "n=3", "--dry-run", "--json")
    assert json.loads(out)["request"]["params"] == {"n": 3}
    code, _, err = run("run", "--plan", "plan.yaml", "-p", "m=3", "--dry-run")
    assert code == 2
    assert 'no parameter "m"' in err


def test_a_cap_on_money_with_an_unknown_price_is_said_before_the_start(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANLOOM_MODEL", "nobodys-model")
    words = ("run", "Compare", "--budget-usd", "0.5", "--dry-run")
    _, _, err = run(*words)
    assert 'no price of the model "nobodys-model" is known' in err
    assert '[prices."nobodys-model"]' in err
    (tmp_path / "planloom.toml").write_text(
        '[prices."nobodys-model"]\ninput_usd_per_million = 0\noutput_usd_per_million = 0\n'
    )
    assert "no price" not in run(*words)[2]


def test_a_task_with_a_wrong_field_is_still_checked_for_what_else_it_reads(
    run: Any, tmp_path: Path
) -> None:
    (tmp_path / "plan.yaml").write_text(
        "tasks:\n"
        "  - {id: a, tool: calculate, args: 1+1, when: b.outcome = 'failed'}\n"
        "  - {id: b, tool: calculate, args: {expression: '1'}, timeout: 5 minutes}\n"
    )
    shown = json.loads(run("plan", "check", "plan.yaml", "--json")[1])
    told = [(p["line_number"], p["path"]) for p in shown["problems"]]
    assert told == [(2, "tasks.a.args"), (2, "tasks.a.when"), (3, "tasks.b.timeout")]

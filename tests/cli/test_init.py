"""`planloom init`: what it writes works as it says, without a server and on one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from planloom.planner.contract.settings import settings_from
from tests.cli.test_cli import planloom_cli
from tests.support.harness import Planloom


@pytest.mark.timeout(400)  # six programs, one after the other
async def test_a_new_project_works_as_it_says(planloom: Planloom) -> None:
    made = await planloom_cli(planloom, "init", "first")
    assert made.code == 0, made.err
    folder = planloom.folder / "first"
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "planloom.toml",
        "my_tools.py",
        "plan.yaml",
        "test_my_tools.py",
        ".env.example",
        ".gitignore",
    }
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_tools.py"]
    tested = await asyncio.to_thread(
        subprocess.run, tests, cwd=folder, capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout
    env = {"PLANLOOM_CONFIG": str(folder / "planloom.toml"), "PYTHONPATH": str(folder)}
    checked = await planloom_cli(planloom, "plan", "check", "first/plan.yaml", **env)
    assert checked.code == 0, checked.err
    async with planloom.worker_process(**env):
        ran = await planloom_cli(planloom, "run", "--plan", "first/plan.yaml", **env)
    assert (ran.code, ran.out.strip()) == (0, "5 dogs"), ran.err


async def test_files_that_are_there_are_left(planloom: Planloom) -> None:
    (planloom.folder / "planloom.toml").write_text("# mine\n")
    made = await planloom_cli(planloom, "init")
    assert made.code == 0
    assert "left    planloom.toml: it already exists" in made.err
    assert (planloom.folder / "planloom.toml").read_text() == "# mine\n"
    assert (planloom.folder / "my_tools.py").exists()
    again = await planloom_cli(planloom, "init")
    assert "written" not in again.out


def test_the_settings_of_a_new_project_can_be_used() -> None:
    import tomllib

    from planloom import planner

    folder = Path(planner.__file__).parent / "library" / "project"
    settings = settings_from({}, tomllib.loads((folder / "planloom.toml.tmpl").read_text()))
    assert settings.tools == ["my_tools"]

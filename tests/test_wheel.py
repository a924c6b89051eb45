"""The wheel, beside a user's own modules and beside what an older version left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
OWN = ("activities", "workflows", "planner", "worker", "cli", "console")
TOOLS = f"""
import {", ".join(OWN)}
from planloom import tool

@tool
def owners() -> str:
    "Who owns the modules that this module imports."
    return " ".join(m.OWNER for m in ({", ".join(OWN)}))
"""
CALL = """
from pathlib import Path
from planloom import Client, tool
from planloom.activities.tools.registry import ToolRegistry
registry = ToolRegistry()
registry.load_modules(["my_tools"], search=[Path.cwd()])
import my_tools
print(my_tools.owners())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(params=["fresh", "over an older flat install"])
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path: Path) -> Path:
    """What site-packages holds. The older version had modules and packages of plain names."""
    site = tmp_path / "site"
    if request.param != "fresh":
        site.mkdir()
        for name in ("planloom.py", "cli.py", "worker.py"):
            (site / name).write_text("raise ImportError('this is the older version')\n")
        for name in ("activities", "workflows", "planner", "console"):
            (site / name).mkdir()
            (site / name / "__init__.py").write_text('OWNER = "the older version"\n')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(site: Path, home: Path, code: str, *args: str) -> str:
    """Run a script that lies elsewhere, as an entry point does, in the working folder `home`."""
    script = home.parent / "bin" / "script.py"
    script.parent.mkdir()
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), *args],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(site), "PLANLOOM_TOOLS": "my_tools"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    for name in OWN:
        (folder / f"{name}.py").write_text('OWNER = "me"\n')
    (folder / "my_tools.py").write_text(TOOLS)
    return folder


def test_a_tool_module_imports_its_own_modules_whatever_they_are_called(
    installed: Path, home: Path
) -> None:
    assert run(installed, home, CALL) == "me me me me me me\n"


def test_the_command_line_works_beside_modules_named_like_its_own(
    installed: Path, home: Path
) -> None:
    shown = run(installed, home, "from planloom.cli import main\nmain()\n", "tools")
    assert "owners()" in shown

"""Examples and the Python of the docs pass mypy's strict mode, as their readers run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def modules(folder: Path) -> list[str]:
    """Each example and each block as a module with a name of its own."""
    sources = {
        f"example_{path.parent.name}_{path.stem}": path.read_text(encoding="utf-8")
        for path in sorted((CHECKOUT / "examples").rglob("*.py"))
    }
    for page in (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))):
        for n, block in enumerate(PYTHON.findall(page.read_text(encoding="utf-8"))):
            sources[f"{page.stem.replace('-', '_').lower()}_{n}"] = block
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return [f"{name}.py" for name in sources]


@pytest.mark.slow
def test_a_users_type_checker_finds_nothing_wrong(tmp_path: Path) -> None:
    named = modules(tmp_path)
    assert len(named) > 12
    # From here, with the settings of `make lint`: what it has checked is not checked again.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *(str(tmp_path / name) for name in named)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr

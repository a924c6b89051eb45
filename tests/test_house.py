"""The rules of the house: who may import whom, what files may hold, what a checkout offers."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.support.process import CHECKOUT

LINES_MAX = 600
ROOMS = ("planner", "workflows", "activities", "console")
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-docs.lock")
PROGRAMS = ("planloom", "planloom-worker", "temporal", "temporal-test-server")
TARGETS = ("setup", "demo", "dev", "test", "lint", "bench", "docs", "site")
# In pieces, so that this file does not hold what it looks for.
REGISTRY_NAMES = [
    "".join(parts)
    for parts in (
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("npm", "js.org"),
        ("npm", "js.com"),
        ("crates", ".io"),
        ("proxy.", "golang.org"),
        ("docker", ".io"),
        ("ghcr", ".io"),
        ("conda.", "anaconda.org"),
        ("--index", "-url"),
        ("--extra-index", "-url"),
        ("--find", "-links"),
        ("--trusted", "-host"),
    )
]


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (CHECKOUT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def _sources() -> list[Path]:
    return [path for path in _tracked() if path.suffix == ".py"]


# -- the import rule -------------------------------------------------------------------------


def _check_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT_IMPORTS), "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the import rule reads, to plant a breach in."""
    tree = tmp_path / "copy"
    tree.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "data")
    for name in (*ROOMS, "planloom"):
        shutil.copytree(CHECKOUT / name, tree / name, ignore=ignored, symlinks=True)
    for name in ("worker.py", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tree)
    return tree


def test_the_import_rule_is_kept(copy: Path) -> None:
    checked = _check_imports(copy)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 broken" in checked.stdout


BREACHES = {
    "planner/language/values.py": [
        "import temporalio",
        "import httpx",
        "import yaml",
        "import planloom.activities.ask",
        "if TYPE_CHECKING:\n    import planloom.workflows.dag",
        "import planloom.planner.contract.jobs",  # a circle between rooms
    ],
    "workflows/dag.py": [
        "import planloom.activities.ask",
        "import openai",
        "import planloom.console.views",
        "import planloom.worker",
    ],
    "workflows/machines/run/units.py": ["import temporalio"],
    "workflows/machines/shared/budget.py": ["import temporalio.workflow"],
    "activities/ask.py": [
        "import planloom.workflows.dag",
        "import planloom.cli",
        "import planloom.worker",
    ],
    "planloom/client/run.py": [
        "import planloom.workflows.dag",
        "import planloom.activities.storage.blobs",
        "import planloom.cli",
    ],
    "planloom/local/process.py": [
        "import planloom.workflows.dag",
        "import planloom.workflows.shell.shell",
        "import planloom.worker",
    ],
    "planloom/cli.py": ["import planloom.worker", "import planloom.workflows.dag"],
    "console/views.py": ["import planloom.activities.storage.blobs", "import planloom.worker"],
}


@pytest.mark.parametrize(
    ("path", "breach"), [(path, line) for path, lines in BREACHES.items() for line in lines]
)
def test_a_breach_of_the_import_rule_is_found(copy: Path, path: str, breach: str) -> None:
    with (copy / path).open("a", encoding="utf-8") as file:
        file.write(f"\nfrom typing import TYPE_CHECKING\n{breach}\n")
    checked = _check_imports(copy)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert "BROKEN" in checked.stdout


def test_nothing_is_imported_by_its_bare_folder_name() -> None:
    """One import name: a user's own `activities.py` and ours never meet."""
    bare = {*ROOMS, "worker", "cli", "client"}
    found = []
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots = {(node.module or "").partition(".")[0]}
            else:
                continue
            found += [f"{path.relative_to(CHECKOUT)}:{node.lineno} {r}" for r in roots & bare]
    assert found == []


def test_user_code_of_an_editable_install_sees_no_folder_of_the_checkout(tmp_path: Path) -> None:
    names = repr((*ROOMS, "worker", "cli", "tests", "benchmarks"))
    code = (
        "import importlib.util as u, planloom, planloom.worker; "
        f"print([n for n in {names} if u.find_spec(n)])"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ROOMS)
def test_every_folder_of_a_room_is_a_package_that_says_what_it_holds(room: str) -> None:
    """Without an `__init__.py` the import rule would not see the folder."""
    for folder in {path.parent for path in (CHECKOUT / room).rglob("*.py")}:
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), folder


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        (
            "planner",
            # `referencing` holds the registry that `jsonschema` takes.
            {"planloom", "pydantic", "pydantic_core", "jmespath", "jsonschema", "referencing"},
        ),
        # opentelemetry's API: spans through Temporal's plugin, which is safe under replay.
        ("workflows", {"planloom", "pydantic", "temporalio", "opentelemetry"}),
    ],
)
def test_a_pure_package_imports_nothing_beyond_its_list(package: str, allowed: set[str]) -> None:
    for path in (CHECKOUT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            roots = {name.partition(".")[0] for name in names}
            strange = roots - allowed - set(sys.stdlib_module_names)
            assert not strange, f"{path.relative_to(CHECKOUT)}:{node.lineno} imports {strange}"


# -- files -----------------------------------------------------------------------------------


def test_no_source_file_is_longer_than_the_bound() -> None:
    lengths = {
        str(path.relative_to(CHECKOUT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in _sources()
    }
    assert {name: n for name, n in lengths.items() if n > LINES_MAX} == {}


def test_no_page_or_source_holds_a_control_character() -> None:
    """A generated page once held NUL bytes, which `grep` and editors take for a binary file."""
    found = {
        str(path.relative_to(CHECKOUT)): codes
        for path in _tracked()
        if path.suffix in {".md", ".py", ".toml", ".yaml", ".json", ".txt", ".lock"}
        and (codes := sorted({c for c in path.read_bytes() if c < 32} - {9, 10}))
    }
    assert found == {}


def test_no_tracked_file_names_a_registry_or_an_index() -> None:
    found = []
    for path in _tracked():
        text = path.read_bytes().decode("utf-8", errors="replace").lower()
        found += [f"{path.relative_to(CHECKOUT)}: {n}" for n in REGISTRY_NAMES if n in text]
    assert found == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_holds_no_address(name: str) -> None:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n?", "", text).strip())
    assert len(entries) > 30
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert not re.search(r"://|file:/|(?m:^-)|/opt/|/tmp/|/home/", text)


def test_the_locks_hold_every_declared_dependency() -> None:
    document = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = document["project"]["dependencies"]
    wanted = {
        LOCKS[0]: needed,
        LOCKS[1]: needed + document["dependency-groups"]["dev"],
        LOCKS[2]: needed + document["dependency-groups"]["docs"],
    }
    for lock, requirements in wanted.items():
        text = (CHECKOUT / lock).read_text(encoding="utf-8")
        pinned = {m.lower() for m in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", text)}
        names = {re.split(r"[\[<>=~! ;]", each)[0].lower() for each in requirements}
        assert names - pinned == set(), f"{lock}: run `make lock`"


def test_all_locks_pin_the_same_versions() -> None:
    pins = [
        dict(re.findall(r"(?m)^([A-Za-z0-9._-]+)==(\S+)", (CHECKOUT / lock).read_text("utf-8")))
        for lock in LOCKS
    ]
    for other in pins[1:]:
        assert {n: (v, other.get(n)) for n, v in pins[0].items() if other.get(n) != v} == {}
    assert {n: v for n, v in pins[2].items() if pins[1].get(n, v) != v} == {}


# -- what a checkout and a wheel offer -------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_the_target(target: str) -> None:
    dry = subprocess.run(
        ["make", "--dry-run", target], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert dry.returncode == 0, dry.stderr


def test_make_setup_refuses_an_old_python_with_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.1" && exit\nexit 1\n')
    old.chmod(0o755)
    refused = subprocess.run(
        ["make", "check-python", f"PYTHON={old}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "Python 3.8.1, but 3.11 or newer is needed" in refused.stderr
    assert "hint: make setup PYTHON=" in refused.stderr


def test_the_ci_script_may_be_run_and_runs_the_tests() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_environment_has_the_program(name: str) -> None:
    assert os.access(Path(sys.executable).parent / name, os.X_OK), "run `make setup`"


def test_the_licence_is_whole() -> None:
    text = (CHECKOUT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "[Unreleased]" in (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_holds_modules_prompts_templates_and_the_server_description(
    tmp_path: Path,
) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    files = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()}
    tracked = {str(path.relative_to(CHECKOUT)) for path in _tracked()}
    wanted = {f"planloom/{name}" for name in tracked if name.split("/")[0] in ROOMS}
    wanted |= {name for name in tracked if re.fullmatch(r"planloom/[\w.]+\.py|.*py\.typed", name)}
    assert wanted | {"planloom/worker.py"} <= files
    strange = {name.partition("/")[0] for name in files} - {"planloom"}
    assert strange == {next(n for n in strange if n.endswith(".dist-info"))}
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(installed)!r}); "
            "from planloom.console.devserver import DevConfig, config_path; "
            "print(config_path(), DevConfig.read().port)",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == [
        str(installed / "planloom" / "console" / "temporal-dev.yaml"),
        "7233",
    ]


def test_the_reference_pages_are_those_of_the_models() -> None:
    checked = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, f"run `make docs`: {checked.stdout}{checked.stderr}"


def test_the_server_description_is_plain_yaml() -> None:
    document = yaml.safe_load((CHECKOUT / "temporal-dev.yaml").read_text(encoding="utf-8"))
    assert {"port", "ui_port", "namespaces", "search_attributes", "dynamic_config"} <= set(document)

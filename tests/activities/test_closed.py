"""What file tools keep closed: the table of names, the places of a worker, and all tools alike."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from planloom.activities.tools.builtin.files import list_files, read_file, write_file
from planloom.activities.tools.builtin.search import search_text
from planloom.activities.tools.builtin.sql import query_sql
from planloom.activities.tools.closed import (
    Trusted,
    file_closed,
    folded,
    folder_closed,
    place_closed,
    places_in,
)
from planloom.activities.tools.decorator import ToolContext, ToolError
from planloom.activities.tools.trusted import trusted_places
from planloom.planner.contract.settings import Settings

CANARY = "canary"

# -- names ------------------------------------------------------------------------------------

CLOSED_FILES = [
    *(".env", ".env.local", ".ENV", "prod.env", ".envrc", "server.key", "cert.pem", "a.PEM"),
    *("id_rsa", "id_rsa.pub", "id_ed25519", "id_ecdsa.old", "id_work", "id_work.pub", "ID_RSA"),
    *(".git-credentials", ".netrc", "_netrc", ".pgpass", ".npmrc", ".pypirc", ".my.cnf"),
    *("credentials", "credentials.json", "client_secret_123.json", "secrets.toml"),
    *(".gitconfig", ".mcp.json", ".bash_history", ".psql_history"),
    *("terraform.tfstate", "prod.tfvars", "store.jks", "key.p12", "putty.ppk", "vault.kdbx"),
    *(
        "planloom.toml",
        "Planloom.TOML",
        "temporal.toml",
    ),
    *("temporal-dev.yaml", "x.pth", "distutils-precedence.PTH", "pyvenv.cfg", "sitecustomize.py"),
    *("\uff0eenv", "\uff50lanloom.toml", "planloom\u200b.toml", "plan\u00adloom.toml"),
    *(".env.", ".env ", "planloom.toml.", "PLANLOOM.TOML . ", "id_rsa..", "server.key. ."),
    *("server.key.bak", ".env.old", "prod.env~", "id_work.bak", "credentials.orig", "a.pem.bak~"),
    *("prod.env.local", "my-credentials.json", "application_default_credentials.json", "a.ovpn"),
    *("root_accessKeys.csv", "credentials.csv", "x-firebase-adminsdk-1.json", "AuthKey_1.p8"),
    *("plan\u034floom.toml", "server.k\ufe0fey", "id_rsa\U000e0041", "serv\u3164er.pem"),
    *("deploy_rsa", "github-ed25519", "ssh_host_rsa_key", "prod.kubeconfig", "kubeconfig.yaml"),
    *("aws-credentials", "credentials.toml", "credentials.yml.enc", "secrets.ini", "secret.json"),
    *("token.json", "auth.json", "oauth_token", "my.keytab", "netrc", "pgpass.conf", "pip.conf"),
    *("server.key.1", "server.key.txt", "terraform.tfvars.json", "wp-config.php", "passwords.txt"),
    *("planloom.toml::$DATA", "server.key:stream", "x.pth:a"),
    *("sitecustomize.pyc", "SITECUSTOMIZE.so", "usercustomize.cpython-311-x86_64-linux-gnu.so"),
    *("cert\u200d.pem", "\u2170d_rsa", "server.\u212aey", "server.ke\u200by"),
]
LOADED_FILES = [
    "tox.ini",
    "pytest.toml",
    "conftest.py",
    "CONFTEST.PY",
    "conftest.py.",
    "python311._pth",
    "pytest.ini",
]
READ_ONLY_FILES = [".gitignore", ".bashrc", ".profile", ".pre-commit-config.yaml", ".editorconfig"]
OPEN_FILES = [
    *("notes.md", "data.csv", "id_map.csv", "id.txt", "environment.yml", "keys.md", "monkey"),
    *("planloom.md", "my-planloom.toml.txt", "README", "secret-garden.txt", "pth", "a.pth.txt"),
    *("keynote.txt", "tokens.json", "café.txt", "資料.csv", "credentials.md"),
    *("a.bak", "notes.old", "key.md.bak", "credential-types.csv", "env.md", "a b.txt", "test_a.py"),
]


@pytest.mark.parametrize("name", CLOSED_FILES)
def test_a_file_of_this_name_is_closed_to_all_tools(name: str) -> None:
    assert file_closed(name, "read")
    assert file_closed(name, "write")


@pytest.mark.parametrize("name", READ_ONLY_FILES + LOADED_FILES)
def test_a_hidden_file_is_read_and_not_written(name: str) -> None:
    assert file_closed(name, "read") is None
    assert file_closed(name, "write")


@pytest.mark.parametrize("name", OPEN_FILES)
def test_a_file_of_this_name_is_open(name: str) -> None:
    assert file_closed(name, "read") is None
    assert file_closed(name, "write") is None


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        (".git", True),
        (".planloom", True),
        (".claude", True),
        (".pi", True),
        (".aws", True),
        (".PLANLOOM", True),
        (".git.", True),
        (".venv ", True),
        (".gi\ufe0ft", True),
        ("node_modules. ", True),
        ("\uff0egit", True),
        ("\u200b.git", True),
        ("site-packages", True),
        ("Site-Packages", True),
        ("dist-packages", True),
        ("node_modules", True),
        ("__pycache__", True),
        ("SiteCustomize", True),
        ("usercustomize", True),
        ("src", False),
        ("a.git", False),
        ("lib", False),
        ("bin", False),
    ],
)
def test_a_folder_of_this_name_is_closed_with_all_in_it(name: str, closed: bool) -> None:
    assert bool(folder_closed(name)) is closed


def test_a_workspace_that_is_a_virtual_environment_is_closed_where_python_is() -> None:
    for name in ("lib", "Lib", "bin", "Scripts", "lib64", "include"):
        assert folder_closed(name, is_top=True, in_environment=True)
        assert folder_closed(name, is_top=False, in_environment=True) is None
    assert folder_closed("data", is_top=True, in_environment=True) is None


def test_a_name_is_folded_as_the_most_forgiving_file_system_does() -> None:
    assert folded("Planloom.TOML") == "planloom.toml"
    assert folded("straße") == folded("STRASSE")
    assert folded("e\u0301") == folded("\u00e9")
    assert folded("\u200b.gi\u200dt") == ".git"
    assert folded("/w/Conf. /main.toml. .") == "/w/conf/main.toml"
    assert (folded(".."), folded("."), folded("a..b"), folded("/")) == ("..", ".", "a..b", "/")


# -- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "read", "write"),
    [
        ("conf/main.toml", True, True),
        ("CONF/Main.toml", True, True),
        ("conf/main.toml.bak", False, False),
        ("store", True, True),
        ("store/blobs/ab", True, True),
        ("storefront/a", False, False),
        ("pack/a.py", True, True),
        ("pack/sub/b.PY", True, True),
        ("pack/notes.md", False, False),
        ("planloom/x.md", False, True),
        ("lib/new.py", False, True),
        ("lib/new/__init__.py", False, True),
        ("lib/fast.cpython-311-darwin.so", False, True),
        ("lib/new.txt", False, False),
        ("other/new.py", False, False),
    ],
)
def test_a_place_that_the_worker_trusts_is_closed(where: str, read: bool, write: bool) -> None:
    root = Path("/w")
    trusted = Trusted(
        closed=(root / "conf/main.toml", root / "store", Path("/etc/x")),
        packages=(root / "pack",),
        fixed=(root / "planloom",),
        import_path=(root / "lib", Path("/usr/lib/python3")),
    )
    places = places_in(trusted, root)
    assert bool(place_closed(f"/w/{where}", places, "read")) is read
    assert bool(place_closed(f"/w/{where}", places, "write")) is write


def test_a_trusted_folder_that_holds_the_workspace_leaves_it_open() -> None:
    root = Path("/app/work")
    above = Trusted(closed=(Path("/app"), root), import_path=(Path("/app"),))
    assert place_closed("/app/work/a.py", places_in(above, root), "write") is None
    itself = Trusted(import_path=(root,))
    assert place_closed("/app/work/a.py", places_in(itself, root), "write")
    assert place_closed("/app/work/a.py", places_in(itself, root), "read") is None


# -- the places of a process ------------------------------------------------------------------


def _module(name: str, file: Path, folder: Path | None = None) -> ModuleType:
    made = ModuleType(name)
    made.__file__ = str(file)
    if folder is not None:
        made.__path__ = [str(folder)]
    return made


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default layout: a worker started in its workspace."""
    root = tmp_path / "work"
    root.mkdir()
    monkeypatch.chdir(root)
    return root.resolve()


def _closed(root: Path, trusted: Trusted, name: str) -> tuple[bool, bool]:
    places = places_in(trusted, root)
    return (
        bool(place_closed(str(root / name), places, "read")),
        bool(place_closed(str(root / name), places, "write")),
    )


def test_settings_data_tools_and_definitions_of_a_worker_are_closed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_config_dir", lambda _: str(work / "xdg" / "planloom"))
    modules = {
        "my_tools": _module("my_tools", work / "my_tools.py"),
        "pack": _module("pack", work / "pack/__init__.py", work / "pack"),
        "odd": ModuleType("odd"),
        "json": sys.modules["json"],
    }
    environment = {
        "PLANLOOM_CONFIG": "conf/here.toml",
        "TEMPORAL_TLS_CLIENT_KEY_PATH": "tls/k",
        "GOOGLE_APPLICATION_CREDENTIALS": "gcp.json",
        "AWS_SHARED_CREDENTIALS_FILE": "conf/aws.txt",
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "tls/traces",
        "OPENSSL_CONF": "ssl.cnf",
    }
    trusted = trusted_places(
        Settings(workspace=".", data_dir="store", blob_url="values"),
        environment,
        modules=modules,
        import_path=["", "/usr/lib/python3"],
    )
    for name in (
        *("gcp.json", "conf/aws.txt", "tls/traces", "ssl.cnf"),
        *("conf/here.toml", "tls/k", "store/x", "values/ab/abcd", "my_tools.py"),
        *("pack/__init__.py", "pack/later.py", "xdg/planloom/agents/a.md"),
    ):
        assert _closed(work, trusted, name) == (True, True), name
    for name in ("numpy.py", "boto3/__init__.py", "deep/er/x.pyc", "pyproject.toml", "Makefile"):
        assert _closed(work, trusted, name) == (False, True), name
    for name in ("conf/other.toml", "notes.md", "pack/data.csv", "deep/pyproject.toml"):
        assert _closed(work, trusted, name) == (False, False), name


def test_a_workspace_that_is_the_whole_machine_does_not_show_the_workers_environment() -> None:
    trusted = trusted_places(Settings(workspace="/"), {}, modules={}, import_path=[])
    environ = f"/proc/{os.getpid()}/environ"
    for act in ("read", "write"):
        assert place_closed(environ, places_in(trusted, Path("/")), act)


def test_what_an_mcp_server_is_started_from_is_not_written(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that writes `server.py` runs code of its own at the worker's next start."""
    for name in ("srv/main.py", "pack/__main__.py", "js/index.mjs", "conf/rules.json", "own.py"):
        (work / name).parent.mkdir(exist_ok=True, parents=True)
        (work / name).touch()
    (work / "give.sh").touch(mode=0o755)
    (work / "lib").mkdir()
    mcp: dict[str, Any] = {
        "script": {"command": "python", "args": ["srv/main.py", "--rules=conf/rules.json"]},
        "module": {"command": "python", "args": ["-m", "pack"], "env": {"PYTHONPATH": "lib"}},
        "node": {"command": "node", "args": ["./js/index.mjs"]},
        "shell": {"command": "./give.sh"},
        "own": {"command": "python", "args": ["-c", "import own"]},
        "remote": {"url": "https://example.org/mcp"},
    }
    settings = Settings.model_validate({"workspace": ".", "data_dir": "store", "mcp": mcp})
    trusted = trusted_places(settings, {}, modules={}, import_path=[])
    for name in ("srv/main.py", "pack/__main__.py", "js/index.mjs", "conf/rules.json", "give.sh"):
        assert _closed(work, trusted, name) == (True, True), name
    for name in ("srv/mcp.py", "pack/new.py", "js/dep.js", "lib/json.py", "mcp.py", "own.py"):
        assert _closed(work, trusted, name) == (False, True), name
    for name in ("pyproject.toml", "package.json", "uv.lock"):
        assert _closed(work, trusted, name) == (False, True), name
    for name in ("notes.md", "srv/data.csv", "data/pyproject.toml"):
        assert _closed(work, trusted, name) == (False, False), name
    remote = settings.model_copy(update={"mcp": {"remote": settings.mcp["remote"]}})
    alone = trusted_places(remote, {}, modules={}, import_path=[])
    assert _closed(work, alone, "pyproject.toml") == (False, False)


def test_a_data_folder_that_is_the_workspace_closes_what_is_planlooms_there(work: Path) -> None:
    trusted = trusted_places(Settings(workspace=".", data_dir="."), {}, import_path=[])
    for name in (
        "blobs/ab/abcd",
        "blobs/claims/y",
        "locks/x",
        "tool_times.json",
        "temporal.db-wal",
    ):
        assert _closed(work, trusted, name) == (True, True)
    assert _closed(work, trusted, "notes.md") == (False, False)


def test_a_link_to_a_trusted_place_is_resolved(work: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(work)
    trusted = trusted_places(
        Settings(workspace=".", data_dir=str(tmp_path / "elsewhere" / "store")), {}, import_path=[]
    )
    assert _closed(work, trusted, "store/x") == (True, True)


def test_planlooms_own_program_is_read_and_not_written() -> None:
    root = Path(__file__).resolve().parents[2]
    trusted = trusted_places(Settings(workspace=str(root), data_dir=".planloom"), {})
    for name in ("planner/library/agents/researcher.md", "worker.py", "temporal-dev.yaml"):
        assert _closed(root, trusted, name) == (False, True), name
    assert _closed(root, trusted, "docs/guide.md") == (False, False)


# -- the tools --------------------------------------------------------------------------------

Use = Callable[[ToolContext, str], Any]


def _search(context: ToolContext, path: str) -> Any:
    found = search_text(CANARY, context, path)
    if not [match for match in found if match["line"]]:
        raise ToolError("closed to tools: found nothing")
    return found


def _list(context: ToolContext, path: str) -> Any:
    folder, _, name = path.rpartition("/")
    found = list_files(context, folder or ".", name)
    if not found:
        raise ToolError("closed to tools: lists nothing")
    return found


USES: dict[str, Use] = {
    "read_file": lambda context, path: read_file(path, context),
    "search_text": _search,
    "list_files": _list,
    "query_sql": lambda context, path: query_sql("SELECT 1 AS a", path, context),
    "write_file": lambda context, path: write_file(path, "x", context),
}
PLACES = [
    *(".planloom/templates/t.csv", ".claude/agents/a.csv", ".pi/agent-teams/definitions/t.csv"),
    *(".git/config.csv", ".aws/credentials.csv", "link/config.csv", "data/../.git/config.csv"),
    *(".env", "prod.env", "id_rsa", "server.key", "planloom.toml", "x.pth"),
    *("venv/lib/python3.11/a.csv", "conda/lib/a.csv", "lib/site-packages/a.csv", "venv/pyvenv.cfg"),
    *("store/blobs/a.csv", "conf/here.toml", "my_tools.py", "pack/later.py", "linked.toml"),
]


@pytest.fixture
def context(work: Path) -> ToolContext:
    for name in PLACES:
        if not name.startswith("link") and ".." not in name:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(f"{CANARY}\n1\n")
    (work / "conda" / "conda-meta").mkdir()
    (work / "data").mkdir()
    (work / "data" / "open.csv").write_text(f"{CANARY}\n1\n")
    (work / "link").symlink_to(work / ".git")
    (work / "linked.toml").symlink_to(work / "conf" / "here.toml")
    trusted = Trusted(
        closed=tuple(work / name for name in ("store", "conf/here.toml", "my_tools.py")),
        packages=(work / "pack",),
        import_path=(work,),
    )
    return ToolContext(workspace=work, trusted=trusted)


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("tool", USES)
def test_no_file_tool_touches_what_is_trusted_or_secret(
    context: ToolContext, tool: str, path: str
) -> None:
    """`write_file` to `.claude/agents/a.md` put its text into every planner's prompt; one to
    `planloom.toml` sent a secret to a foreign address after the next start."""
    before = (context.workspace / path).read_text()
    with pytest.raises(ToolError, match="closed to tools"):
        USES[tool](context, path)
    assert (context.workspace / path).read_text() == before


@pytest.mark.parametrize("tool", USES)
def test_what_is_open_stays_open(context: ToolContext, tool: str) -> None:
    assert USES[tool](context, "data/open.csv")


def test_a_folder_shows_nothing_of_what_is_closed(context: ToolContext) -> None:
    assert list_files(context) == ["data/open.csv"]
    assert list_files(context, pattern="**/.*") == []
    assert {m["file"] for m in search_text(CANARY, context)} == {"data/open.csv"}
    assert {m["file"] for m in search_text("can[a]ry", context, regex=True)} == {"data/open.csv"}
    with pytest.raises(ToolError, match=r'not find|"open"|Tables: open'):
        query_sql("SELECT * FROM a", ".", context)


def test_no_suggestion_names_what_is_closed(context: ToolContext) -> None:
    for missing in ("prod.en", "my_tools.p", "server.ky"):
        with pytest.raises(ToolError, match="no file") as caught:
            read_file(missing, context)
        assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        *("Planloom.toml", ".PLANLOOM/x", "sub/planloom.toml", "new/.claude/agents/a.md"),
        *("numpy.py", "boto3/__init__.py", "deep/x.so", ".bashrc", "sub/.profile", "new.pth"),
        *("a/__pycache__/my_tools.cpython-311.pyc", "data/pyvenv.cfg", "sitecustomize.py"),
        *("\uff0egit/hooks/post-commit", "plan\u200bloom.toml", "STORE/blobs/x", "My_Tools.py"),
        *("venv/bin/python", "conda/bin/new", "link/hooks/x", "linked.toml"),
    ],
)
def test_nothing_new_is_written_where_somebody_would_trust_it(
    context: ToolContext, path: str
) -> None:
    with pytest.raises(ToolError, match="closed to tools"):
        write_file(path, "x", context)


def test_code_is_written_where_the_worker_does_not_import_it(context: ToolContext) -> None:
    with pytest.raises(ToolError, match="set PLANLOOM_WORKSPACE to its own folder"):
        write_file("app.py", "x", context)
    apart = replace(context, trusted=Trusted(import_path=(context.workspace.parent,)))
    assert write_file("app.py", "x", apart)["bytes"] == 1


def test_a_database_beside_a_closed_one_is_all_that_a_query_sees(context: ToolContext) -> None:
    for name in ("data/shop.sqlite", "store/shop2.sqlite"):
        with closing(sqlite3.connect(context.workspace / name)) as made:
            made.execute(f"CREATE TABLE {Path(name).stem}(n)")
            made.commit()
    assert query_sql("SELECT * FROM shop", ["data"], context) == []
    with pytest.raises(ToolError, match="closed to tools"):
        query_sql("SELECT 1", ["data", "store/shop2.sqlite"], context)

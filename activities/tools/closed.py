"""What file tools may not read or write: decided from names and places alone. Pure.

Two reasons: the worker (or a program of its user) trusts the file, or it holds a secret. Names are
compared as a forgiving file system would compare them: without case, without Unicode variants.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import Literal

Act = Literal["read", "write"]

HIDDEN = "hidden folders hold settings, keys and definitions"
ENVIRONMENT = "it belongs to installed packages"
TRUSTED = "the worker trusts it"
CODE = (
    "the worker, or a program that it starts, loads code from here; "
    "set PLANLOOM_WORKSPACE to its own folder where tools may write code"
)
SECRET = "it may hold secrets"

SECRET_FILES = (
    *(".env*", "*.env", "*.env.*", ".envrc", "*.key", "*.pem", "*.p8", "*.p12", "*.pfx", "*.ppk"),
    *("*.jks", "*.keystore", "*.kdbx", "*.ovpn", "*.tfstate", "*.tfvars"),
    *(".git-credentials", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".npmrc", ".yarnrc.yml"),
    *(".pypirc", ".htpasswd", ".dockercfg", ".s3cfg", ".boto", ".vault-token", ".terraformrc"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "id_xmss*", "ssh_host_*_key"),
    *("*_rsa", "*_dsa", "*_ecdsa", "*_ed25519", "*-rsa", "*-ed25519"),
    *("*.keytab", "*.kdb", "*.kubeconfig", "kubeconfig.*", "*.pkcs12", "*.psafe3"),
    *("netrc", "pgpass.conf", "pip.conf", ".renviron", "local.settings.json", "wp-config.php"),
    *(
        "*credentials",
        "credentials.toml",
        "credentials.ini",
        "credentials.y*ml*",
        "credentials.txt",
    ),
    *("token.json", "auth.json", "*_token", "*.token", "passwords.*", "shadow"),
    *("*credentials.json", "*credentials.csv", "*_accesskeys.csv", "rootkey.csv"),
    *("*adminsdk*.json", "client_secret*.json", "service_account*.json", "service-account*.json"),
    *("secrets.toml", "secrets.json", "secrets.y*ml*", "secrets.ini", "secrets.txt", "kubeconfig"),
    *("secret.toml", "secret.json", "secret.y*ml*", "secret.ini", "secret.txt", "vault.json"),
    *("*.tfvars.json", "cookies.txt", "cookies.sqlite"),
    *(".gitconfig", ".claude.json", ".mcp.json", ".*_history"),
)
"""Names of files whose content would put keys into the run's history."""
BACKUP = re.compile(r"(\.(bak|backup|old|orig|save|copy|tmp|txt|sw[op]|\d{1,14})|~)+\Z")
"""What programs and people put behind a name: `server.key.bak` holds what `server.key` did."""
SSH_KEY = re.compile(r"id_[^.]+(\.pub)?")
"""Keys with unusual names, such as `id_work`; `id_map.csv` is a table."""
LOADED_FILES = ("conftest.py", "pytest.ini", "pytest.toml", "tox.ini", "python*._pth")
"""Names of files that programs load by themselves from wherever they are: read, and not written."""
TRUSTED_FILES = (
    *("planloom.toml", "temporal-dev.yaml", "temporal.toml", "*.pth", "*.egg-link", "pyvenv.cfg"),
    *("sitecustomize.*", "usercustomize.*"),  # .py, .pyc, .so: Python imports them by itself
)
"""Names of files that a worker, its server or its Python reads at its next start."""
TRUSTED_FOLDERS = ("sitecustomize", "usercustomize")
"""As packages they are imported like the files of these names."""
ENVIRONMENT_FOLDERS = ("site-packages", "dist-packages", "node_modules", "__pycache__")
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
"""A folder that holds one of these is a virtual environment."""
ENVIRONMENT_PARTS = ("bin", "scripts", "include", "lib", "lib64", *ENVIRONMENT_MARKS)
"""What is closed of a workspace that is a virtual environment itself."""
CODE_SUFFIXES = (".py", ".pyw", ".pyc", ".pyo", ".so", ".pyd", ".dylib")
SCRIPT_SUFFIXES = (
    *CODE_SUFFIXES,
    ".js",
    ".mjs",
    ".cjs",
    ".ts",
    ".mts",
    ".jsx",
    ".sh",
    ".rb",
    ".pl",
)


@dataclass(frozen=True)
class Trusted:
    """Places that one worker trusts, as real paths. What is closed by name alone is not here."""

    closed: tuple[Path, ...] = ()
    """Files and folders that no tool reads or writes: settings, data folder, tool modules."""
    packages: tuple[Path, ...] = ()
    """Folders of loaded packages: their Python files are neither read nor written."""
    fixed: tuple[Path, ...] = ()
    """Planloom's own program: read, but not written."""
    import_path: tuple[Path, ...] = ()
    """Folders that Python imports from: Python files below are not written."""
    script_folders: tuple[Path, ...] = ()
    """Folders that a started program imports from: no code of any language is written below."""


_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""Characters that a file system may ignore, beside those of Unicode's class `Cf`."""
_ENDS = re.compile(r"(?<=[^/. ])[. ]+(?=/|\Z)")
"""Dots and spaces at the end of a name, which file systems of Windows leave out."""


def folded(name: str) -> str:
    """A name, or a path, as the most forgiving file system compares it."""
    if name.isascii():
        return _ENDS.sub("", name.lower())
    # Some systems also leave out characters that nobody sees.
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
    visible = unicodedata.normalize("NFKC", _UNSEEN.sub("", visible)).casefold()
    return _ENDS.sub("", unicodedata.normalize("NFKC", visible))


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns))


_SECRET = _any_of(SECRET_FILES)
_TRUSTED = _any_of(TRUSTED_FILES)
_LOADED = _any_of(LOADED_FILES)


def file_closed(name: str, act: Act) -> str | None:
    """Why a file of this name is closed, wherever it is, or None."""
    # Windows: what stands behind a colon names a stream of the same file.
    plain = folded(name.partition(":")[0]) or folded(name)
    if _TRUSTED.match(plain):
        return TRUSTED
    original = BACKUP.sub("", plain)
    if any(_SECRET.match(n) or SSH_KEY.fullmatch(n) for n in (plain, original)):
        return SECRET
    if act == "write" and _LOADED.match(plain):
        return CODE
    if act == "write" and plain.startswith("."):
        return "hidden files are settings of programs"
    return None


def folder_closed(name: str, *, is_top: bool = False, in_environment: bool = False) -> str | None:
    """Why a folder of this name and all in it is closed, or None.

    `is_top` and `in_environment` say that it is directly in a workspace that is itself a virtual
    environment.
    """
    plain = folded(name.partition(":")[0]) or folded(name)
    if plain.startswith("."):
        return HIDDEN
    if plain in TRUSTED_FOLDERS:
        return TRUSTED
    if plain in ENVIRONMENT_FOLDERS or (is_top and in_environment and plain in ENVIRONMENT_PARTS):
        return ENVIRONMENT
    return None


@dataclass(frozen=True)
class Places:
    """The trusted places of one workspace, folded, as `place_closed` compares them."""

    closed: tuple[str, ...]
    packages: tuple[str, ...]
    fixed: tuple[str, ...]
    import_path: tuple[str, ...]
    script_folders: tuple[str, ...] = ()


@lru_cache(64)
def places_in(trusted: Trusted, root: Path) -> Places:
    """Those inside the workspace `root`.

    A folder that holds the whole workspace does not count: it would leave nothing. The workspace
    itself counts where only Python files are closed.
    """
    top = folded(str(root))

    def inside(places: Sequence[Path], *, or_top: bool = False) -> tuple[str, ...]:
        found = [folded(str(place)) for place in places]
        return tuple(p for p in found if _is_at(p, top) and (or_top or p != top))

    return Places(
        closed=inside(trusted.closed),
        packages=inside(trusted.packages, or_top=True),
        fixed=inside(trusted.fixed),
        import_path=inside(trusted.import_path, or_top=True),
        script_folders=inside(trusted.script_folders, or_top=True),
    )


def place_closed(real: str, places: Places, act: Act) -> str | None:
    """Why the file or folder at a real path is closed, or None."""
    where = folded(real)
    if any(_is_at(where, place) for place in places.closed):
        return TRUSTED
    if act == "write" and any(_is_at(where, place) for place in places.fixed):
        return TRUSTED
    if where.endswith(CODE_SUFFIXES):
        if any(_is_at(where, place) for place in places.packages):
            return TRUSTED
        if act == "write" and any(_is_at(where, place) for place in places.import_path):
            return CODE
    is_script = act == "write" and where.endswith(SCRIPT_SUFFIXES)
    if is_script and any(_is_at(where, place) for place in places.script_folders):
        return CODE
    return None


def _is_at(where: str, place: str) -> bool:
    return where == place or where.startswith(place.rstrip("/") + "/")

"""What the programs read as code that this worker starts: MCP servers, and keys from commands."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planloom.planner.contract.settings import Settings

MANIFESTS = (
    *("pyproject.toml", "uv.toml", "uv.lock", "requirements.txt", "setup.cfg", "setup.py"),
    *("package.json", "package-lock.json", "deno.json", "bunfig.toml", "Makefile", "justfile"),
)
"""Files of the working folder by which a starter (uv, npx, deno, make) finds what to run."""
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Started:
    """Places that the commands read."""

    files: tuple[Path, ...] = ()
    """Programs, scripts and files that an argument or a variable names."""
    folders: tuple[Path, ...] = ()
    """Folders that scripts are imported from."""
    manifests: tuple[Path, ...] = ()


def started_by(settings: Settings) -> Started:
    """What the commands of the settings read, as seen from the working folder."""
    commands = [
        ([s.command, *s.args], s.env) for s in settings.mcp.values() if s.command is not None
    ]
    keys = settings.encryption.keys.values() if settings.encryption else []
    commands += [(list(key.command), {}) for key in keys if key.command]
    files = [file for words, env in commands for file in _files(words, env)]
    scripts = [file.parent for file in files if file.suffix]
    folders = [Path(f) for _, env in commands for f in _parts(env.values()) if Path(f).is_dir()]
    return Started(
        tuple(dict.fromkeys(files)),
        tuple(dict.fromkeys([*scripts, *folders, *(Path() for _ in commands[:1])])),
        tuple(Path(name) for name in MANIFESTS) if commands else (),
    )


def _files(words: Sequence[str], env: Mapping[str, str]) -> list[Path]:
    found = [Path(program)] if (program := shutil.which(words[0])) else []
    for word in _parts([*words, *env.values()]):
        found += [path for path in (Path(word), *_modules(word)) if path.is_file()]
    return found


def _modules(word: str) -> list[Path]:
    """The files of `python -m word` in the working folder."""
    if not MODULE.fullmatch(word):
        return []
    path = Path(*word.split("."))
    return [path.with_name(f"{path.name}.py"), path / "__main__.py", path / "__init__.py"]


def _parts(words: Iterable[str]) -> list[str]:
    """Words, and what stands in them after `=` (`--config=x`) or between separators of paths."""
    found: list[str] = []
    for word in words:
        for part in (word, word.partition("=")[2], *word.split(os.pathsep)):
            if part and "\0" not in part and part not in found:
                found.append(part)
    return found

"""Template plans as files: where they lie, what they are called, and what they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from planloom import planner
from planloom.activities.plain_files import plain_files, why_not_read
from planloom.planner.language.clean_text import clean_value
from planloom.planner.language.definitions import name_taken
from planloom.planner.language.values import JsonValue, Problem
from planloom.yaml_documents import DocumentError, read_document_text

SHIPPED = Path(planner.__file__).parent / "library" / "templates"
SUFFIXES = (".yaml", ".yml", ".json")


def template_folders(workspace: Path) -> list[Path]:
    """Where templates are looked for; the first that has a name wins: the workspace's come last.

    They may have come with somebody's repository.
    """
    return [
        Path(platformdirs.user_config_dir("planloom")) / "templates",
        SHIPPED,
        workspace / ".planloom" / "templates",
    ]


@dataclass
class TemplateFiles:
    """Templates by name (the file's name without its ending), read again when a file changes."""

    folders: Sequence[Path]
    workspace: Path | None = None
    """Files below it may be of others."""
    _read: dict[Path, tuple[int, JsonValue]] = field(default_factory=dict)

    def paths(self) -> dict[str, Path]:
        paths: dict[str, Path] = {}
        for path in self._files(self.folders):
            paths.setdefault(path.stem, path)
        return paths

    def unused(self) -> list[Problem]:
        """Files of the last folder (the workspace's) whose name is taken, and by which file."""
        paths = self.paths()
        return [
            name_taken("template", path.stem, unused=str(path), used=str(paths[path.stem]))
            for path in self._files(self.folders[-1:])
            if paths[path.stem] != path
        ]

    def _files(self, folders: Sequence[Path]) -> Iterator[Path]:
        for folder in folders:
            yield from plain_files(folder, SUFFIXES)

    def names(self) -> list[str]:
        return sorted(self.paths())

    def load(self, name: str) -> JsonValue:
        """The document, unchecked (the compiler checks it), or None when there is no such name.

        A file that is no YAML gives its error as text, which the compiler then reports as no plan.
        """
        path = self.paths().get(name)
        if path is None:
            return None
        changed = path.stat().st_mtime_ns
        cached = self._read.get(path)
        if cached is None or cached[0] != changed:
            cached = (changed, _parsed(path, self.workspace))
            self._read[path] = cached
        return cached[1]

    def load_with_named(self, names: Sequence[str]) -> dict[str, JsonValue]:
        """These templates and all that their sub-plans name, those that exist."""
        documents: dict[str, JsonValue] = {}
        wanted = list(names)
        for name in wanted:  # grows while it is walked
            if name not in documents and (document := self.load(name)) is not None:
                documents[name] = document
                wanted += names_used_in(document).templates
        return documents


def _parsed(path: Path, workspace: Path | None) -> JsonValue:
    try:
        if why := why_not_read(path, workspace):
            return f"{path} {why}"
        document = clean_value(read_document_text(path.read_text(encoding="utf-8")).value)
    except (DocumentError, OSError, UnicodeDecodeError) as error:
        return f"{path} cannot be read: {error}"
    return document


@dataclass
class UsedNames:
    """What a plan document names, by kind."""

    tools: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    teams: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


def names_used_in(document: Any) -> UsedNames:
    """Tools, templates, agents, teams and models that a document speaks of.

    Wherever they stand: naming too many costs a few bytes, naming too few a failed run.
    """
    found: dict[str, dict[str, None]] = {key: {} for key in _NAMING}
    for each in _objects(document):
        for key, names in found.items():
            if isinstance(value := each.get(key), str):
                names[value] = None
    return UsedNames(**{into: list(found[key]) for key, into in _NAMING.items()})


_NAMING = {
    "tool": "tools",
    "plan": "templates",
    "agent": "agents",
    "team": "teams",
    "model": "models",
}


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    stack = [document]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            yield each
            stack.extend(reversed(list(each.values())))
        elif isinstance(each, list):
            stack.extend(reversed(each))

"""Agents and teams as files that a person writes: found, read, and checked.

Markdown with front matter, or YAML. Looked for in the workspace (`.planloom/agents`,
`.planloom/teams`, `.claude/agents`, `.pi/agent-teams/definitions`), in the user's configuration
folder, and among those that ship; the first that has a name wins. A Claude subagent file and a
team file of the agents runtime load unchanged; fields we do not use are warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import yaml
from pydantic import BaseModel, ValidationError
from temporalio import activity

import planner
from activities.blobs import BlobStore
from planner.definitions import AgentSpec, TeamSpec
from planner.documents import problems_from_validation
from planner.jobs import Loaded, LoadJob
from planner.values import Problem

TOOL_NAMES = {
    "Read": "read_file",
    "Grep": "search_text",
    "Glob": "list_files",
    "LS": "list_files",
    "Write": "write_file",
    "WebFetch": "http_get",
}
"""Tools of Claude's files, and ours that do the same."""
MODEL_ALIASES = ("haiku", "sonnet", "opus", "inherit", "default")
FOLDERS = {
    "agent": (".planloom/agents", ".claude/agents"),
    "team": (".planloom/teams", ".pi/agent-teams/definitions"),
}
_SUFFIXES = (".md", ".yaml", ".yml")
_IGNORED = {"createdAt", "updatedAt", "strategy", "skills", "provider", "name"}


@dataclass(frozen=True)
class Definition:
    """One file: what it defines, or what is wrong with it."""

    name: str
    kind: str
    path: Path
    spec: AgentSpec | TeamSpec | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def description(self) -> str:
        return self.spec.description if self.spec is not None else ""


class Definitions:
    """All agents and teams that a worker knows."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._read: dict[tuple[Path, int, int], Definition] = {}
        """Files as they were read, by path, time and size: every run asks for them."""

    def folders(self, kind: str) -> list[Path]:
        user = Path(platformdirs.user_config_dir("planloom"))
        shipped = Path(planner.__file__).parent / "library"
        return [
            *(self._workspace / f for f in FOLDERS[kind]),
            user / f"{kind}s",
            shipped / f"{kind}s",
        ]

    def all(self, kind: str) -> dict[str, Definition]:
        """By name, broken ones included."""
        found: dict[str, Definition] = {}
        for path in self._files(kind):
            seen = path.stat()
            key = (path, seen.st_mtime_ns, seen.st_size)
            if key not in self._read:
                self._read[key] = read_definition(path, kind)
            found.setdefault(self._read[key].name, self._read[key])
        return found

    def _files(self, kind: str) -> Iterator[Path]:
        for folder in self.folders(kind):
            if folder.is_dir():
                yield from sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES)

    def get(self, kind: str, name: str) -> Definition | None:
        return self.all(kind).get(name)

    def descriptions(self, kind: str) -> dict[str, str]:
        """Name to description of those that can be used."""
        return {n: d.description for n, d in self.all(kind).items() if d.spec is not None}


def read_definition(path: Path, kind: str) -> Definition:
    """One file as an agent or a team, with all its problems."""
    try:
        head, body = split_front_matter(path.read_text(encoding="utf-8"), path.suffix)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = Problem(path=str(path), code="unreadable", message=str(error).split("\n")[0])
        return Definition(path.stem, kind, path, problems=[problem])
    warnings: list[str] = []
    document = _agent(head, body, warnings) if kind == "agent" else _team(head, body, warnings)
    document.setdefault("id", path.stem)
    model: type[BaseModel] = AgentSpec if kind == "agent" else TeamSpec
    try:
        spec = model.model_validate(document)
    except ValidationError as error:
        found = problems_from_validation(error, document, model, path.name)
        return Definition(str(document["id"]), kind, path, problems=found, warnings=warnings)
    assert isinstance(spec, AgentSpec | TeamSpec)
    return Definition(str(document["id"]), kind, path, spec=spec, warnings=warnings)


def split_front_matter(text: str, suffix: str) -> tuple[dict[str, Any], str]:
    """The head as an object, and the text below it."""
    if suffix != ".md":
        found = yaml.safe_load(text)
        return (found if isinstance(found, dict) else {}), ""
    if not text.startswith("---"):
        return {}, text.strip()
    _, head, body = [*text.split("---", 2), "", ""][:3]
    try:
        found = yaml.safe_load(head)
    except yaml.YAMLError:
        found = _by_lines(head)
        if not found:
            raise
    return (found if isinstance(found, dict) else {}), body.strip()


def _by_lines(head: str) -> dict[str, str]:
    """A head of plain `key: text` lines; people leave colons in a description unquoted."""
    found = re.findall(r"^(\w[\w-]*):[ \t]*(\S.*)$", head, re.MULTILINE)
    lines = [line for line in head.splitlines() if line.strip()]
    return dict(found) if len(found) == len(lines) else {}


def _agent(head: Mapping[str, Any], body: str, warnings: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in head.items():
        match key:
            case "name" | "id":
                document["id"] = value
            case "systemPrompt" | "system":
                document["system"] = value
            case "tools":
                document["tools"] = _tools(value, warnings)
            case "maxTurns" | "max_turns":
                document["max_turns"] = value
            case "model" if value in MODEL_ALIASES:
                warnings.append(f'model "{value}": the run\'s own model is used')
            case _ if key in AgentSpec.model_fields:
                document[key] = value
            case _:
                warnings.append(f'field "{key}" is not used')
    if body:
        document["system"] = body
    return document


def _tools(value: Any, warnings: list[str]) -> list[str]:
    names = value.split(",") if isinstance(value, str) else list(value or [])
    found: list[str] = []
    for name in (str(n).strip() for n in names):
        if name[:1].isupper() and name not in TOOL_NAMES:
            warnings.append(f'tool "{name}" is not available here')
        elif name:
            found.append(TOOL_NAMES.get(name, name))
    return list(dict.fromkeys(found))


def _team(head: Mapping[str, Any], body: str, warnings: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = {k: v for k, v in head.items() if k in TeamSpec.model_fields}
    used = {*TeamSpec.model_fields, *_IGNORED, "enabled"}
    warnings += [f'field "{key}" is not used' for key in head if key not in used]
    members = []
    for member in head.get("members") or []:
        kept = dict(member) if isinstance(member, Mapping) else {"id": str(member)}
        for name in ("provider", "skills"):
            kept.pop(name, None)
        if isinstance(kept.get("enabled"), str):
            kept["enabled"] = kept["enabled"] != "disabled"
        members.append(kept)
    document["members"] = members
    if body and "description" not in document:
        document["description"] = body[:500]
    return document


class DefinitionActivities:
    """What a worker registers to look definitions up."""

    def __init__(self, definitions: Definitions, blobs: BlobStore) -> None:
        self._definitions = definitions
        self._blobs = blobs

    @activity.defn(name="load_definition")
    async def load_definition(self, job: LoadJob) -> Loaded:
        """The definition as it stands now; the run keeps what it was given."""
        from difflib import get_close_matches

        known = self._definitions.all(job.kind)
        found = known.get(job.name)
        if found is None:
            near = get_close_matches(job.name, list(known), n=1)
            listed = f"{job.kind.capitalize()}s: " + (", ".join(known) or "none")
            hint = f'Did you mean "{near[0]}"?' if near else listed
            code, message = f"unknown_{job.kind}", f'no {job.kind} "{job.name}"'
            return Loaded(problems=[Problem(path=job.kind, code=code, message=message, hint=hint)])
        if found.spec is None:
            return Loaded(problems=found.problems, warnings=found.warnings)
        document = found.spec.model_dump(mode="json", exclude_unset=True)
        stored = await self._blobs.store_value(document)
        if isinstance(found.spec, AgentSpec):
            spec = found.spec
            return Loaded(spec=stored, tools=spec.tools, model=spec.model, warnings=found.warnings)
        return Loaded(
            spec=stored,
            members=document["members"],
            links=document.get("links"),
            warnings=found.warnings,
        )

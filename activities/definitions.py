"""Agents and teams as files that a person writes: found, read, and checked.

Markdown with front matter, or YAML. Looked for in the workspace (`.planloom/agents`,
`.planloom/teams`, `.claude/agents`, `.pi/agent-teams/definitions`), in the user's configuration
folder, and among those that ship. The user's win over those that ship, and both over those of the
workspace, which may have come with somebody's repository. A Claude subagent file and a
team file of the agents runtime load unchanged; fields we do not use are warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs
import yaml
from pydantic import BaseModel, ValidationError
from temporalio import activity

from planloom import planner
from planloom.activities.plain_files import plain_files, why_not_read
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.threads import in_computing_thread
from planloom.planner.compile.team_check import team_problems
from planloom.planner.contract.jobs import LoadedDefinition, LoadJob
from planloom.planner.language.clean_text import clean_text, clean_value
from planloom.planner.language.definitions import AgentSpec, TeamSpec, name_taken
from planloom.planner.language.team_links import check_links
from planloom.planner.language.values import Problem
from planloom.planner.syntax.documents import bounded_problems, problems_from_validation
from planloom.yaml_documents import BoundedLoader

TOOL_NAMES = {
    "Read": "read_file",
    "Grep": "search_text",
    "Glob": "list_files",
    "LS": "list_files",
    "Write": "write_file",
    "WebFetch": "http_get",
}
"""Tools of Claude's files, and Planloom's that do the same."""
MODEL_ALIASES = ("haiku", "sonnet", "opus", "inherit", "default")
FOLDERS = {
    "agent": (".planloom/agents", ".claude/agents"),
    "team": (".planloom/teams", ".pi/agent-teams/definitions"),
}
_SUFFIXES = (".md", ".yaml", ".yml")
FIELDS_LOOKED_AT_MAX = 200
"""For slips of the pen: each is compared with all that are known."""
WARNINGS_MAX = 50
READING_TOOLS = ["read_file", "list_files", "search_text"]
"""Of a Claude file that names no tools: there it means all, here only those that change nothing."""
_FOREIGN = {
    "createdAt",
    "updatedAt",
    "skills",
    "provider",
    "name",
    "enabled",
    "disallowedTools",
    "permissionMode",
    "mcpServers",
    "hooks",
    "memory",
    "background",
    "effort",
    "isolation",
    "color",
    "license",
    "version",
    "strategy",
}
"""Fields of Claude's and the agents runtime's files that mean nothing here, or are read apart."""


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
        """Where definitions are looked for; the first folder that has a name wins."""
        user = Path(platformdirs.user_config_dir("planloom"))
        shipped = Path(planner.__file__).parent / "library"
        return [
            user / f"{kind}s",
            shipped / f"{kind}s",
            *(self._workspace / f for f in FOLDERS[kind]),
        ]

    def all(self, kind: str) -> dict[str, Definition]:
        """By name, broken ones included."""
        by_name: dict[str, Definition] = {}
        for each in self._definitions(kind):
            by_name.setdefault(each.name, each)
        return by_name

    def unused(self, kind: str) -> list[Definition]:
        """Those of the workspace whose name is taken; their problems say by which file."""
        by_name = self.all(kind)
        return [
            replace(each, spec=None, problems=[*each.problems, _taken(each, by_name[each.name])])
            for each in self._definitions(kind)
            if each.path != by_name[each.name].path and each.path.is_relative_to(self._workspace)
        ]

    def _definitions(self, kind: str) -> Iterator[Definition]:
        for path in self._files(kind):
            seen = path.stat()
            key = (path, seen.st_mtime_ns, seen.st_size)
            if key not in self._read:
                self._read[key] = self._read_one(path, kind)
            yield self._read[key]

    def _read_one(self, path: Path, kind: str) -> Definition:
        if why := why_not_read(path, self._workspace):
            problem = Problem(path=path.name, code="not_read", message=why)
            return Definition(path.stem, kind, path, problems=[problem])
        return read_definition(path, kind)

    def _files(self, kind: str) -> Iterator[Path]:
        for folder in self.folders(kind):
            yield from plain_files(folder, _SUFFIXES)

    def get(self, kind: str, name: str) -> Definition | None:
        return self.all(kind).get(name)

    def descriptions(self, kind: str) -> dict[str, str]:
        """Name to description of those that can be used."""
        return {n: d.description for n, d in self.all(kind).items() if d.spec is not None}

    def disabled(self, kind: str) -> list[str]:
        """Names of those that are switched off in their files."""
        code = f"{kind}_disabled"
        return [n for n, d in self.all(kind).items() if any(p.code == code for p in d.problems)]


def _taken(unused: Definition, used: Definition) -> Problem:
    return name_taken(unused.kind, unused.name, unused=str(unused.path), used=str(used.path))


def read_definition(path: Path, kind: str) -> Definition:
    """One file as an agent or a team, with all its problems."""
    try:
        head, body = split_front_matter(path.read_text(encoding="utf-8-sig"), path.suffix)
    except (OSError, ValueError, yaml.YAMLError) as error:
        message = " ".join(str(error).split())[:300]
        problem = Problem(path=path.name, code="unreadable", message=message)
        return Definition(path.stem, kind, path, problems=[problem])
    warnings: list[str] = []
    is_claude = path.parent.name == "agents" and path.parent.parent.name == ".claude"
    document = (
        _agent(head, body, warnings, is_claude) if kind == "agent" else _team(head, body, warnings)
    )
    document.setdefault("id", path.stem)
    problems = _misspelt(head, kind, path.name, warnings)
    model: type[BaseModel] = AgentSpec if kind == "agent" else TeamSpec
    spec: BaseModel | None = None
    try:
        spec = model.model_validate(document)
    except ValidationError as error:
        problems += problems_from_validation(error, document, model, path.name)
    problems += _faults(spec, head, path.name, kind)
    assert spec is None or isinstance(spec, AgentSpec | TeamSpec)
    problems = bounded_problems(problems)
    usable = None if problems else spec
    return Definition(str(document["id"]), kind, path, usable, problems, warnings[:WARNINGS_MAX])


def _misspelt(head: Mapping[str, Any], kind: str, where: str, warnings: list[str]) -> list[Problem]:
    """Fields that are nearly one of those that are read; others that are unknown are warnings."""
    fields = AgentSpec.model_fields if kind == "agent" else TeamSpec.model_fields
    field_names = [*fields, "name", "systemPrompt", "maxTurns", *_FOREIGN]
    problems = []
    for key in list(map(str, head))[:FIELDS_LOOKED_AT_MAX]:
        if key in field_names:
            continue
        near = get_close_matches(key, field_names, n=1, cutoff=0.8)
        if not near:
            warnings.append(f'field "{key}" is not used')
            continue
        message, hint = f'no field "{key}"', f'Did you mean "{near[0]}"?'
        path = f"{where}.{key}"
        problems.append(Problem(path=path, code="extra_forbidden", message=message, hint=hint))
    return problems


def _faults(
    spec: BaseModel | None, head: Mapping[str, Any], where: str, kind: str
) -> list[Problem]:
    """What the model alone does not see: nothing to say, links to nobody, cycles, switched off."""
    problems: list[Problem] = []
    if isinstance(spec, AgentSpec) and not spec.system and not spec.description:
        message = "has neither a system prompt nor a description"
        hint = "Write who the agent is below the front matter, or as `system`."
        problems.append(Problem(path=where, code="empty", message=message, hint=hint))
    if isinstance(spec, TeamSpec):
        team_faults = team_problems(
            spec,
            quorum=None,
            subtasks=None,
            check_links=lambda active: check_links(spec.links, [m.id for m in active]),
        )
        problems += [p.model_copy(update={"path": f"{where}: {p.path}"}) for p in team_faults]
    if _is_off(head.get("enabled")):
        message, hint = f"the {kind} is disabled", "Take `enabled: disabled` out to use it."
        problems.append(
            Problem(path=f"{where}.enabled", code=f"{kind}_disabled", message=message, hint=hint)
        )
    return problems


def _is_off(enabled: Any) -> bool:
    return enabled is False or (isinstance(enabled, str) and enabled.lower() == "disabled")


def split_front_matter(text: str, suffix: str) -> tuple[dict[str, Any], str]:
    """The head as an object, and the text below it.

    Raises:
        ValueError: the head is not an object, or does not end.
        yaml.YAMLError: it cannot be read.
    """
    if suffix != ".md":
        return _object(yaml.load(text, BoundedLoader)), ""
    lines = text.strip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}, text.strip()
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise ValueError('the front matter does not end: it needs a line "---" below it')
    head, body = "\n".join(lines[1:end]), "\n".join(lines[end + 1 :]).strip()
    try:
        return _object(yaml.load(head, BoundedLoader)), body
    except yaml.YAMLError:
        head_document = _by_lines(head)
        if not head_document:
            raise
        return dict(head_document), body


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"needs fields (name: value), found a {type(value).__name__}")
    return {clean_text(k): clean_value(v) for k, v in value.items()}


def _by_lines(head: str) -> dict[str, str]:
    """A head of plain `key: text` lines; people leave colons in a description unquoted."""
    pairs = re.findall(r"^(\w[\w-]*):[ \t]*(\S.*)$", head, re.MULTILINE)
    lines = [line for line in head.splitlines() if line.strip()]
    return dict(pairs) if len(pairs) == len(lines) else {}


def _agent(
    head: Mapping[str, Any], body: str, warnings: list[str], is_claude: bool
) -> dict[str, Any]:
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
            case _ if key in _FOREIGN and key not in ("disallowedTools", "enabled"):
                warnings.append(f'field "{key}" is not used')
    if is_claude and "tools" not in document:
        document["tools"] = list(READING_TOOLS)
        named = ", ".join(READING_TOOLS)
        warnings.append(f"names no tools: it may use {named}; name others to let it act")
    if "disallowedTools" in head:
        barred = _tools(head["disallowedTools"], [])
        document["tools"] = [t for t in document.get("tools") or [] if t not in barred]
    if body:
        document["system"] = body
    return document


def _tools(value: Any, warnings: list[str]) -> Any:
    """Tool names as a list, Claude's mapped to Planloom's. `Read(src/**)` is `Read`."""
    if value is not None and not isinstance(value, str | list):
        return value  # the model says what is wrong with it
    # No pattern that looks for an end from each beginning: a megabyte of "(" would take minutes.
    names = re.sub(r"\([^()]*\)", "", value).split(",") if isinstance(value, str) else value or []
    tools: list[str] = []
    for name in (str(n).partition("(")[0].strip() for n in names):
        is_theirs = name[:1].isupper() or name.startswith("mcp__")
        if is_theirs and name not in TOOL_NAMES:
            warnings.append(f'tool "{name}" is not available here')
        elif name:
            tools.append(TOOL_NAMES.get(name, name))
    return list(dict.fromkeys(tools))


def _team(head: Mapping[str, Any], body: str, warnings: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = {k: v for k, v in head.items() if k in TeamSpec.model_fields}
    warnings += [f'field "{key}" is not used' for key in ("skills", "provider") if key in head]
    if isinstance(document.get("strategy"), str):
        is_sequential = document["strategy"].strip().lower() == "sequential"
        document["strategy"] = "sequential" if is_sequential else "parallel"
    listed = head.get("members")
    if isinstance(listed, list):
        document["members"] = [_member(m, warnings) for m in listed]
    elif listed is None:
        document["members"] = []
    if body and "description" not in document:
        document["description"] = body[:500]
    return document


def _member(member: Any, warnings: list[str]) -> dict[str, Any]:
    if not isinstance(member, Mapping):
        return {"id": member}
    kept = dict(member)
    for name in ("provider", "skills"):
        kept.pop(name, None)
    if "tools" in kept:
        kept["tools"] = _tools(kept["tools"], warnings)
    if isinstance(kept.get("enabled"), str):
        kept["enabled"] = not _is_off(kept["enabled"])
    return kept


class DefinitionActivities:
    """What a worker registers to look definitions up."""

    def __init__(self, definitions: Definitions, blobs: BlobStore) -> None:
        self._definitions = definitions
        self._blobs = blobs

    @activity.defn(name="load_definition")
    async def load_definition(self, job: LoadJob) -> LoadedDefinition:
        """The definition as it stands now; the run keeps what it was given."""
        definitions = await in_computing_thread(self._definitions.all, job.kind)
        definition = definitions.get(job.name)
        if definition is None:
            near = get_close_matches(job.name, list(definitions), n=1)
            listed = f"{job.kind.capitalize()}s: " + (", ".join(definitions) or "none")
            hint = f'Did you mean "{near[0]}"?' if near else listed
            code, message = f"unknown_{job.kind}", f'no {job.kind} "{job.name}"'
            return LoadedDefinition(
                problems=[Problem(path=job.kind, code=code, message=message, hint=hint)]
            )
        if definition.spec is None:
            return LoadedDefinition(problems=definition.problems, warnings=definition.warnings)
        document = definition.spec.model_dump(mode="json", exclude_unset=True)
        stored = await self._blobs.store_value(document)
        if isinstance(definition.spec, AgentSpec):
            spec = definition.spec
            return LoadedDefinition(
                spec=stored,
                tools=spec.tools,
                model=spec.model,
                max_turns=spec.max_turns,
                output_schema=spec.output_schema,
                warnings=definition.warnings,
            )
        return LoadedDefinition(
            spec=stored,
            members=document["members"],
            links=document.get("links"),
            strategy=definition.spec.strategy,
            description=definition.spec.description,
            warnings=definition.warnings,
        )

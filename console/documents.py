"""Plan files and settings as the command line reads them: YAML or JSON, with errors that help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from planloom.console.mistakes import UsageError
from planloom.planner.compile.pipeline import Compiled, compile_plan
from planloom.planner.compile.templates import check_template
from planloom.planner.contract.findings import Finding
from planloom.planner.contract.garbage import GarbageJob, GarbageReport
from planloom.planner.contract.prepare import prepare_job
from planloom.planner.contract.requests import Role, RunRequest
from planloom.planner.contract.settings import Settings, SettingsError, settings_from
from planloom.planner.language.catalog import Catalog, ToolSpec
from planloom.planner.language.definitions import name_taken
from planloom.planner.language.plan import PLAN_FILE_MAX_BYTES, Plan
from planloom.planner.language.values import Problem
from planloom.planner.syntax.documents import read_plan
from planloom.planner.syntax.readable_part import more_problems, readable_part
from planloom.yaml_documents import Document, DocumentError, read_document_text

NO_WORKER = "a worker cannot start here"


def read_text(source: str) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no file {source}") from None
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        message = f"{source} is not a text in UTF-8 (byte {error.start + 1:,})"
        raise UsageError(message, hint="Save it as UTF-8, and try again.") from None


def read_document(source: str) -> Any:
    """A YAML or JSON document from a file, or from standard input for `-`.

    Raises:
        UsageError: the file cannot be read, or is neither.
    """
    return read_with_lines(source).value


def read_with_lines(source: str) -> Document:
    """The same, knowing where each part stands. Numbers that look like texts are warned of.

    Raises:
        UsageError: the file cannot be read, or is neither.
    """
    text = read_text(source)
    if len(text) > PLAN_FILE_MAX_BYTES:
        raise UsageError(
            f"{source} has {len(text):,} bytes; a plan has at most {PLAN_FILE_MAX_BYTES:,}",
            hint="Put large values in files, and read them with a tool.",
        )
    try:
        return read_document_text(text)
    except DocumentError as error:
        at = f"{source}:{error.line}" if error.line else source
        message = f"{at}: cannot be read as YAML or JSON: {error.message}"
        raise UsageError(message, hint=error.hint) from None


def yaml_text(document: Any) -> str:
    """A document as YAML, in the order of its fields."""
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text.rstrip()


def read_object(source: str) -> dict[str, Any]:
    """A document that is an object, with its fields.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    document = read_document(source)
    if not isinstance(document, dict):
        shown = "nothing" if document is None else json.dumps(document, default=str)[:40]
        raise UsageError(f"{source}: needs an object with fields, found {shown}")
    return document


def plan_from(source: str) -> Plan:
    """A plan from a file.

    Raises:
        UsageError: with all problems of the plan.
    """
    document = read_with_lines(source)
    plan, problems = read_plan(document.value, limit=PLAN_FILE_MAX_BYTES)
    if plan is None:
        raise UsageError(f"{source} is not a valid plan", _with_lines(problems, document))
    return plan


def compiled_from(source: str) -> tuple[Plan, Compiled]:
    """A plan from a file, compiled for the tools of a worker started here.

    Raises:
        UsageError: with all problems at once: those of the document, and those of the compiler.
    """
    document = read_with_lines(source)
    plan, problems = read_plan(document.value, limit=PLAN_FILE_MAX_BYTES)
    if plan is None:
        part = readable_part(document.value)
        if part is not None:
            found = compile_plan(part[0], local_catalog(part[0])).problems
            problems = more_problems([*problems, *part[2]], found, part[1])
        raise UsageError(
            _too_many(source, problems), _with_lines(problems, document), _tools_hint(problems)
        )
    catalog = local_catalog(plan)
    compiled = compile_plan(plan, catalog, model=catalog.models.get("worker") or None)
    if compiled.problems:
        problems = _with_lines(compiled.problems, document)
        raise UsageError(_too_many(source, problems), problems, _tools_hint(problems))
    if document.warnings:
        compiled = replace(compiled, warnings=[*document.warnings, *compiled.warnings])
    return plan, compiled


def _tools_hint(problems: list[Problem]) -> str:
    """Where your own tools come from, when some are missing and none were named."""
    unknown = [p for p in problems if p.code == "unknown_tool"]
    if os.environ.get("PLANLOOM_TOOLS") or all(p.hint.startswith("Did you mean") for p in unknown):
        return ""
    return (
        "PLANLOOM_TOOLS is not set: it names the modules of your own tools, here and for workers."
    )


def _too_many(source: str, problems: list[Problem]) -> str:
    return f"{source}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"


def _with_lines(problems: list[Problem], document: Document) -> list[Problem]:
    """The problems in the order of the file, each with its line."""
    placed = [
        _as_written(p, document).model_copy(update={"line_number": document.line_of(p.path)})
        for p in problems
    ]
    return sorted(placed, key=lambda p: p.line_number or 0)


def _as_written(problem: Problem, document: Document) -> Problem:
    """A number where a text is needed, as the file has it: `3.10`, which is read as 3.1."""
    written = document.number_at(problem.path)
    needs_text = problem.message.startswith(("needs text, found", "needs string, found"))
    if not written or not needs_text:
        return problem
    message = f"needs text, found the number {written}"
    return problem.model_copy(
        update={"message": message, "hint": f'Write it in quotes: "{written}".'}
    )


def settings_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the settings file is, or would be."""
    return Path(environment.get("PLANLOOM_CONFIG") or "planloom.toml")


def settings_document(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The settings file as it stands; empty where there is none.

    Raises:
        SettingsError: it cannot be read, or PLANLOOM_CONFIG names a file that is not there.
    """
    path = settings_file(environment)
    if not path.is_file():
        if environment.get("PLANLOOM_CONFIG"):
            raise SettingsError.of(str(path), "no such file (named by PLANLOOM_CONFIG)")
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError.of(str(path), str(error)) from None


def settings_now(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the environment and `planloom.toml`.

    Raises:
        SettingsError: with every problem found.
    """
    return settings_from(environment, settings_document(environment))


def tool_specs_now() -> list[ToolSpec]:
    """The tools that a worker started here would have, user modules included.

    Raises:
        UsageError: a tool module cannot be loaded.
    """
    return [ToolSpec.model_validate(spec) for spec in _ask_worker("--list-tools")]


def definitions_now(files: Sequence[tuple[str, str]] = ()) -> list[dict[str, Any]]:
    """The agents and teams that a worker started here would know, with what is wrong with them.

    With `files`, (kind, path) each, only those.

    Raises:
        UsageError: a tool module cannot be loaded.
    """
    named = [word for kind, file in files for word in ("--definition", kind, file)]
    definitions: list[dict[str, Any]] = _ask_worker("--list-definitions", *named)
    return definitions


def models_now(*, probe: bool = False) -> list[dict[str, Any]]:
    """The pools that a worker here would have, and what is known of their models; with `probe`
    each is asked.

    Raises:
        UsageError: a worker cannot start here.
    """
    rows: list[dict[str, Any]] = _ask_worker("--models", *(["--probe"] if probe else []))
    return rows


def check_now() -> list[Finding]:
    """What a worker started here finds out about itself, for `planloom doctor`.

    Raises:
        UsageError: a worker cannot start here.
    """
    return [Finding.model_validate(each) for each in _ask_worker("--check")]


def collect_now(job: GarbageJob) -> GarbageReport:
    """What a worker started here removes from its store, or would remove.

    Raises:
        UsageError: it removed nothing, with the reason.
    """
    try:
        return GarbageReport.model_validate(_ask_worker("--collect", job.model_dump_json()))
    except UsageError as error:
        reason = str(error).removeprefix(f"{NO_WORKER}: ")
        raise UsageError(f"nothing was removed: {reason}") from None


def _ask_worker(flag: str, *more: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "planloom.worker", flag, *more, "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=os.getcwd(),
    )
    if done.returncode:
        message = done.stderr.strip().removeprefix("error: ")
        raise UsageError(f"{NO_WORKER}: {message[-600:]}")
    for line in done.stderr.splitlines():
        if line.startswith("warning: "):
            print(line, file=sys.stderr)
    return json.loads(done.stdout)


def local_catalog(plan: Plan) -> Catalog:
    """What a run would know of a worker started here: tools and how long they take, prices.

    Names of agents and teams are trusted.
    """
    job = prepare_job(RunRequest(plan=plan))
    catalog = Catalog.model_validate(_ask_worker("--catalog", job.model_dump_json()))
    names = _names(plan)
    return catalog.model_copy(
        update={
            "agents": dict.fromkeys(names["agent"], ""),
            "teams": dict.fromkeys(names["team"], ""),
            "template_names": [*catalog.template_names, *names["plan"]],
        }
    )


def unpriced_models(request: RunRequest, plan: Plan | None) -> list[str]:
    """The models that a run would ask and whose price a worker started here does not know.

    Raises:
        UsageError: a worker cannot start here.
    """
    bodies = [b for t in plan.tasks for b in t.bodies] if plan is not None else []
    asks = any(b.kind in ("ask", "agent", "team", "plan") or b.tool == "ask" for b in bodies)
    if plan is not None and not asks:
        return []
    roles: list[Role] = ["worker"] if plan is not None else ["planner", "joiner", "worker"]
    job = prepare_job(request)
    catalog = Catalog.model_validate(_ask_worker("--catalog", job.model_dump_json()))
    models = [*job.models, *(request.model_for(r) or catalog.models.get(r) for r in roles)]
    return [m for m in dict.fromkeys(models) if m and m not in catalog.prices]


def _names(plan: Plan) -> dict[str, list[str]]:
    by_kind: dict[str, list[str]] = {"agent": [], "team": [], "plan": []}
    for task in plan.tasks:
        for body in task.bodies:
            for kind, names in by_kind.items():
                named = getattr(body, kind)
                if isinstance(named, str):
                    names.append(named)
        if isinstance(task.plan, Plan):
            for kind, names in _names(task.plan).items():
                by_kind[kind] += names
    return by_kind


def _template_files() -> tuple[list[Path], list[Path]]:
    """Template files, those that win first: the user's and those that ship; the workspace's."""
    from planloom import planner

    workspace = Path(os.environ.get("PLANLOOM_WORKSPACE", "."))
    shipped = Path(planner.__file__).parent / "library" / "templates"
    user = Path(platformdirs.user_config_dir("planloom")) / "templates"
    return _files_in(user) + _files_in(shipped), _files_in(workspace / ".planloom" / "templates")


def _files_in(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml"), *folder.glob("*.json")])


def templates_now() -> dict[str, tuple[Path, Plan | None, list[Problem]]]:
    """All templates by name: file, plan, problems. The first file that has a name wins."""
    by_name: dict[str, tuple[Path, Plan | None, list[Problem]]] = {}
    trusted, others = _template_files()
    for path in trusted + others:
        if path.stem in by_name:
            continue
        try:
            plan, problems = read_plan(read_document(str(path)))
            problems += check_template(plan) if plan is not None else []
        except UsageError as error:  # one broken file hides no other
            plan, problems = None, [Problem(path=str(path), code="bad", message=str(error))]
        by_name[path.stem] = (path, plan, problems)
    return by_name


def unused_templates() -> list[Problem]:
    """Templates of the workspace whose name is taken, and by which file."""
    trusted, others = _template_files()
    taken: dict[str, Path] = {}
    for path in trusted + others:
        taken.setdefault(path.stem, path)
    return [
        name_taken("template", path.stem, unused=str(path), used=str(taken[path.stem]))
        for path in others
        if taken[path.stem] != path
    ]

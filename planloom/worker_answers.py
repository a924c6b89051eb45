"""What a worker program prints when it is asked something in place of serving."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from planloom.activities.definitions import Definitions, read_definition
from planloom.activities.models.client import ModelClient
from planloom.activities.models.prices import Prices
from planloom.activities.models.probe import known_models
from planloom.activities.models.quirks import FILE as QUIRKS_FILE
from planloom.activities.models.quirks import read_rows
from planloom.activities.prepare import PrepareActivities
from planloom.activities.self_check import check_files, check_folders, check_pools, check_store
from planloom.activities.template_files import TemplateFiles, template_folders
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.times import ToolTimes
from planloom.collecting import NotCollected, collect_garbage
from planloom.keys import key_ring
from planloom.planner.contract.findings import Finding
from planloom.planner.contract.garbage import GarbageJob
from planloom.planner.contract.jobs import PrepareJob
from planloom.planner.contract.settings import Settings, key_problem
from planloom.planner.language.values import Problem
from planloom.store import open_blobs


def _list_tools(registry: ToolRegistry) -> None:
    for warning in registry.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps([spec.model_dump(mode="json") for spec in registry.specs], indent=2))


def _print_catalog(settings: Settings, registry: ToolRegistry, job: PrepareJob) -> None:
    """What a run of such a plan would know of a worker here: tools, their times, prices."""
    prepare = PrepareActivities(
        registry,
        settings,
        Prices(settings),
        search_attributes=list,
        tool_seconds=ToolTimes(Path(settings.data_dir) / "tool_times.json").likely,
    )
    print(prepare.catalog(job).model_dump_json())


def _list_definitions(settings: Settings, files: Sequence[tuple[str, str]]) -> None:
    definitions = Definitions(Path(settings.workspace).resolve())
    definitions_read = [(kind, read_definition(Path(file), kind)) for kind, file in files] or [
        (kind, each)
        for kind in ("agent", "team")
        for each in [*definitions.all(kind).values(), *definitions.unused(kind)]
    ]
    rows = [
        {
            "kind": kind,
            "name": each.name,
            "file": str(each.path),
            "description": each.description,
            "problems": [p.model_dump() for p in each.problems],
            "warnings": each.warnings,
            "definition": each.spec.model_dump(mode="json", exclude_unset=True)
            if each.spec
            else None,
        }
        for kind, each in definitions_read
    ]
    print(json.dumps(rows, indent=2))


def key_problems(settings: Settings) -> list[Problem]:
    problems = [key_problem(name, pool, os.environ) for name, pool in settings.pools.items()]
    return [problem for problem in problems if problem is not None]


def unused_files(settings: Settings) -> list[Problem]:
    """Definitions and templates of the workspace that are not used: their names are taken."""
    workspace = Path(settings.workspace).resolve()
    definitions = Definitions(workspace)
    unused = [*definitions.unused("agent"), *definitions.unused("team")]
    return [each.problems[-1] for each in unused] + TemplateFiles(
        template_folders(workspace), workspace
    ).unused()


async def _print_models(settings: Settings, is_probe: bool) -> None:
    """What is known of the pools' models; with a probe, what they answer now."""
    path = Path(settings.data_dir) / QUIRKS_FILE
    client = ModelClient(settings, os.environ, Prices(settings), quirks_file=path)
    try:
        rows = await known_models(client, list(settings.pools), read_rows(path), is_probe=is_probe)
    finally:
        await client.close()
    print(json.dumps(rows))


async def _print_check(settings: Settings, registry: ToolRegistry) -> None:
    """What this worker finds out about itself."""
    tools = f"{len(registry.names)}: {', '.join(registry.names)}"
    findings = [Finding(check="tools", level="ok", message=tools)]
    findings += [
        Finding(check="tools", level="warn", message=w, hint="Add a docstring and types.")
        for w in registry.warnings()
    ]
    findings += check_folders(settings)
    findings += [
        Finding(check="keys", level="fail", message=p.message, hint=p.hint)
        for p in key_problems(settings)
    ]
    findings.append(check_store(open_blobs(settings, key_ring(settings)).backend))
    findings += check_files(unused_files(settings))
    findings += await check_pools(settings, os.environ)
    print(json.dumps([finding.model_dump() for finding in findings]))


def was_asked(given: argparse.Namespace, settings: Settings, registry: ToolRegistry) -> bool:
    """Whether only something was to be printed; it is."""
    if given.list_definitions:
        _list_definitions(settings, [(k, f) for k, f in given.definition or []])
    elif given.list_tools:
        _list_tools(registry)
    elif given.models:
        asyncio.run(_print_models(settings, given.probe))
    elif given.check:
        asyncio.run(_print_check(settings, registry))
    elif given.catalog:
        _print_catalog(settings, registry, PrepareJob.model_validate_json(given.catalog))
    elif given.collect:
        job = GarbageJob.model_validate_json(given.collect)
        try:
            print(asyncio.run(collect_garbage(settings, job)).model_dump_json())
        except NotCollected as error:
            raise SystemExit(f"error: {error}") from None
    else:
        return False
    return True

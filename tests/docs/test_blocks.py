"""Every code block of the docs is run or checked, or says why not."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from planloom import worker
from planloom.activities.definitions import Definitions, read_definition
from planloom.console.evaluation import read_set
from planloom.planner.compile.pipeline import compile_plan
from planloom.planner.contract.jobs import PrepareJob
from planloom.planner.contract.prepare import prepare_job
from planloom.planner.contract.requests import AgentRequest, RunRequest, TeamRequest
from planloom.planner.contract.settings import Settings
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.conditions import readable_condition
from planloom.planner.syntax.documents import read_plan
from tests.docs.pages import CHECKOUT, PAGES, Block, all_blocks, blocks_of

CHECKED = {"bash", "python", "yaml", "toml", "json", "markdown"}
"""`bash` and `python` run in test_pages.py; the others are read here."""
SHOWN = {"text"}
"""Output, and files of other programs."""


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            assert block.language in CHECKED | SHOWN, block
            assert not block.note.startswith("not run") or len(block.why_not_run) > 10, block


@pytest.mark.parametrize("block", all_blocks("toml"), ids=str)
def test_a_settings_file_can_be_used(block: Block) -> None:
    Settings.model_validate(tomllib.loads(block.text))


@pytest.mark.parametrize("block", all_blocks("json"), ids=str)
def test_a_json_block_can_be_read(block: Block) -> None:
    document = json.loads(block.text)
    if "team" in document:
        TeamRequest.model_validate(document)
    elif "agent" in document:
        AgentRequest.model_validate(document)
    elif "mcpServers" in document:  # settings of another program
        assert all(s["command"] or s["url"] for s in document["mcpServers"].values())
    elif {"goal", "plan", "template"} & set(document):
        RunRequest.model_validate(document)
    else:
        assert {"time", "level", "message"} <= set(document), "a log line, or a request"


@pytest.mark.parametrize("block", all_blocks("yaml"), ids=str)
def test_a_yaml_block_is_a_plan_that_compiles_or_a_set_of_goals(block: Block) -> None:
    if conditions := re.findall(r"^when: (\S.*)$", block.text, re.M):  # several, each by itself
        for each in conditions:
            readable_condition(yaml.safe_load(each))
        return
    document = yaml.safe_load(block.text)
    if "goals" in document:
        read_set(document, str(block))
        return
    plan, problems = read_plan(document)
    assert plan is not None, problems
    catalog = _catalog(prepare_job(RunRequest(plan=plan)))
    problems = list(compile_plan(plan, catalog).problems)
    if block.page.name == "mcp.md":  # its tools come from a server: tests/mcp/test_mcp_tools.py
        problems = [p for p in problems if p.code != "unknown_tool"]
    assert problems == []


def _catalog(job: PrepareJob) -> Catalog:
    """What a worker without own tools offers."""
    settings = worker.read_settings({})
    definitions = Definitions(Path.cwd())
    prepare = worker.PrepareActivities(
        worker.tools_from(settings),
        settings,
        worker.Prices(settings),
        search_attributes=list,
        agents=lambda: definitions.descriptions("agent"),
        teams=lambda: definitions.descriptions("team"),
    )
    return prepare.catalog(job)


@pytest.mark.parametrize("block", all_blocks("markdown"), ids=str)
def test_a_definition_can_be_read(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "reviewer.md"
    file.write_text(block.text, encoding="utf-8")
    assert read_definition(file, "agent").problems == []


def test_a_block_that_is_not_run_names_a_test_that_exists() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            for path in re.findall(r"tests/[\w/]+\.py", block.note):
                assert (CHECKOUT / path).is_file(), block

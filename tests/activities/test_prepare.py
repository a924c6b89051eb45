"""`prepare_run`: what a run must know, no more, at once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from planloom.activities.models.prices import Prices
from planloom.activities.prepare import PrepareActivities
from planloom.activities.template_files import TemplateFiles, names_used_in, template_folders
from planloom.activities.tools.builtin import builtin_registry
from planloom.planner.contract.jobs import PrepareJob
from planloom.planner.contract.settings import PoolSettings, Price, Settings
from planloom.planner.language.catalog import Catalog
from tests.activities.test_definitions import DOUBLING

TEMPLATE = """
version: 1
params: {topic: {type: string}}
tasks:
  - id: a
    tool: http_get
    args: {url: "${params.topic}"}
    fallback: {tool: read_file, args: {path: x}}
  - id: b
    plan: inner
  - id: c
    ask: {prompt: hi, model: gpt-4o-mini}
  - id: d
    agent: scout
"""


@pytest.fixture
def prepare(tmp_path: Path) -> PrepareActivities:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "outer.yaml").write_text(TEMPLATE)
    (folder / "inner.yml").write_text("{version: 1, tasks: [{id: z, tool: list_files}]}")
    (folder / "broken.yaml").write_text("a: [")
    settings = Settings(
        model="gpt-4o",
        models={"planner": "big", "worker": "small"},
        prices={"big": Price(input_usd_per_million=1, output_usd_per_million=2)},
        pools={
            "default": PoolSettings(),
            "local": PoolSettings(models=["small"], requests_per_minute=60, fallback="default"),
        },
    )
    return PrepareActivities(
        builtin_registry(),
        settings,
        Prices(settings),
        search_attributes=lambda: ["PlanloomStatus"],
        tool_seconds=lambda: {"http_get": 0.5, "gone": 1.0},
        agents=lambda: {"scout": "finds things\nlong text"},
        disabled=lambda kind: [f"{kind}-off"],
        templates=TemplateFiles([tmp_path / "none", folder]),
    )


def test_a_plan_gets_only_the_tools_it_names_and_all_names(prepare: PrepareActivities) -> None:
    catalog = prepare.catalog(PrepareJob(tools=["http_get", "serch"]))
    assert [t.name for t in catalog.tools] == ["ask", "http_get"]
    assert "calculate" in catalog.tool_names
    assert catalog.tool_seconds == {"http_get": 0.5}
    assert all(not t.examples and "\n" not in t.description for t in catalog.tools)
    assert len(catalog.model_dump_json()) < 5_000


def test_a_goal_gets_all_that_the_allow_list_leaves(prepare: PrepareActivities) -> None:
    everything = prepare.catalog(PrepareJob(is_goal=True))
    assert [t.name for t in everything.tools] == everything.tool_names
    allowed = prepare.catalog(PrepareJob(is_goal=True, allow=["calculate"]))
    assert [t.name for t in allowed.tools] == ["ask", "calculate"]
    plan = prepare.catalog(PrepareJob(tools=["http_get"], allow=["calculate"]))
    assert [t.name for t in plan.tools] == ["ask"]


def test_who_names_agents_learns_which_are_switched_off(prepare: PrepareActivities) -> None:
    named = prepare.catalog(PrepareJob(agents=["scout"]))
    assert (named.agents, named.disabled_agents) == ({"scout": "finds things"}, ["agent-off"])
    assert (named.teams, named.disabled_teams) == ({}, [])
    assert prepare.catalog(PrepareJob()).disabled_agents == []


def test_templates_come_with_those_they_name_and_their_tools(prepare: PrepareActivities) -> None:
    catalog = prepare.catalog(PrepareJob(templates=["outer", "absent"]))
    assert sorted(catalog.templates) == ["inner", "outer"]
    assert {t.name for t in catalog.tools} == {"ask", "http_get", "read_file", "list_files"}
    assert "gpt-4o-mini" in catalog.prices
    assert catalog.template_names == ["broken", "inner", "outer"]
    broken: Any = prepare.catalog(PrepareJob(templates=["broken"])).templates["broken"]
    assert "cannot be read" in broken


def test_a_template_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    files = TemplateFiles([tmp_path])
    (tmp_path / "t.yaml").write_text("a: 1")
    assert files.load("t") == {"a": 1}
    time.sleep(0.01)
    (tmp_path / "t.yaml").write_text("a: 2")
    assert files.load("t") == {"a": 2}
    assert files.load("../t") is None


def test_models_pools_and_prices(prepare: PrepareActivities) -> None:
    catalog = prepare.catalog(PrepareJob(models=["gpt-4o-mini", "unheard-of"]))
    assert catalog.models == {
        "planner": "big",
        "joiner": "small",
        "judge": "small",
        "worker": "small",
    }
    assert catalog.prices == {"big": (1_000, 2_000), "gpt-4o-mini": (150, 600)}
    pools = {p.name: p for p in catalog.pools}
    assert pools["local"].task_queue == "planloom-llm-local"
    assert pools["local"].fallback == "default"
    assert (pools["local"].is_metered, pools["default"].is_metered) == (True, False)
    assert catalog.search_attributes == ["PlanloomStatus"]
    assert catalog.agents == {}  # this plan names none
    assert prepare.catalog(PrepareJob(agents=["scout"])).agents == {"scout": "finds things"}
    assert prepare.catalog(PrepareJob(is_goal=True)).agents == {"scout": "finds things"}


def test_what_a_document_names_is_found_wherever_it_stands() -> None:
    named = names_used_in(
        {"tasks": [{"plan": {"tasks": [{"fallback": {"tool": "x"}}, {"team": "t"}]}}], "tool": "y"}
    )
    assert sorted(named.tools) == ["x", "y"]
    assert named.teams == ["t"]


async def test_it_takes_a_few_milliseconds(prepare: PrepareActivities) -> None:
    job = PrepareJob(is_goal=True, templates=["outer"])
    await ActivityEnvironment().run(prepare.prepare_run, job)
    began = time.process_time()
    for _ in range(20):
        await ActivityEnvironment().run(prepare.prepare_run, job)
    assert (time.process_time() - began) / 20 < 0.02


def test_a_template_of_the_workspace_never_replaces_one_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_config_dir", lambda _: str(tmp_path / "config"))
    own = tmp_path / ".planloom" / "templates"
    own.mkdir(parents=True)
    for name in ("research-brief", "mine"):
        (own / f"{name}.yaml").write_text("tasks: [{id: a, ask: hi}]\n")
    files = TemplateFiles(template_folders(tmp_path))
    assert files.paths()["mine"].parent == own
    assert files.paths()["research-brief"].parent != own
    (problem,) = files.unused()
    assert f"{own / 'research-brief.yaml'}" in problem.line()
    assert 'not used: the template "research-brief" is' in problem.line()
    users = tmp_path / "config" / "templates"
    users.mkdir(parents=True)
    (users / "research-brief.yaml").write_text("tasks: [{id: b, ask: hi}]\n")
    assert files.paths()["research-brief"].parent == users


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DOUBLING, "aliases stand for more than"),
        ("a: &a {b: *a}", "inside itself"),
        ("\0", "special characters"),
        ("a: !!set {x}", "constructor"),
        ("a: !!binary YQ==", "constructor"),
        ('{"a": ' + "[" * 5_000, "recursion"),
        ("tasks: 1" + " " * 1_000_000, "is larger than"),
    ],
)
def test_a_template_of_others_is_refused_and_never_stands_for_more_than_it_is(
    tmp_path: Path, text: str, said: str
) -> None:
    """Found: forty lines stood for 2^40 values, and were walked in the worker's event loop."""
    (tmp_path / "t.yaml").write_text(text)
    catalog = Catalog(templates=TemplateFiles([tmp_path]).load_with_named(["t"]))
    assert said in str(catalog.templates["t"])
    catalog.model_dump_json()


def test_names_and_words_of_templates_reach_every_payload(tmp_path: Path) -> None:
    """Found: a file called `\\xff.yaml` failed every run of the worker."""
    (tmp_path / "t.yaml").write_text('{1: "\\ud83d", true: x, "\\udc00": y}')
    os.link(tmp_path / "t.yaml", os.fsencode(tmp_path) + b"/\xff.yaml")
    files = TemplateFiles([tmp_path])
    assert files.names() == ["t"]
    assert files.load("t") == {"1": "\ufffd", "true": "x", "\ufffd": "y"}


def test_a_template_that_is_a_link_out_of_the_workspace_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "workspace" / ".planloom" / "templates"
    folder.mkdir(parents=True)
    (tmp_path / "secret.yaml").write_text("canary: 1")
    (folder / "t.yaml").symlink_to(tmp_path / "secret.yaml")
    files = TemplateFiles(template_folders(tmp_path / "workspace"), tmp_path / "workspace")
    assert str(files.load("t")).endswith("is a link that leads out of the workspace")

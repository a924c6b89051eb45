"""Every example runs without a key, as its page says; the notebook from first cell to last."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from planloom import Graph, local
from planloom.planner.compile.pipeline import compile_plan
from planloom.planner.language.catalog import Catalog
from planloom.planner.syntax.documents import read_plan
from planloom.yaml_documents import read_document_text
from tests.model_server import ModelServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(p.parent.name for p in EXAMPLES.glob("*/example.py"))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ex_{name}", EXAMPLES / name / "example.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_there_are_five_and_the_page_names_each() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert len(NAMES) == 5
    assert all(f"({name}/example.py)" in page for name in NAMES)
    assert (EXAMPLES / "first_steps.ipynb").name in page


def test_the_research_report_cites_documents_that_measured() -> None:
    result = example("research_report").main([])
    assert result.status == "completed"
    assert "of 10 documents" in result.answer or "documents say most" in result.answer
    cited = [line for line in result.answer.splitlines() if line.startswith("> (decisions/")]
    assert len(cited) == 6
    assert "easured" in result.answer


def test_the_analysis_comes_to_the_figures_of_the_data() -> None:
    answer = example("data_analysis").main([]).answer
    seasons = {row["season"]: row for row in answer["seasons"]}
    assert sum(row["days"] for row in seasons.values()) == 1461
    assert next(iter(seasons)) == "winter"
    assert list(seasons)[-1] == "summer"
    assert [row["year"] for row in answer["summers"]] == [2012, 2013, 2014, 2015]
    first, last = answer["summers"][0]["celsius"], answer["summers"][-1]["celsius"]
    assert answer["warmer_by"] == round(last - first, 2)
    assert answer["snow"] == [{"days": 23}]


@pytest.mark.slow
@pytest.mark.timeout(400)  # thousands of items take a minute on a busy machine
def test_the_extraction_covers_thousands_of_functions() -> None:
    result = example("extraction_map").main([])
    assert result.status == "completed"
    assert result.answer["functions"] > 2000
    assert result.answer["failed"] == 0
    assert result.tasks["facts"].items == {"succeeded": result.answer["functions"]}


def test_the_team_looks_with_its_tools_and_hears_each_other(tmp_path: Path) -> None:
    module = example("repository_review")
    if not (module.CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    result = module.main([])
    assert result.status == "completed", result.reason
    for member, tool in module.OWN_TOOL.items():
        assert f"## {member}" in result.answer
        assert f"found by the tool {tool}" in result.answer
    assert result.usage.tool_calls == 3


@pytest.mark.parametrize("is_yes", [True, False])
async def test_nothing_is_changed_before_a_person_has_approved(
    tmp_path: Path, is_yes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("approved_change")
    workspace = tmp_path / "documents"
    shutil.copytree(module.DOCUMENTS, workspace)
    before = {p.name: p.read_text() for p in workspace.iterdir()}
    shown: list[str] = []

    def ask(wait: Any) -> bool:
        assert shown, "the difference is shown before anybody is asked"
        assert {p.name: p.read_text() for p in workspace.iterdir()} == before
        return is_yes

    monkeypatch.setattr(module, "ask", ask)
    result = await module.change(workspace, [], shown.append)
    after = {p.name: p.read_text() for p in workspace.iterdir()}
    changed = [name for name in before if before[name] != after[name]]
    assert "+# Garbage collection in a runner" in shown[0]
    assert bool(changed) is is_yes
    if is_yes:
        assert sorted(changed) == sorted(result.answer["changed"])
    else:
        assert result.tasks["apply"].outcome != "succeeded"


@pytest.mark.parametrize("name", NAMES)
def test_each_plan_is_valid_for_its_tools(name: str) -> None:
    module = example(name)
    text = (EXAMPLES / name / "plan.yaml").read_text(encoding="utf-8")
    plan, problems = read_plan(read_document_text(text).value)
    assert plan is not None, problems
    parts = local.LocalParts([*getattr(module, "TOOLS", [])])
    specs = parts.registry.specs
    catalog = Catalog(tools=specs, tool_names=[s.name for s in specs])
    assert compile_plan(plan, catalog).problems == []
    assert "<svg" in Graph(plan).svg


@pytest.mark.parametrize("name", NAMES)
def test_the_goal_form_asks_a_planner_with_the_examples_tools(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example(name)
    with ModelServer() as model:
        model.script("Write the plan", 'a = calculate(expression="6 * 7")\njoin(a)')
        model.script("decide whether", '{"action": "finish", "answer": "done"}')
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        monkeypatch.setenv("PLANLOOM_MODEL", "test-model")
        result = module.main(["--goal", "--yes"])
        asked = model.seen("Write the plan")[0].text
    assert (result.status, result.answer) == ("completed", "done")
    for tool in getattr(module, "TOOLS", []):
        assert f"{tool.spec.name}(" in asked


async def test_the_notebook_runs_from_its_first_cell_to_its_last() -> None:
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "notebook"}
    shown: list[Any] = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        tree = ast.parse("".join(cell["source"]))
        last = tree.body[-1]
        if isinstance(last, ast.Expr):  # a notebook shows it
            tree.body[-1] = ast.Assign([ast.Name("_shown", ast.Store())], last.value)
            ast.fix_missing_locations(tree)
        code = compile(tree, "notebook", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, names)
        if inspect.isawaitable(done):
            await done
        shown.append(names.pop("_shown", None))
    graphs = [each for each in shown if isinstance(each, Graph)]
    assert len(graphs) == 2
    assert "pl-fallback" in graphs[1].svg
    assert "573.6 euros" in shown
    assert [5.0, 10.0, 15.0] in shown

"""The command line as a person types it, against a real server and a real worker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks_of
from tests.model_server import Reply
from tests.support.harness import Planloom
from tests.support.tools import SOURCE

CHECKOUT = Path(__file__).resolve().parents[2]
PLAN = """
tasks:
  - {id: a, tool: calculate, args: {expression: 6 * 7}}
  - {id: b, tool: calculate, args: {expression: "${a} + 1"}}
answer: "the answer is ${b}"
"""


@dataclass
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


async def planloom_cli(planloom: Planloom, *arguments: str, **env: str) -> Done:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "planloom.cli",
        *arguments,
        cwd=planloom.folder,
        env={**os.environ, **planloom.env, "COLUMNS": "120", "NO_COLOR": "1", "EDITOR": "", **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Done(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
def plan_file(planloom: Planloom) -> str:
    (planloom.folder / "plan.yaml").write_text(PLAN)
    return "plan.yaml"


async def test_run_follows_a_plan_and_prints_its_answer(planloom: Planloom, plan_file: str) -> None:
    async with planloom.worker():
        done = await planloom_cli(planloom, "run", "--plan", plan_file, "--id", "cli-run-1")
        again = await planloom_cli(planloom, "result", "cli-run-1", "--json")
        graph = await planloom_cli(planloom, "plan", "graph", "cli-run-1")
        shown = await planloom_cli(planloom, "plan", "show", "cli-run-1")
        saved = await planloom_cli(planloom, "plan", "save", "cli-run-1", "saved.yaml")
        redo = await planloom_cli(planloom, "run", "--plan", "saved.yaml", "--json")
    assert (done.code, done.out.strip()) == (0, "the answer is 43"), done
    assert "critical path" in done.err
    assert json.loads(again.out)["status"] == "completed"
    assert "✓ b" in graph.out
    assert "expression: 6 * 7" in shown.out
    assert saved.code == 0
    assert json.loads(redo.out)["answer"] == "the answer is 43"


async def test_a_bad_plan_is_refused_before_anything_starts(planloom: Planloom) -> None:
    (planloom.folder / "bad.yaml").write_text(
        "tasks:\n  - {id: a, tool: calcluate, args: {expression: '1'}}\n"
        "  - {id: b, tool: calculate, args: {expresion: '${z}'}}\n"
    )
    done = await planloom_cli(planloom, "run", "--plan", "bad.yaml")
    assert done.code == 2
    assert 'Did you mean "calculate"' in done.err
    assert 'Did you mean "expression"' in done.err
    assert 'no task "z"' in done.err
    checked = await planloom_cli(planloom, "plan", "check", "bad.yaml", "--json")
    assert checked.code == 2
    problems = json.loads(checked.out)["problems"]
    assert len(problems) >= 4
    assert {p["line_number"] for p in problems} == {2, 3}


async def test_problems_of_the_document_and_of_the_compiler_come_together(
    planloom: Planloom,
) -> None:
    (planloom.folder / "bad.yaml").write_text(
        "tasks:\n  - {id: a, tol: calculate}\n"
        "  - {id: b, tool: calcluate, args: {expression: '${a} + ${z}'}}\n"
        "  - id: c\n    tool: calculate\n    args: {expression: 3.10}\n"
    )
    done = await planloom_cli(planloom, "run", "--plan", "bad.yaml")
    assert done.code == 2
    assert 'line 2: tasks.a.tol: no field "tol". Did you mean "tool"?' in done.err
    assert 'line 3: tasks.b.tool: no tool "calcluate"' in done.err
    assert 'no task "z"' in done.err
    assert 'no task "a"' not in done.err  # it is there, though it cannot be read
    assert "line 6: tasks.c.args.expression: needs text, found the number 3.10" in done.err


async def test_an_error_is_an_object_where_json_is_asked_for(planloom: Planloom) -> None:
    nowhere = await planloom_cli(planloom, "result", "nowhere", "--json")
    misuse = await planloom_cli(planloom, "run", "--plan", "nowhere.yaml", "--json")
    away = await planloom_cli(planloom, "ps", "--json", TEMPORAL_ADDRESS="127.0.0.1:9")
    found = [json.loads(done.err)["error"] for done in (nowhere, misuse, away)]
    assert [e["code"] for e in found] == ["no_such_run", "misuse", "no_server"]
    assert "planloom dev" in found[2]["hint"]
    assert [done.code for done in (nowhere, misuse, away)] == [1, 2, 1]


async def test_a_dry_run_changes_nothing(planloom: Planloom, plan_file: str) -> None:
    ask = ("run", "--plan", plan_file, "--id", "dry", "--approval", "always")
    async with planloom.worker():
        before = await planloom_cli(planloom, *ask, "--dry-run", "--json")
        none = await planloom_cli(planloom, "progress", "dry")
        await planloom_cli(planloom, *ask, "--detach")
        approve = await planloom_cli(planloom, "approve", "dry", "--dry-run")
        wrong = await planloom_cli(planloom, "budget", "dry", "--tokens", "-1", "--dry-run")
        cancel = await planloom_cli(planloom, "cancel", "dry", "--dry-run")
        shown = json.loads((await planloom_cli(planloom, "progress", "dry", "--json")).out)
        gone = await planloom_cli(planloom, "cancel", "dry", "--yes", "--json")
        result = await planloom_cli(planloom, "result", "dry", "--json")
        late = await planloom_cli(planloom, "pause", "dry", "--dry-run")
    assert json.loads(before.out)["request"]["approval"] == "always"
    assert none.code == 1
    assert approve.out == 'would send approve_plan {"revision": 1} to dry\n'
    assert (wrong.code, "tokens" in wrong.err) == (2, True)
    assert (cancel.out, shown["awaiting"]) == ("would cancel dry\n", "approval")
    assert json.loads(gone.out)["accepted"]
    assert json.loads(result.out)["status"] == "cancelled"
    assert (late.code, "has ended" in late.err) == (1, True)


async def test_a_plan_is_edited_in_the_persons_editor(planloom: Planloom, plan_file: str) -> None:
    (planloom.folder / "editor.py").write_text(
        "import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n"
        "path.write_text(path.read_text().replace('6 * 7', '1 + 1'))\n"
    )
    editor = f"{sys.executable} editor.py"
    async with planloom.worker():
        await planloom_cli(
            planloom, "run", "--plan", plan_file, "--id", "ed", "--approval", "always", "--detach"
        )
        edited = await planloom_cli(planloom, "edit", "ed", EDITOR=editor, VISUAL="")
        same = await planloom_cli(planloom, "edit", "ed", EDITOR="true", VISUAL="")
        await planloom_cli(planloom, "approve", "ed")
        result = await planloom_cli(planloom, "result", "ed")
    assert edited.out.startswith("revision 2"), edited
    assert (same.code, "not changed" in same.err) == (2, True)
    assert result.out.strip() == "the answer is 3"


async def test_results_of_agents_and_teams_are_printed_by_their_kind(planloom: Planloom) -> None:
    planloom.model.script(
        "", "SUMMARY: s\nCLAIM: as you wish\nRESULT: as you wish\nNEXT_STEP: none"
    )
    (planloom.folder / "mine.md").write_text("---\nname: mine\ndescription: d\n---\nYou are mine.")
    (planloom.folder / "pair.yaml").write_text("id: pair\nmembers: [{id: one}, {id: two}]\n")
    async with planloom.worker():
        await planloom_cli(planloom, "agent", "run", "mine.md", "Look", "--id", "an-agent")
        await planloom_cli(planloom, "team", "run", "pair.yaml", "Talk", "--id", "a-team")
        agent = await planloom_cli(planloom, "result", "an-agent")
        team = await planloom_cli(planloom, "result", "a-team", "--json")
    assert (agent.code, "as you wish" in agent.out) == (0, True), agent
    assert set(json.loads(team.out)["members"]) == {"one", "two"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "nothing to run"),
        (("run", "x", "--template", "data-report"), "parameter"),
        (("run", "--template", "data-reprot"), 'Did you mean "data-report"'),
        (("run", "--plan", "nowhere.yaml"), "no file nowhere.yaml"),
        (("run", "x", "--budget-tokens", "-1"), "budget.tokens"),
        (("run", "x", "--approval", "maybe"), "approval"),
        (("blob", "zz"), "6 to 64 hexadecimal digits"),
        (("edit", "x"), "give --plan or --patch"),
        (("dev", "--port", "99999"), "a port is a number from 1 to 65,535"),
        (("dev", "--port", "65000"), "give --ui-port"),
        (("fork", "x"), "give --from"),
        (("run", "x", "--context", "@nowhere.md"), "no file nowhere.md"),
        (("run", "--request", "list.json"), "needs an object with fields, found [1, 2]"),
        (("run", "--request", "odd.json", "--budget-tokens", "9"), "budget: needs an object"),
        (
            ("team", "run", "bug-hunt", "Why?", "--strategy", "both"),
            "needs 'parallel' or 'sequential'",
        ),
        (("capacity", "set", "default"), "nothing to set"),
        (("capacity", "set", "default", "paralel=4"), 'Did you mean "parallel"?'),
        (("ps", "--status", "done"), "hint: One of: planning, waiting"),
        (("runn",), "Did you mean 'run'"),
        (("run", "x", "--budget-tokens", "many"), "hint: planloom run --help"),
        (("approve",), "Missing argument 'RUN'"),
    ],
)
async def test_misuse_is_one_line_a_hint_and_exit_2(
    planloom: Planloom, arguments: tuple[str, ...], said: str
) -> None:
    (planloom.folder / "list.json").write_text("[1, 2]")
    (planloom.folder / "odd.json").write_text('{"goal": "x", "budget": 3}')
    done = await planloom_cli(planloom, *arguments)
    assert done.code == 2, done
    assert said in done.err
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("odd.toml", "[pools", "odd.toml: "),
        ("odd.toml", None, "no such file (named by PLANLOOM_CONFIG)"),
        ("odd.toml", "modle = 1", "modle"),
    ],
)
async def test_a_settings_file_that_cannot_be_used_is_named(
    planloom: Planloom, name: str, text: str | None, said: str
) -> None:
    if text is not None:
        (planloom.folder / name).write_text(text)
    done = await planloom_cli(planloom, "ps", PLANLOOM_CONFIG=name)
    assert (done.code, said in done.err, "Traceback" in done.err) == (2, True, False), done


async def test_what_has_ended_is_not_said_to_be_cancelled_and_no_id_is_cut(
    planloom: Planloom, plan_file: str
) -> None:
    long = "a-run-with-an-id-that-is-longer-than-most-of-them-are"
    async with planloom.worker():
        assert (await planloom_cli(planloom, "run", "--plan", plan_file, "--id", long)).code == 0
        late = await planloom_cli(planloom, "cancel", long)
        refused = {"goal": "x", "tools": ["nothing"]}
        (planloom.folder / "refused.json").write_text(json.dumps(refused))
        await planloom_cli(planloom, "run", "--request", "refused.json", "--id", "refused")
        nowhere = await planloom_cli(planloom, "plan", "save", long, "no/such/folder.yaml")
    listed = await planloom_cli(planloom, "ps", COLUMNS="60")
    while listed.out.count("running"):  # the list is a little behind
        listed = await planloom_cli(planloom, "ps", COLUMNS="60")
    planning = await planloom_cli(planloom, "ps", "--status", "planning")
    assert (late.code, late.err) == (1, f'error: run "{long}" has ended\n')
    assert (nowhere.code, "cannot be written" in nowhere.err) == (2, True)
    assert re.search(rf"^{long} +completed +\d", listed.out, re.MULTILINE)
    assert re.search(r"^refused +failed +\d", listed.out, re.MULTILINE)
    assert "refused" not in planning.out


async def test_without_a_server_it_says_how_to_start_one(planloom: Planloom) -> None:
    done = await planloom_cli(planloom, "watch", "x", TEMPORAL_ADDRESS="127.0.0.1:9")
    assert done.code == 1
    assert "no Temporal server answers at 127.0.0.1:9" in done.err
    assert "planloom dev" in done.err


async def test_without_a_worker_it_says_so_instead_of_hanging(
    planloom: Planloom, plan_file: str
) -> None:
    done = await planloom_cli(planloom, "run", "--plan", plan_file)
    assert done.code == 1
    assert "no worker" in done.err
    assert "planloom-worker" in done.err


async def test_a_running_id_is_not_started_twice(planloom: Planloom) -> None:
    (planloom.folder / "wait.yaml").write_text('tasks: [{id: q, human: "Well?"}]')
    async with planloom.worker():
        first = await planloom_cli(
            planloom, "run", "--plan", "wait.yaml", "--id", "twice", "--detach"
        )
        second = await planloom_cli(planloom, "run", "--plan", "wait.yaml", "--id", "twice")
        answered = await planloom_cli(planloom, "complete", "twice", "q", '"well"', "--by", "ann")
        result = await planloom_cli(planloom, "result", "twice")
    assert (first.code, second.code) == (0, 2)
    assert 'run "twice" is already running' in second.err
    assert answered.code == 0
    assert json.loads(result.out) == {"q": "well"}


async def test_approval_edits_and_budget_by_command(planloom: Planloom, plan_file: str) -> None:
    (planloom.folder / "patch.json").write_text(
        '[{"op": "replace", "path": "/tasks/0/args/expression", "value": "1"}]'
    )
    start = ("run", "--plan", plan_file, "--id", "ruled", "--approval", "always", "--detach")
    async with planloom.worker():
        await planloom_cli(planloom, *start)
        edited = await planloom_cli(planloom, "edit", "ruled", "--patch", "patch.json")
        stale = await planloom_cli(planloom, "approve", "ruled", "--revision", "1")
        raised = await planloom_cli(planloom, "budget", "ruled", "--tokens", "5000")
        diff = await planloom_cli(planloom, "plan", "diff", "ruled")
        approved = await planloom_cli(planloom, "approve", "ruled", "--by", "ops")
        result = await planloom_cli(planloom, "result", "ruled")
        listed = await planloom_cli(planloom, "ps", "--json")
    assert edited.out.startswith("revision 2"), edited
    assert (stale.code, "was replaced by 2" in stale.err) == (1, True)
    assert "tokens 5000" in raised.out
    assert "~ a.args" in diff.out
    assert "approved" in approved.out
    assert result.out.strip() == "the answer is 2"
    assert any(row["id"] == "ruled" for row in json.loads(listed.out))


async def test_fork_reuses_what_is_upstream_and_rerun_what_succeeded(planloom: Planloom) -> None:
    count = planloom.folder / "calls.txt"
    env = {"PLANLOOM_TOOLS": planloom.tools(SOURCE), "COUNT_FILE": str(count)}
    os.environ["COUNT_FILE"] = str(count)
    (planloom.folder / "p.yaml").write_text(
        "tasks:\n  - {id: a, tool: nap, args: {name: a}}\n"
        '  - {id: b, tool: nap, args: {name: "${a}-b"}}\n'
        f"  - {{id: f, tool: flaky, args: {{path: {planloom.folder}/n, until: 2}}, "
        "retry: {max_attempts: 1}}\n"
    )
    async with planloom.worker(**env):
        first = await planloom_cli(planloom, "run", "--plan", "p.yaml", "--id", "one", **env)
        fork = ("fork", "one", "--from", "b", "--set", "b.args.name=new", "--json")
        forked = await planloom_cli(planloom, *fork, **env)
        again = await planloom_cli(planloom, "rerun", "one", "--failed", "--json", **env)
        wrong = await planloom_cli(planloom, "fork", "one", "--from", "bb", **env)
    assert first.code == 1
    rows = json.loads(forked.out)["tasks"]
    assert (rows["a"]["outcome"], rows["b"]["output"]) == ("cached", "new")
    rows = json.loads(again.out)["tasks"]
    # The fork ran `f` again too, as it had no value: that was its second call, this its third.
    assert (rows["a"]["outcome"], rows["f"]["output"]) == ("cached", 3)
    assert count.read_text().splitlines().count("start a") == 1
    assert (wrong.code, 'no task "bb"' in wrong.err) == (2, True)


async def test_tools_and_templates_are_listed_with_own_modules(planloom: Planloom) -> None:
    module = planloom.tools(SOURCE)
    tools = await planloom_cli(planloom, "tools", "--json", PLANLOOM_TOOLS=module)
    names = {t["name"] for t in json.loads(tools.out)}
    assert {"ask", "calculate", "query_sql", "http_get", "write_file", "nap"} <= names
    templates = await planloom_cli(planloom, "templates", "--json")
    found = json.loads(templates.out)
    assert len(found) >= 5
    assert all(not t["problems"] for t in found.values())


async def test_a_file_of_the_workspace_whose_name_is_taken_is_shown(planloom: Planloom) -> None:
    """It replaced the shipped one, and nothing said so."""
    own = planloom.workspace / ".planloom"
    for folder in ("agents", "templates"):
        (own / folder).mkdir(parents=True)
    (own / "agents" / "r.md").write_text("---\nname: researcher\ndescription: mine\n---\nObey.")
    (own / "templates" / "data-report.yaml").write_text("tasks: [{id: a, ask: Obey}]\n")
    listed = await planloom_cli(planloom, "agents")
    checked = await planloom_cli(planloom, "agents", "check")
    shown = await planloom_cli(planloom, "agents", "show", "researcher")
    for done in (listed, checked):
        assert done.code == 2
        assert 'not used: the agent "researcher" is' in done.err
        assert str(own / "agents" / "r.md") in done.err
    assert "Obey" not in shown.out
    templates = await planloom_cli(planloom, "templates", "--json")
    assert 'not used: the template "data-report" is' in templates.err
    assert "planner/library" in json.loads(templates.out)["data-report"]["file"]


async def test_plan_explain_shows_passes_and_estimate(planloom: Planloom, plan_file: str) -> None:
    for arguments in (("plan", "--explain", plan_file), ("plan", "check", plan_file, "--explain")):
        done = await planloom_cli(planloom, *arguments)
        assert done.code == 0, done
        assert "critical path: a -> b" in done.out
        assert "low / likely / worst" in done.out


async def test_explain_knows_prices_and_how_long_tools_took(planloom: Planloom) -> None:
    (planloom.folder / "p.yaml").write_text(
        'tasks:\n  - {id: a, tool: calculate, args: {expression: "1"}}\n'
        '  - {id: b, ask: "Explain ${a}"}\n'
    )
    (planloom.data_dir / "tool_times.json").write_text('{"calculate": 4.0}')
    known = {"PLANLOOM_MODEL": "gpt-4o-mini"}
    done = await planloom_cli(planloom, "plan", "check", "p.yaml", "--explain", **known)
    shown = json.loads(
        (await planloom_cli(planloom, "plan", "check", "p.yaml", "--json", **known)).out
    )
    assert "1 default, 1 history" in done.out
    assert "usd              0.0" in done.out
    assert shown["estimate"]["tasks"]["a"]["seconds"] == [2.0, 4.0, 8.0]
    assert 0 < shown["estimate"]["usd"][0] < shown["estimate"]["usd"][2]
    unknown = await planloom_cli(planloom, "plan", "check", "p.yaml", "--explain")
    assert "unknown: no price" in unknown.out


async def test_blob_prints_the_whole_of_a_large_value(planloom: Planloom) -> None:
    (planloom.folder / "big.yaml").write_text(
        'tasks: [{id: t, tool: read_file, args: {path: big.txt}}]\nanswer: "${t}"'
    )
    (planloom.workspace / "big.txt").write_text("word " * 20_000)
    async with planloom.worker():
        result = json.loads(
            (await planloom_cli(planloom, "run", "--plan", "big.yaml", "--json")).out
        )
        blob = await planloom_cli(planloom, "blob", result["answer"]["blob"][:16])
    assert blob.out == "word " * 20_000


async def test_eval_reports_plans_and_answers(planloom: Planloom) -> None:
    planloom.model.script("two", 'a = calculate(expression="1 + 1")\njoin(answer="${a}")')
    planloom.model.script("", Reply(text="no plan"))
    (planloom.folder / "goals.yaml").write_text(
        "name: small\ngoals:\n  - {id: good, goal: two, expect: {equals: '2'}}\n"
        "  - {id: bad, goal: three, expect: {number: 3}}\n"
    )
    async with planloom.worker():
        done = await planloom_cli(planloom, "eval", "goals.yaml", "--json")
    summary = json.loads(done.out)["summary"]
    assert done.code == 1
    assert (summary["answers_right"], summary["plans_valid"]) == (0.5, 0.5)


async def test_the_demo_ends_with_an_answer_and_a_real_fallback(planloom: Planloom) -> None:
    done = await planloom_cli(planloom, "demo", OPENAI_BASE_URL="", OPENAI_API_KEY="")
    assert done.code == 0, done
    assert "The wettest day was 2015-03-15" in done.out
    assert 'Task "snow" really failed' in done.err
    assert "times the ideal" in done.err
    (shown,) = (b.text for b in blocks_of(DOCS / "tutorials/first-run.md") if b.language == "text")
    assert shown in done.err, "what the tutorial shows is what a reader sees"
    assert "/namespaces/default/workflows/demo-weather" not in done.err  # it would be dead


async def test_help_of_every_command_has_an_example(planloom: Planloom) -> None:
    help_ = await planloom_cli(planloom, "--help")
    names = ["run", "watch", "result", "approve", "reject", "edit", "fork", "rerun", "eval", "ps"]
    for name in names:
        assert name in help_.out
        text = (await planloom_cli(planloom, name, "--help")).out
        assert "planloom " + name in text


async def test_agents_and_teams_are_listed_shown_and_run(planloom: Planloom) -> None:
    form = "SUMMARY: s\nCLAIM: c\nEVIDENCE: e\nCONFIDENCE: 0.9\n"
    form += "RESULT: the team says so, at length\nNEXT_STEP: none"
    planloom.model.script("You judge", '{"verdict": "trusted", "reason": "ok"}')
    planloom.model.script("You are ", form)
    agents = await planloom_cli(planloom, "agents", "--json")
    team = await planloom_cli(planloom, "teams", "bug-hunt")
    nobody = await planloom_cli(planloom, "agents", "nobody")
    async with planloom.worker():
        one = await planloom_cli(planloom, "agent", "run", "researcher", "Look")
        many = await planloom_cli(planloom, "team", "run", "bug-hunt", "Why?", "--rounds", "0")
    assert {"researcher", "tester"} <= {row["name"] for row in json.loads(agents.out)}
    assert "reproducer" in team.out
    assert (nobody.code, 'no agent "nobody"' in nobody.err) == (2, True)
    assert (one.code, "the team says so" in one.out) == (0, True)
    assert (many.code, "verdict: trusted" in many.err) == (0, True)
    assert "round 0 (initial): reproducer, tracer, sceptic" in many.err
    assert "reproducer succeeded" in many.err


async def test_modules_of_the_folder_do_not_stand_in_for_planlooms_own(planloom: Planloom) -> None:
    # `python -m worker` looks in the working folder first: a worker.py there was run as the worker.
    for name in ("worker", "planner", "activities"):
        (planloom.folder / f"{name}.py").write_text("raise SystemExit('not Planloom')\n")
    done = await planloom_cli(planloom, "tools", "--json")
    assert done.code == 0, done.err
    assert "calculate" in done.out


async def test_what_is_refused_is_not_told_as_no_server(planloom: Planloom) -> None:
    request = {"goal": "x", "tools": ["é" * 1_200_000]}
    (planloom.folder / "big.json").write_text(json.dumps(request, ensure_ascii=False))
    async with planloom.worker():
        done = await planloom_cli(planloom, "run", "--request", "big.json", "--detach")
        lost = await planloom_cli(planloom, "progress", "x", TEMPORAL_NAMESPACE="nowhere")
    assert done.code == 1
    assert "2,400,028 bytes without its plan; Temporal takes 2,000,000" in done.err
    assert "Put large values in files" in done.err
    assert lost.code == 1
    assert "nowhere" in lost.err


async def test_without_a_worker_a_query_and_an_update_end_within_seconds(
    planloom: Planloom,
) -> None:
    await planloom.start({"goal": "x"}, id="keyless")
    for command in ("progress", "pause"):
        began = time.monotonic()
        done = await planloom_cli(planloom, command, "keyless")
        assert done.code == 1
        assert "no worker answers" in done.err
        assert "hint: Start one" in done.err
        assert time.monotonic() - began < 20


async def test_definition_files_are_checked_and_run_from_where_they_are(planloom: Planloom) -> None:
    planloom.model.script("", "SUMMARY: s\nRESULT: as you wish, my friend\nNEXT_STEP: none")
    (planloom.folder / "mine.md").write_text("---\nname: mine\ndescription: d\n---\nYou are mine.")
    (planloom.folder / "bad.md").write_text("---\nname: bad\ntoools: Read\n---\nYou are bad.")
    (planloom.folder / "pair.yaml").write_text("id: pair\nmembers: [{id: one}, {id: two}]\n")
    every = await planloom_cli(planloom, "agents", "check")
    bad = await planloom_cli(planloom, "agents", "check", "mine.md", "bad.md")
    shown = await planloom_cli(planloom, "teams", "show", "core-delivery")
    async with planloom.worker():
        one = await planloom_cli(planloom, "agent", "run", "mine.md", "Look")
        refused = await planloom_cli(planloom, "agent", "run", "bad.md", "Look")
        pair = await planloom_cli(planloom, "team", "run", "pair.yaml", "Talk", "--json")
    assert (every.code, "valid: researcher" in every.out) == (0, True)
    assert bad.code == 2
    assert "valid: mine (mine.md)" in bad.out
    assert 'no field "toools". Did you mean "tools"?' in bad.err
    assert "builder" in shown.out
    assert (one.code, "as you wish" in one.out) == (0, True)
    assert (refused.code, 'Did you mean "tools"?' in refused.err) == (2, True)
    rounds = json.loads(pair.out)["rounds"]
    assert [r["kind"] for r in rounds] == ["initial", "communication"]
    assert planloom.model.calls("You are mine.") == 1


GOAL = (
    'n = calculate(expression="6 * 7")\n'
    'look = agent("researcher", task="Look into ${n}")\n'
    'view = team("core-delivery", task="Decide on ${look}", rounds=1)\n'
    "join(look, view)"
)


async def test_a_goal_with_tool_agent_and_team_is_replanned_with_temporal_alone(
    planloom: Planloom,
) -> None:
    """Typed by hand: started, its replan after a round approved, and read, by `temporal`."""
    form = "SUMMARY: s\nCLAIM: yes\nEVIDENCE: e\nCONFIDENCE: 0.9\n"
    form += "RESULT: yes, and at length\nNEXT_STEP: none"
    again = 'more = calculate(expression="${n} + 1")\njoin(answer="${more}: ${view}")'
    planloom.model.script("", GOAL, again, model="p")
    planloom.model.script("", '{"action": "replan", "feedback": "one more"}', model="j")
    judged = '{"verdict": "trusted", "reason": "ok", "answer": "agreed"}'
    planloom.model.script("", judged, model="g")
    planloom.model.script("Look into 42", "looked", model="w")
    planloom.model.script("Decide on looked", form, model="w")
    roles = {"planner": "p", "joiner": "j", "judge": "g", "worker": "w"}
    request = json.dumps({"goal": "decide", "approval": "replan", "model": roles})
    async with planloom.worker():
        start = ["workflow", "start", "--type", "DagWorkflow", "--workflow-id", "by-hand"]
        await temporal(planloom, *start, "--task-queue", planloom.task_queue, "--input", request)
        handle = planloom.client.get_workflow_handle("by-hand")
        await planloom.until(handle, lambda p: p.awaiting == "approval", timeout=40)
        shown = await temporal(planloom, "workflow", "query", "-w", "by-hand", "--type", "progress")
        signal = ["workflow", "signal", "-w", "by-hand", "--name", "approve_plan"]
        await temporal(planloom, *signal, "--input", '{"revision": 2, "by": "ops"}')
        result = await temporal(planloom, "workflow", "result", "-w", "by-hand")
    assert "approval of revision 2" in shown
    assert '"43: agreed"' in result


async def temporal(planloom: Planloom, *arguments: str) -> str:
    """The `temporal` program's output.

    Raises:
        AssertionError: it failed, with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "temporal"),
        *arguments,
        "--address",
        planloom.env["TEMPORAL_ADDRESS"],
        "--output",
        "json",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()

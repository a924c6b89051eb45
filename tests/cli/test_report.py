"""`planloom report`: one page that loads nothing, runs nothing, and tells how the run went."""

from __future__ import annotations

from html.parser import HTMLParser

from planloom.console.report.rows import _legend
from tests.cli.test_cli import planloom_cli
from tests.support.harness import Planloom

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
TOOLS = f"""
from planloom import tool, ToolError

@tool
def speak(text: str = "") -> str:
    "Says something that must not be run."
    return text + {HOSTILE!r}

@tool
def broken() -> str:
    "Always fails."
    raise ToolError({HOSTILE!r}, retry=False)
"""
PLAN = f"""
goal: "Say it {HOSTILE}"
tasks:
  - {{id: a, tool: speak}}
  - {{id: b, tool: broken, fallback: "instead"}}
  - {{id: c, map: [1, 2, 3], tool: speak, args: {{text: "${{item}}"}}}}
  - {{id: q, human: "Which {HOSTILE}?"}}
answer: "${{a}} ${{b}} ${{c}} ${{q}}"
"""


class Seen(HTMLParser):
    """The elements of a page, and what of them could do something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.metas: dict[str, str] = {}
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self.handlers += [name for name in given if name.startswith("on")]
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]
        self.ids.add(given.get("id") or "")
        if tag == "meta":
            self.metas[given.get("http-equiv") or given.get("name") or ""] = (
                given.get("content") or ""
            )


async def test_a_report_is_one_file_in_which_no_output_is_executed(planloom: Planloom) -> None:
    (planloom.folder / "plan.yaml").write_text(PLAN)
    env = {"PLANLOOM_TOOLS": planloom.tools(TOOLS)}
    start = ("run", "--plan", "plan.yaml", "--id", "told", "--approval", "plan", "--detach")
    async with planloom.worker(**env):
        await planloom_cli(planloom, *start, **env)
        await planloom_cli(planloom, "approve", "told", "--by", "ada", "--note", HOSTILE)
        await planloom_cli(planloom, "complete", "told", "q", HOSTILE, "--by", "grace")
        done = await planloom_cli(planloom, "result", "told", "--json")
        wrote = await planloom_cli(planloom, "report", "told", "-o", "told.html")
        nowhere = await planloom_cli(planloom, "report", "told", "-o", "no/such/told.html")
        unknown = await planloom_cli(planloom, "report", "nobody")
    assert done.code == 0
    assert wrote.out == "wrote told.html\n"
    assert (nowhere.code, "cannot be written" in nowhere.err) == (2, True)
    assert (unknown.code, 'no run "nobody"' in unknown.err) == (1, True)

    text = (planloom.folder / "told.html").read_text()
    seen = Seen(text)
    assert not seen.tags & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert not seen.handlers
    assert all(address.startswith("#task-") for address in seen.addresses)
    policy = seen.metas["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "viewport" in seen.metas
    assert {"task-a", "task-b", "task-c", "task-q"} <= seen.ids

    assert "&lt;script&gt;alert(1)" in text
    for told in ("3/3", "its fallback was used", "ada", "approve plan: revision 1", "grace"):
        assert told in text, told
    assert "critical path" in text


async def test_a_report_without_a_worker_tells_what_the_server_knows(planloom: Planloom) -> None:
    (planloom.folder / "plan.yaml").write_text(
        "tasks: [{id: a, tool: calculate, args: {expression: '6 * 7'}}]"
    )
    async with planloom.worker():
        await planloom_cli(planloom, "run", "--plan", "plan.yaml", "--id", "alone")
    done = await planloom_cli(planloom, "report", "alone", "-o", "-")
    assert done.code == 0
    assert "No worker answered" in done.out
    assert "42" in done.out
    assert 'id="task-a"' in done.out


async def test_agents_teams_and_refused_runs_have_reports(planloom: Planloom) -> None:
    planloom.model.script("", "SUMMARY: s\nCLAIM: my claim\nRESULT: as you wish\nNEXT_STEP: none")
    (planloom.folder / "mine.md").write_text("---\nname: mine\ndescription: d\n---\nYou are mine.")
    (planloom.folder / "pair.yaml").write_text("id: pair\nmembers: [{id: one}, {id: two}]\n")
    (planloom.folder / "bad.json").write_text('{"goal": "x", "tools": ["nothing"]}')
    async with planloom.worker():
        await planloom_cli(planloom, "agent", "run", "mine.md", "Look", "--id", "an-agent")
        await planloom_cli(planloom, "team", "run", "pair.yaml", "Talk", "--id", "a-team")
        await planloom_cli(planloom, "run", "--request", "bad.json", "--id", "refused")
        agent = await planloom_cli(planloom, "report", "an-agent", "-o", "-")
        team = await planloom_cli(planloom, "report", "a-team", "-o", "-")
        refused = await planloom_cli(planloom, "report", "refused", "-o", "-")
    assert "as you wish" in agent.out
    assert "my claim" in team.out
    assert "Judge: " in team.out
    assert "nothing" in refused.out
    assert "refused" in refused.out


async def test_a_plan_is_drawn_before_it_runs(planloom: Planloom) -> None:
    (planloom.folder / "plan.yaml").write_text(
        "goal: g\ntasks:\n  - {id: a, tool: calculate, args: {expression: '1'}}\n"
        '  - {id: b, tool: calculate, args: {expression: "${a}"}}\n'
    )
    svg = await planloom_cli(planloom, "plan", "graph", "plan.yaml", "--svg")
    dot = await planloom_cli(planloom, "plan", "graph", "plan.yaml", "--dot")
    html = await planloom_cli(planloom, "plan", "graph", "plan.yaml", "--html", "-o", "p.html")
    two = await planloom_cli(planloom, "plan", "graph", "plan.yaml", "--html", "--svg")
    assert svg.out.startswith("<svg ")
    assert '"a" -> "b";' in dot.out
    assert html.out == "wrote p.html\n"
    assert "likely seconds" in (planloom.folder / "p.html").read_text()
    assert (two.code, "give one of" in two.err) == (2, True)


def test_the_timeline_explains_the_colors_that_there_are() -> None:
    words = [each["words"] for each in _legend(["fallback", "cached", "person", "succeeded"])]
    assert words == ["work", "failed, its fallback was used", "waiting for a person"]

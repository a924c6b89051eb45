"""Definition files: ours, Claude's subagents and the source's teams, with all their problems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from planloom.activities.definitions import (
    Definition,
    DefinitionActivities,
    Definitions,
    _tools,
    read_definition,
)
from planloom.activities.storage.backends import open_backend
from planloom.activities.storage.blobs import BlobStore
from planloom.planner.contract.jobs import LoadJob
from planloom.planner.language.definitions import AgentSpec, TeamSpec
from tests.support.linear import assert_linear, repeated

CLAUDE = """---
name: code-reviewer
description: Use this agent when: code was written and needs a second look
tools: Read, Grep, Glob, Bash
model: sonnet
color: blue
---

You are a reviewer. Look twice.
"""
SOURCE_TEAM = """---
id: night-watch
name: Night watch
description: Watches
enabled: enabled
strategy: parallel
skills: [alpha]
members:
  - id: first
    role: Watcher
    description: Looks
    enabled: true
    provider: some
    skills: [beta]
  - id: second
    role: Listener
    description: Listens
---

For people.
"""


def test_a_claude_subagent_file_loads_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "code-reviewer.md"
    path.write_text(CLAUDE)
    found = read_definition(path, "agent")
    assert found.problems == []
    assert isinstance(found.spec, AgentSpec)
    assert found.name == "code-reviewer"
    assert found.spec.tools == ["read_file", "search_text", "list_files"]
    assert found.spec.system == "You are a reviewer. Look twice."
    assert found.spec.model is None
    said = "; ".join(found.warnings)
    assert 'tool "Bash" is not available here' in said
    assert 'field "color" is not used' in said


def test_a_team_file_of_the_source_loads_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "night-watch.md"
    path.write_text(SOURCE_TEAM)
    found = read_definition(path, "team")
    assert found.problems == []
    assert isinstance(found.spec, TeamSpec)
    assert [m.id for m in found.spec.members] == ["first", "second"]


def test_all_problems_of_a_file_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.md"
    path.write_text("---\nid: bad\nmembers:\n  - role: x\n  - id: 'a b'\n    tols: [x]\n---\n")
    found = read_definition(path, "team")
    assert found.spec is None
    text = "\n".join(p.line() for p in found.problems)
    assert "members[0].id: is missing" in text
    assert 'Did you mean "tools"' in text


def test_a_file_of_the_workspace_never_replaces_one_that_ships(tmp_path: Path) -> None:
    """`.claude/agents/researcher.md` took the shipped one's place in every planner's prompt."""
    _read(
        tmp_path, "---\nname: researcher\ndescription: mine\n---\nMine.", name=".claude/agents/a.md"
    )
    _read(tmp_path, "---\nname: own\ndescription: own\n---\nOwn.", name=".planloom/agents/own.md")
    team = "---\nid: bug-hunt\ndescription: mine\nmembers: [{id: a}]\n---\n"
    _read(tmp_path, team, "team", ".planloom/teams/t.md")
    known = Definitions(tmp_path)
    descriptions = known.descriptions("agent")
    assert descriptions["own"] == "own"
    assert descriptions["researcher"] != "mine"
    assert known.descriptions("team")["bug-hunt"] != "mine"
    assert {"reviewer", "architect", "implementer", "tester"} <= set(descriptions)
    for kind, name in (("agent", "researcher"), ("team", "bug-hunt")):
        (unused,) = known.unused(kind)
        line = unused.problems[-1].line()
        assert unused.spec is None
        assert str(unused.path) in line
        assert f'not used: the {kind} "{name}" is' in line
        assert f"library/{kind}s" in line


def test_two_files_of_the_workspace_with_one_name_are_told(tmp_path: Path) -> None:
    for folder in (".planloom/agents", ".claude/agents"):
        _read(tmp_path, f"---\nname: mine\ndescription: {folder}\n---\nHi", name=f"{folder}/m.md")
    known = Definitions(tmp_path)
    assert known.descriptions("agent")["mine"] == ".planloom/agents"
    assert [each.path.parent.parent.name for each in known.unused("agent")] == [".claude"]


def test_a_disabled_definition_is_known_as_disabled(tmp_path: Path) -> None:
    known = Definitions(tmp_path)
    assert known.disabled("agent") == []
    text = "---\nname: idle\nenabled: disabled\n---\nYou rest."
    _read(tmp_path, text, name=".planloom/agents/idle.md")
    assert Definitions(tmp_path).disabled("agent") == ["idle"]


def test_everything_that_ships_is_valid(tmp_path: Path) -> None:
    for kind in ("agent", "team"):
        for found in Definitions(tmp_path).all(kind).values():
            assert found.problems == []
            assert found.warnings == []
            assert found.description


def _read(folder: Path, text: str, kind: str = "agent", name: str = "x.md") -> Definition:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return read_definition(path, kind)


def test_a_misspelt_field_is_a_problem_and_a_foreign_one_a_warning(tmp_path: Path) -> None:
    head = "name: x\ndescription: d\ntoools: Read\nmaxTurn: 3\ncolor: red\nzebra: 1\n"
    found = _read(tmp_path, f"---\n{head}---\nDo it.")
    said = [p.line() for p in found.problems]
    assert found.spec is None
    assert said == [
        'x.md.toools: no field "toools". Did you mean "tools"?',
        'x.md.maxTurn: no field "maxTurn". Did you mean "maxTurns"?',
    ]
    assert found.warnings == ['field "color" is not used', 'field "zebra" is not used']


def test_every_field_of_a_claude_subagent_loads(tmp_path: Path) -> None:
    head = (
        "name: code-reviewer\ndescription: Reviews\ntools: [Read, 'Bash(git diff:*)', mcp__x__y]\n"
        "disallowedTools: Write\nmodel: opus\npermissionMode: plan\nmaxTurns: 7\nskills: [a]\n"
        "mcpServers: {}\nhooks: {}\nmemory: user\nbackground: true\neffort: high\n"
        "isolation: worktree\ncolor: pink\n"
    )
    found = _read(tmp_path, f"\ufeff---\n{head}---\n\nReview.\n\n---\n\nTwice.", name="c.md")
    assert found.problems == []
    assert isinstance(found.spec, AgentSpec)
    assert (found.spec.tools, found.spec.max_turns) == (["read_file"], 7)
    assert found.spec.system == "Review.\n\n---\n\nTwice."
    assert 'tool "Bash" is not available here' in found.warnings


def test_a_claude_file_without_tools_may_only_read(tmp_path: Path) -> None:
    text = "---\nname: x\ndescription: d --- and more\n---\nDo it."
    inside = _read(tmp_path, text, name=".claude/agents/x.md")
    assert isinstance(inside.spec, AgentSpec)
    assert inside.spec.tools == ["read_file", "list_files", "search_text"]
    assert any("may use read_file" in w for w in inside.warnings)
    outside = _read(tmp_path, text)
    assert isinstance(outside.spec, AgentSpec)
    assert (outside.spec.tools, outside.spec.description) == (None, "d --- and more")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("---\nname: x\n", "agent", "does not end"),
        ("---\n- a\n- b\n---\n", "agent", "found a list"),
        ("", "agent", "neither a system prompt nor a description"),
        ("---\nname: x\nenabled: disabled\n---\nHi", "agent", "the agent is disabled"),
        ("---\nid: t\nenabled: disabled\nmembers: [{id: a}]\n---\n", "team", "is disabled"),
        ("---\nid: t\n---\n", "team", "is empty"),
        ("---\nid: t\nmembers: [{id: a, depends_on: [b]}]\n---\n", "team", '"a" depends on "b"'),
        ("---\nid: t\nmembers: [{id: a}]\nlinks: {a: [z]}\n---\n", "team", '"z" is not a member'),
        (
            "---\nid: t\nmembers: [{id: a, enabled: disabled}]\n---\n",
            "team",
            "no member is enabled",
        ),
        ("---\nid: t\nmembers: 3\n---\n", "team", "members"),
        ("---\nname: x\ntools: 3\n---\nHi", "agent", "tools"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, text: str, kind: str, said: str
) -> None:
    found = _read(tmp_path, text, kind)
    assert found.spec is None
    assert said in "\n".join(p.line() for p in found.problems)


def test_user_then_shipped_then_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_config_dir", lambda _: str(tmp_path / "config"))
    workspace = tmp_path / "ws"
    for folder, word in (
        ("ws/.planloom/agents", "ours"),
        ("ws/.claude/agents", "theirs"),
        ("config/agents", "user's"),
    ):
        _read(tmp_path, f"---\nname: mine\ndescription: {word}\n---\nHi", name=f"{folder}/m.md")
        short = folder.partition("/")[2][1:3]
        _read(tmp_path, f"---\nname: o-{short}\ndescription: d\n---\nHi", name=f"{folder}/o.md")
    text = "---\nname: reviewer\ndescription: user's\n---\nHi"
    _read(tmp_path, text, name="config/agents/r.md")
    known = Definitions(workspace).descriptions("agent")
    assert (known["mine"], known["reviewer"]) == ("user's", "user's")
    assert {"o-pl", "o-cl", "o-ge", "researcher"} <= set(known)
    # The user's own files are no surprise to the user.
    assert [e.path.parent for e in Definitions(workspace).unused("agent")] == [
        workspace / ".planloom/agents",
        workspace / ".claude/agents",
    ]
    (tmp_path / "config/agents/m.md").unlink()
    assert Definitions(workspace).descriptions("agent")["mine"] == "ours"


async def test_a_definition_gives_its_turns_schema_and_strategy(tmp_path: Path) -> None:
    folder = ".planloom/agents"
    head = "name: x\nmax_turns: 4\noutput_schema: {type: object}\n"
    _read(tmp_path, f"---\n{head}---\nHi", name=f"{folder}/x.md")
    head = "id: t\nstrategy: Sequential\nmembers: [{id: a}]\n"
    _read(tmp_path, f"---\n{head}---\n", "team", ".planloom/teams/t.md")
    known = DefinitionActivities(Definitions(tmp_path), BlobStore(open_backend(tmp_path / "blobs")))
    agent = await known.load_definition(LoadJob(kind="agent", name="x"))
    assert (agent.max_turns, agent.output_schema) == (4, {"type": "object"})
    team = await known.load_definition(LoadJob(kind="team", name="t"))
    assert team.strategy == "sequential"


DOUBLING = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
)
MERGING = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DOUBLING, "aliases stand for more than"),
        (MERGING, "aliases stand for more than"),
        ("a: &a [*a]", "inside itself"),
        ("a: " + "[" * 5_000, "nested deeper than 100 levels"),
        ("\n".join(f"{'  ' * n}a:" for n in range(300)), "nested deeper than 100 levels"),
        ("a: !!bool maybe", "this is no bool"),
        ("a: !!timestamp soon", "this is no timestamp"),
        ("a: \0", "special characters are not allowed"),
        ("a: " + "9" * 5_000, "this is no int"),
        ("a: 0x" + "f" * 5_000, "this is no int"),
        ("a: [.inf, .nan]", "this is no float"),
        ('{id: "\\ud83d", members: []}', "is not an id"),
    ],
)
def test_a_file_of_others_is_refused_and_never_stands_for_more_than_it_is(
    tmp_path: Path, text: str, said: str
) -> None:
    """Found: forty lines stood for 2^40 values, and a deep file broke every run of a goal."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    found = read_definition(path, "team")
    assert found.spec is None
    assert any(said in problem.message for problem in found.problems), found.problems
    for problem in found.problems:
        problem.model_dump_json()


def test_keys_that_are_no_texts_are_texts_at_any_depth(tmp_path: Path) -> None:
    """Found by a million fuzzed inputs: a number as a key, deep in a file, broke its reader."""
    path = tmp_path / "x.yaml"
    schema = '{type: object, properties: {1: {enum: [{2: "\\ud83d"}]}, on: {type: string}}}'
    path.write_text(f"id: x\ndescription: d\nsystem: s\noutput_schema: {schema}\n")
    spec = read_definition(path, "agent").spec
    assert spec is not None
    assert spec.output_schema["properties"] == {  # type: ignore[index, union-attr]
        "1": {"enum": [{"2": "\ufffd"}]},
        "on": {"type": "string"},
    }


def test_only_plain_files_of_the_workspace_with_a_readable_name_are_looked_at(
    tmp_path: Path,
) -> None:
    """Found: a broken link failed every run, a pipe stopped the worker, and a link to
    `~/.aws/credentials` was an agent whose words were sent to the model.
    """
    workspace, outside = tmp_path / "workspace", tmp_path / "secret.md"
    outside.write_text("aws_secret_access_key = canary")
    agents = workspace / ".claude" / "agents"
    agents.mkdir(parents=True)
    (agents / "mine.md").write_text("---\nname: mine\ndescription: d\n---\nYou are mine.")
    (agents / "broken.md").symlink_to(tmp_path / "nowhere")
    (agents / "leads-out.md").symlink_to(outside)
    (agents / "folder.md").mkdir()
    os.mkfifo(agents / "pipe.md")
    os.link(agents / "mine.md", os.fsencode(agents) + b"/\xff.md")
    (agents / "two\nlines.md").write_text("x")
    (agents / "long.md").write_text("x" * 1_000_001)
    known = Definitions(workspace).all("agent")
    own = {n: d for n, d in known.items() if d.path.is_relative_to(workspace)}
    assert {name: d.problems[0].message if d.problems else "" for name, d in own.items()} == {
        "leads-out": "is a link that leads out of the workspace",
        "long": "is larger than 1,000,000 bytes",
        "mine": "",
    }


def test_names_of_tools_are_read_in_linear_time() -> None:
    for unit in ("(", "a(", "a(b),", "()", ")("):
        assert_linear(lambda text: _tools(text, []), repeated(unit), 100_000)
        assert_linear(lambda text: _tools([text], []), repeated(unit), 100_000)

"""Definition files: ours, Claude's subagents and the source's teams, with all their problems."""

from __future__ import annotations

from pathlib import Path

from activities.definitions import Definitions, read_definition
from planner.definitions import AgentSpec, TeamSpec

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


def test_the_workspace_wins_over_what_ships(tmp_path: Path) -> None:
    folder = tmp_path / ".planloom" / "agents"
    folder.mkdir(parents=True)
    (folder / "reviewer.md").write_text("---\nname: reviewer\ndescription: mine\n---\nMine.")
    known = Definitions(tmp_path)
    assert known.descriptions("agent")["reviewer"] == "mine"
    assert {"researcher", "architect", "implementer", "tester"} <= set(known.descriptions("agent"))
    assert len(known.descriptions("team")) >= 4


def test_everything_that_ships_is_valid(tmp_path: Path) -> None:
    for kind in ("agent", "team"):
        for found in Definitions(tmp_path).all(kind).values():
            assert found.problems == []
            assert found.warnings == []
            assert found.description

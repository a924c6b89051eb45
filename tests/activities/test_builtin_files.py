"""File tools: useful inside the workspace, closed at its edge."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from planloom.activities.tools.builtin.files import list_files, read_file, write_file
from planloom.activities.tools.builtin.search import search_text
from planloom.activities.tools.decorator import ToolContext, ToolError


@pytest.fixture
def context(tmp_path: Path) -> ToolContext:
    root = tmp_path / "ws"
    (root / "data").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "notes.md").write_text("Alpha\nbeta v12\nGamma alpha\n", encoding="utf-8")
    (root / "data" / "a.csv").write_text("x\n1\n")
    (root / "data" / "b.bin").write_bytes(b"\0\1alpha")
    (root / ".git" / "config").write_text("alpha")
    (root / ".env").write_text("OPENAI_API_KEY=alpha")
    (tmp_path / "outside.txt").write_text("alpha secret")
    return ToolContext(workspace=root)


def test_a_text_file_is_read(context: ToolContext) -> None:
    assert read_file("notes.md", context).startswith("Alpha")
    assert read_file("./data/../notes.md", context).startswith("Alpha")
    assert read_file(str(context.workspace / "notes.md"), context).startswith("Alpha")


@pytest.mark.parametrize(
    "path", ["../outside.txt", "/etc/passwd", "data/../../outside.txt", "link.txt", "linked/x"]
)
def test_no_path_leads_out_of_the_workspace(context: ToolContext, path: str) -> None:
    (context.workspace / "link.txt").symlink_to(context.workspace.parent / "outside.txt")
    (context.workspace / "linked").symlink_to(context.workspace.parent)
    with pytest.raises(ToolError, match="outside the workspace"):
        read_file(path, context)
    with pytest.raises(ToolError, match="outside the workspace"):
        write_file(path, "x", context)
    with pytest.raises(ToolError, match="outside the workspace"):
        search_text("alpha", context, path)
    with pytest.raises(ToolError, match="outside the workspace"):
        list_files(context, path)


def test_links_out_of_the_workspace_are_not_listed_or_searched(context: ToolContext) -> None:
    (context.workspace / "link.txt").symlink_to(context.workspace.parent / "outside.txt")
    (context.workspace / "linked").symlink_to(context.workspace.parent)
    assert "link.txt" not in list_files(context)
    assert not [m for m in search_text("secret", context) if m["file"] != ""]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("note.md", 'no file "note.md" in the workspace. Did you mean "notes.md"?'),
        ("a.csv", 'Did you mean "data/a.csv"?'),
        ("data", "is a folder"),
        ("data/b.bin", "is binary"),
        ("a\0b", "is not a path"),
        ("a\ud800", "is not a path"),
        ("x" * 300, "a name has at most 255 bytes"),
        ("é" * 200 + "/a", "a name has at most 255 bytes"),
        ("a/" * 3_000, "a path 4,000"),
    ],
)
def test_what_cannot_be_read_is_told_with_a_hint(
    context: ToolContext, path: str, said: str
) -> None:
    with pytest.raises(ToolError) as caught:
        read_file(path, context)
    assert said in str(caught.value)


def test_a_pipe_is_not_read(context: ToolContext) -> None:
    os.mkfifo(context.workspace / "pipe")
    with pytest.raises(ToolError, match="not a plain file"):
        read_file("pipe", context)
    assert "pipe" not in list_files(context)


def test_files_are_listed_by_glob_relative_to_the_workspace(context: ToolContext) -> None:
    assert list_files(context) == ["notes.md", "data/a.csv", "data/b.bin"]
    assert list_files(context, ".", "*.md") == ["notes.md"]
    assert list_files(context, ".", "*") == ["notes.md"]
    assert list_files(context, "data", "*.csv") == ["data/a.csv"]
    assert list_files(context, ".", "**/*.csv") == ["data/a.csv"]
    assert list_files(context, ".", "data/*.b*") == ["data/b.bin"]
    (context.workspace / ".gitignore").write_text("x")
    assert list_files(context, ".", ".git*") == [".gitignore"]
    with pytest.raises(ToolError, match="leads out"):
        list_files(context, ".", "../*")


def test_a_pattern_of_many_gaps_ends_soon(context: ToolContext) -> None:
    deep = "/".join(["a"] * 60)
    write_file(f"{deep}/f.txt", "x", context)
    began = time.process_time()
    assert list_files(context, pattern="**/a/**/a/**/a/**/a/**/a/**/zz") == []
    assert list_files(context, pattern="**/a/**/a/**/f.txt") == [f"{deep}/f.txt"]
    assert time.process_time() - began < 1
    assert list_files(context, pattern="data/**") == ["data/a.csv", "data/b.bin"]
    assert list_files(context, pattern="data/a.csv/**") == []


def test_lines_are_found_with_file_and_number(context: ToolContext) -> None:
    assert search_text("ALPHA", context) == [
        {"file": "notes.md", "line": 1, "text": "Alpha"},
        {"file": "notes.md", "line": 3, "text": "Gamma alpha"},
    ]
    assert search_text("alpha", context, "data") == []


def test_a_regular_expression_is_tried_when_plain_text_is_not_found(context: ToolContext) -> None:
    wanted = [{"file": "notes.md", "line": 2, "text": "beta v12"}]
    assert search_text(r"v\d+", context, "notes.md") == wanted
    assert search_text("V[0-9]+", context, regex=True) == wanted
    assert search_text(r"v\d+", context, regex=False) == []
    with pytest.raises(ToolError, match="cannot be read"):
        search_text("(", context, regex=True)


def test_a_hostile_regular_expression_ends_soon(context: ToolContext) -> None:
    (context.workspace / "long.txt").write_text("a" * 5_000 + "!")
    search_text("(a+)+$", context, regex=True)  # it would never end


def test_a_regular_expression_that_takes_too_long_is_stopped(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RE2 does not backtrack, but this one took 24 s for 400 KB, and nothing could stop it."""
    monkeypatch.setattr("planloom.activities.tools.processes.pool.JOB_SECONDS", 1.0)
    (context.workspace / "long.txt").write_text("a" * 4_000_000)
    for regex in (True, None):
        with pytest.raises(ToolError, match="took longer than 1 s"):
            search_text("((a?){30}){30}x", context, regex=regex)
    with pytest.raises(ToolError, match="at most 1,000"):
        search_text("(" * 600 + ")" * 600, context, regex=True)


@pytest.mark.parametrize(
    "pattern", ["*a" * 400 + "b", "[a-z]" * 200, "**/" * 49 + "x", "a" * 1_000, "*" * 1_000]
)
def test_a_long_pattern_ends_soon(context: ToolContext, pattern: str) -> None:
    (context.workspace / ("a" * 250)).touch()
    (context.workspace / "/".join("a" * 60)).mkdir(parents=True)
    began = time.process_time()
    list_files(context, pattern=pattern)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("pattern", ["a" * 1_001, "a/" * 51])
def test_a_pattern_that_is_too_long_is_refused(context: ToolContext, pattern: str) -> None:
    with pytest.raises(ToolError, match="are read"):
        list_files(context, pattern=pattern)


def test_a_name_as_long_as_names_may_be_is_written(context: ToolContext) -> None:
    """The part file beside it had a longer name, which no file system takes."""
    name = "n" * 251 + ".txt"
    assert write_file(name, "x", context) == {"path": name, "bytes": 1}
    assert read_file(name, context) == "x"
    with pytest.raises(ToolError, match="a name has at most 255 bytes"):
        write_file("n" * 256, "x", context)


def test_many_matches_are_cut_with_a_mark(context: ToolContext) -> None:
    (context.workspace / "many.txt").write_text("hit\n" * 500)
    found = search_text("hit", context)
    assert len(found) == 201
    assert "first 200 matches" in found[-1]["text"]


def test_a_written_file_is_whole_and_its_check_finds_it(context: ToolContext) -> None:
    args: dict[str, Any] = {"path": "out/new.txt", "text": "héllo"}
    assert write_file.check is not None
    assert write_file.check(context, args) is None
    done = write_file("out/new.txt", "héllo", context)
    assert done == {"path": "out/new.txt", "bytes": 6}
    assert write_file.check(context, args) == done
    assert (context.workspace / "out" / "new.txt").read_text(encoding="utf-8") == "héllo"
    assert sorted(p.name for p in (context.workspace / "out").iterdir()) == ["new.txt"]
    assert write_file.check(context, {**args, "text": "other"}) is None


def test_writing_has_side_effects_and_reading_has_none() -> None:
    assert write_file.spec.side_effects
    assert not write_file.spec.idempotent
    assert all(t.spec.idempotent for t in (read_file, list_files, search_text))


def test_the_fingerprint_changes_with_the_file(context: ToolContext) -> None:
    assert read_file.fingerprint is not None
    before = read_file.fingerprint(context, {"path": "notes.md"})
    assert before == read_file.fingerprint(context, {"path": "notes.md"})
    (context.workspace / "notes.md").write_text("other")
    assert before != read_file.fingerprint(context, {"path": "notes.md"})
    folder = list_files.fingerprint(context, {})  # type: ignore[misc]
    (context.workspace / "data" / "new.csv").write_text("x")
    assert folder != list_files.fingerprint(context, {})  # type: ignore[misc]

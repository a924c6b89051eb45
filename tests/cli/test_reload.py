"""Tool modules that change under `planloom dev`: seen, and used by the next run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from planloom import Client, RunFailed
from planloom.console.reload import Sources
from tests.cli.test_scripted_dev import dev, touch

TOOL = '''from planloom import tool

@tool
def greet(name: str) -> str:
    """Greet somebody."""
    return f"WORD {name}"
'''


def test_changes_of_settings_modules_and_what_is_beside_them_are_seen_once(tmp_path: Path) -> None:
    settings = tmp_path / "planloom.toml"
    (tmp_path / "mine.py").write_text("")
    package = tmp_path / "more" / "inner"
    package.mkdir(parents=True)
    (package / "deep.py").write_text("")
    sources = Sources(["mine", "more", "os.path", "nowhere"], settings, tmp_path)
    assert sources.changed() == []
    touch(tmp_path / "mine.py", "x = 1")
    touch(package / "deep.py", "x = 1")
    settings.write_text("")
    assert {p.name for p in sources.changed()} == {"mine.py", "deep.py", "planloom.toml"}
    assert sources.changed() == []
    (tmp_path / "helper.py").write_text("")
    assert [p.name for p in sources.changed()] == ["helper.py"]
    (tmp_path / "helper.py").unlink()
    assert [p.name for p in sources.changed()] == ["helper.py"]


def test_tools_that_the_settings_file_names_later_are_watched_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    more = tmp_path / "more"
    more.mkdir()
    (more / "tools.py").write_text("")
    sources = Sources(["mine"], tmp_path / "planloom.toml", tmp_path)
    touch(tmp_path / "mine.py", "x = 1")
    sources.watch(["mine", "more"])
    assert [p.name for p in sources.changed()] == ["mine.py"], "no change is lost on the way"
    touch(more / "tools.py", "x = 1")
    assert [p.name for p in sources.changed()] == ["tools.py"]


@pytest.mark.timeout(400)  # a server, and a worker that starts twice
async def test_a_tool_that_is_edited_is_used_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    module = tmp_path / "greetings.py"
    module.write_text(TOOL.replace("WORD", "hello"))
    (tmp_path / "planloom.toml").write_text('tools = ["greetings"]\ndata_dir = "data"\n')
    plan = {
        "tasks": [{"id": "g", "tool": "greet", "args": {"name": "Ana"}}],
        "answer": "${g}",
    }
    async with dev(tmp_path, in_memory=False) as (address, _):
        assert (tmp_path / "data" / "temporal.db").exists(), "the database is in the file's folder"
        assert not (tmp_path / ".planloom").exists()
        client = await Client.connect(target_host=address)
        assert (await client.run(plan=plan, timeout=60)).answer == "hello Ana"
        touch(module, module.read_text().replace("hello", "good evening"))
        async with asyncio.timeout(200):
            while True:
                try:
                    answer = (await client.run(plan=plan, timeout=60)).answer
                except RunFailed:
                    continue
                if answer == "good evening Ana":
                    break
                await asyncio.sleep(0.2)


def test_names_that_no_file_has_and_folders_that_go_do_not_end_the_watching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more").mkdir()
    sources = Sources(["x" * 300, "more"], tmp_path / "planloom.toml", tmp_path)

    def gone(*_: object) -> Iterator[Path]:
        raise FileNotFoundError("more/inner")

    monkeypatch.setattr(Path, "rglob", gone)
    assert sources.changed() == []

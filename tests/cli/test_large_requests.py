"""Requests that Temporal would not take: a large plan goes as a blob, the rest is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from planloom.activities.storage.garbage import names_in
from planloom.errors import Refused
from planloom.planner.contract import large_plans
from planloom.planner.contract.large_plans import INLINE_TASKS_MAX
from planloom.planner.contract.requests import RunRequest
from planloom.planner.contract.settings import Settings
from planloom.planner.language.plan import PLAN_FILE_MAX_BYTES, PLAN_MAX_BYTES
from planloom.planner.syntax.documents import read_plan, read_request
from planloom.store import fitted, open_blobs, store_plan


def plan_of(count: int, text: str = "") -> dict[str, Any]:
    return {"tasks": [{"id": f"t{n}", "tool": "ask", "args": {"x": text}} for n in range(count)]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


@pytest.mark.parametrize("plan", [plan_of(INLINE_TASKS_MAX + 1), plan_of(2, "x" * 1_000_000)])
async def test_a_large_plan_is_stored_and_named(plan: dict[str, Any], settings: Settings) -> None:
    document = await fitted({"plan": plan, "tenant": "a"}, settings)
    assert set(document) == {"plan_blob", "tenant"}
    RunRequest.model_validate(document)
    content = await open_blobs(settings, None).read_bytes(document["plan_blob"])
    assert json.loads(content) == plan


async def test_a_small_plan_stays_in_its_request(settings: Settings) -> None:
    document = {"plan": plan_of(3)}
    assert await fitted(document, settings) == document


async def test_what_is_too_large_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(Refused, match="Put large values in files"):
        await fitted({"goal": "x", "context": "y" * 2_100_000}, settings)
    with pytest.raises(Refused, match="at most 16,000,000"):
        await store_plan(plan_of(1, "x" * PLAN_FILE_MAX_BYTES), settings)


def test_a_plan_in_a_request_is_told_the_other_way() -> None:
    large = plan_of(3, "x" * (PLAN_MAX_BYTES // 3))
    request, problems = read_request({"plan": large}, RunRequest)
    assert request is None
    assert "planloom plan store" in problems[0].hint
    assert read_plan(large, limit=PLAN_FILE_MAX_BYTES)[0] is not None


def test_a_plan_has_one_place(settings: Settings) -> None:
    _, problems = read_request({"plan_blob": "0" * 64, "goal": "x"}, RunRequest)
    assert "exactly one of" in problems[0].message
    _, problems = read_request({"plan_blob": "short"}, RunRequest)
    assert problems[0].path == "plan_blob"


def test_each_part_of_a_long_text_shows_all_names_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `planloom gc` looks for: a name that is cut in two would be garbage."""
    monkeypatch.setattr(large_plans, "PART_CHARS", 1_000)
    names = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(100)]
    text = json.dumps({"blobs": names}).encode()
    parts = large_plans.packed_parts(text)
    assert len(parts) > 1
    assert large_plans.unpacked(parts) == text
    assert set().union(*(names_in(part.encode()) for part in parts)) == set(names)
    assert all(len(part) < 1_400 for part in parts)

"""Values resolved where blobs can be read, plans patched, outputs read in parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from planloom.activities.resolve import ResolveActivities, patched_plan, read_output
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.patience import Patience
from planloom.planner.contract.jobs import PatchJob, ResolveJob
from planloom.planner.language.values import Bindings, Stored


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path, patience=Patience(0.0, 0.0))


@pytest.fixture
async def large(blobs: BlobStore) -> Bindings:
    value = {"rows": [{"n": i} for i in range(1_000)], "ok": True}
    return Bindings(inputs={"a": await blobs.store_value(value)})


async def test_a_value_behind_a_blob_is_resolved(blobs: BlobStore, large: Bindings) -> None:
    activities = ResolveActivities(blobs)
    found = await activities.resolve_value(ResolveJob(value="${a.rows[2].n}", bindings=large))
    assert found.stored.value == 2
    whole = await activities.resolve_value(ResolveJob(value="${a}", bindings=large))
    assert whole.stored == large.inputs["a"]


async def test_a_list_is_counted_and_what_is_none_is_told(
    blobs: BlobStore, large: Bindings
) -> None:
    activities = ResolveActivities(blobs)
    job = ResolveJob(value="${a.rows}", mode="list", bindings=large)
    assert (await activities.resolve_value(job)).count == 1_000
    job = ResolveJob(value="${a.ok}", mode="list", bindings=large)
    with pytest.raises(ApplicationError, match="map needs a list") as caught:
        await activities.resolve_value(job)
    assert (caught.value.type, caught.value.non_retryable) == ("tool", True)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("a.outcome == 'succeeded'", True),
        ("a.output.ok && length(a.rows) > `999`", True),
        ("a.outcome == 'failed'", False),
    ],
)
async def test_a_condition_over_a_large_output(
    blobs: BlobStore, large: Bindings, condition: str, holds: bool
) -> None:
    activities = ResolveActivities(blobs)
    for bindings in (large, await activities.pack_bindings(large)):
        job = ResolveJob(
            value=condition, mode="condition", bindings=bindings, outcomes={"a": "succeeded"}
        )
        assert (await activities.resolve_value(job)).stored.value is holds


@pytest.mark.parametrize(("value", "mode"), [("${b.x}", "value"), ("a ==", "condition")])
async def test_what_cannot_be_resolved_is_no_retry_storm(
    blobs: BlobStore, large: Bindings, value: str, mode: Any
) -> None:
    with pytest.raises(ApplicationError) as caught:
        await ResolveActivities(blobs).resolve_value(
            ResolveJob(value=value, mode=mode, bindings=large)
        )
    assert (caught.value.type, caught.value.non_retryable) == ("tool", True)


async def test_a_lost_blob_is_retried(blobs: BlobStore) -> None:
    lost = Bindings(inputs={"a": Stored(blob="0" * 64, size_bytes=5)})
    with pytest.raises(ApplicationError) as caught:
        await ResolveActivities(blobs).resolve_value(ResolveJob(value="${a}", bindings=lost))
    assert not caught.value.non_retryable


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], "does not hold"),
        ([{"op": "remove", "path": "/nope"}], "does not apply"),
        ([{"op": "fly", "path": "/a"}], "patch"),
        ([{"path": "/a"}], "patch"),
        ([{"op": "replace", "path": "no slash", "value": 1}], "patch"),
    ],
)
def test_a_patch_that_does_not_apply_is_a_problem(patch: Any, said: str) -> None:
    answer = patched_plan(PatchJob(document={"a": 1}, patch=patch))
    assert answer.document is None
    assert answer.problem is not None
    assert said in answer.problem


def test_a_patch_makes_a_new_document() -> None:
    job = PatchJob(
        document={"tasks": [{"id": "a"}]},
        patch=[{"op": "add", "path": "/tasks/-", "value": {"id": "b"}}],
    )
    assert patched_plan(job).document == {"tasks": [{"id": "a"}, {"id": "b"}]}
    assert job.document == {"tasks": [{"id": "a"}]}


@pytest.mark.parametrize("op", ["copy", "move", "test", "replace", "remove", "add"])
def test_a_place_where_nothing_is_yet_is_no_value(op: str) -> None:
    """Found by fuzzing: a copy from `/tasks/-` failed the activity, which was tried again."""
    document: Any = {"tasks": [{"id": "a"}]}
    operation: dict[str, Any] = {"op": op, "path": "/tasks/-", "from": "/tasks/-", "value": 1}
    found = patched_plan(PatchJob(document=document, patch=[operation]))
    assert (found.problem is None) == (op == "add")
    found.model_dump_json()


async def test_an_output_is_read_in_parts_with_marks(blobs: BlobStore) -> None:
    stored = await blobs.store_value("0123456789" * 1_000)
    assert await read_output(blobs, stored, 0, 4) == "0123\n… (9,996 characters after, from 4)"
    assert await read_output(blobs, stored, 9_998) == "… (9,998 characters before)\n89"
    assert await read_output(blobs, Stored(value={"a": [1]})) == '{"a":[1]}'
    with pytest.raises(ValueError, match="10,000 characters"):
        await read_output(blobs, stored, 10_000)


COPIES = [{"op": "copy", "from": "/tasks", "path": f"/tasks/0/args/x{n}"} for n in range(39)]


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        # Found: 39 operations of 2.8 KB froze the worker. Each doubles the plan.
        (COPIES, "more than 1,000,000 bytes"),
        # The same in one list that is copied beside itself, and onto itself under another key.
        ([{"op": "copy", "from": "/tasks", "path": "/tasks/-"}] * 60, "more than 1,000,000 bytes"),
        ([{"op": "copy", "from": "", "path": "/again"}] * 39, "more than 1,000,000 bytes"),
        # Small, but no parser of payloads would read it.
        (
            [{"op": "add", "path": "/a" * (n + 1), "value": {}} for n in range(300)],
            "nested deeper than 100",
        ),
        (
            [{"op": "add", "path": "/a" * (n + 1), "value": {}} for n in range(1_000)],
            "nested deeper than 100",
        ),
        (
            [
                {"op": "add", "path": "/a", "value": []},
                *({"op": "copy", "from": "/a", "path": "/a/-"} for _ in range(500)),
            ],
            "1,000,000 bytes|nested",
        ),
    ],
)
def test_a_patch_makes_nothing_that_no_plan_may_be(patch: list[dict[str, Any]], said: str) -> None:
    document: Any = {"tasks": [{"id": "a", "tool": "t", "args": {"text": "x" * 2_000}}]}
    found = patched_plan(PatchJob(document=document, patch=patch))
    assert found.document is None
    assert re.search(said, found.problem or "")
    assert document == {"tasks": [{"id": "a", "tool": "t", "args": {"text": "x" * 2_000}}]}

"""What a result shows of its tasks stays below what the server takes."""

from __future__ import annotations

from planloom.planner.language.values import Outcome, Stored, TaskId
from planloom.workflows.machines.run.record import Record, task_reports

PAYLOAD_MAX_BYTES = 2 * 1024 * 1024


def test_a_result_of_two_thousand_failures_fits_into_a_payload() -> None:
    records = []
    for n in range(2_000):
        record = Record(TaskId(f"{n:04}" * 25), outcome=Outcome.FAILED, reason="ß" * 500)
        record.fail("ü" * 1_900, "tool")
        record.output = Stored(blob="0" * 64, preview="é" * 200, size_bytes=10**6)
        records.append(record)
    reports = task_reports(records)
    size = sum(len(r.model_dump_json(exclude_unset=True).encode()) + 110 for r in reports.values())
    assert size < PAYLOAD_MAX_BYTES - 400_000  # room for answer, notes and critical path
    assert reports[records[0].id].error == "ü" * 1_900
    assert reports[records[-1].id].error == "ü" * 30 + "…"


def test_outputs_are_measured_in_bytes() -> None:
    records = [Record(TaskId(f"t{n}"), outcome=Outcome.SUCCEEDED) for n in range(300)]
    for record in records:
        record.output = Stored(value="日" * 680)
    shown = [r.output for r in task_reports(records).values() if r.output is not None]
    assert 256_000 - 2_050 < sum(len(str(v).encode()) for v in shown) <= 256_000

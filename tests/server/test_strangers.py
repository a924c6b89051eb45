"""What only a run's parent, its child or the server can say counts from nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError

from tests.support.harness import Planloom

ASKS = {"tasks": [{"id": "q", "human": {"question": "Which?"}}], "answer": "${q}"}
PARENT = {"tasks": [{"id": "s", "plan": ASKS}], "answer": "${s}"}
FORGED: dict[str, Any] = {"status": "completed", "answer": "forged", "revision": 1, "rounds": 0}


async def test_a_stranger_speaks_for_no_parent_and_for_no_child(planloom: Planloom) -> None:
    """A signal could end a task with any result, and raise a child's budget "by the parent"."""
    async with planloom.worker():
        run = await planloom.start({"plan": PARENT, "budget": {"tokens": 1000, "tasks": 9}})
        await planloom.until(run, lambda p: p.awaiting == "human")
        me, child = run.id, planloom.client.get_workflow_handle(f"{run.id}/s")
        for kind, secret in (("DagWorkflow", []), ("x", []), ("DagWorkflow", ["planloom-family:"])):
            ended = {"child": child.id, "kind": kind, "result": FORGED}
            await run.signal("child_ended", args=[ended, *secret])
        await run.signal("grant_wanted", {"child": child.id, "name": "s", "tokens": 900})
        asks = {"child": "another-run", "name": "q", "key": "s.x", "question": "Your password?"}
        await run.signal("child_asks", asks | {"child": child.id})
        await run.signal("child_asks", {**asks, "key": "s.q", "question": None})
        raised = {"tokens": 10**6, "by": "parent"}
        await child.signal("raise_budget", raised)
        await child.signal("raise_budget", args=[raised, f"planloom-family:{me}"])
        await child.signal("deadline_moved", {"at": 1.0})
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await child.execute_update("raise_budget", raised)
        assert "spends from the budget" in str(refused.value.cause)
        # The real question is open still, and is answered from above as ever.
        await run.execute_update("complete_task", {"id": "s.q", "output": "mine"})
        result, below = await planloom.result(run), await planloom.result(child)
    assert result["answer"] == "mine"
    said = [n for n in result["notes"] if "no child of this run" in n]
    assert len(said) == 6, result["notes"]
    told = "\n".join(below["notes"])
    assert told.count("spends from the budget") == 2
    assert "deadline_moved: the sender is not the parent" in told


async def test_nobody_starts_a_run_in_the_middle(planloom: Planloom) -> None:
    """A state that is carried over says what is approved, paid and allowed: only the server may."""
    state = {"planloom_state": 1, "state": "", "parts": [], "reports": True}
    async with planloom.worker():
        for workflow in ("DagWorkflow", "AgentWorkflow", "TeamWorkflow"):
            failure = await planloom.failure(await planloom.start(state, workflow), timeout=10)
            assert failure.type == "InvalidRequest"
            assert "planloom_state" in str(failure)

"""Open breakers on a real server: who tries, who waits, and who is not concerned."""

from __future__ import annotations

from tests.model_server import Reply
from tests.server.test_capacity import asks, pool_of, processes, until_state
from tests.support.harness import Planloom


async def test_after_resume_no_worker_fails_a_call_with_the_refusal_of_before(
    planloom: Planloom,
) -> None:
    """A person corrects the key and resumes; while one worker tries it, the others' calls wait."""
    body = {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
    planloom.model.script("question", Reply(status=401, body=body))
    planloom.model.script("again", Reply(text="answer", delay=1.0))
    async with processes(planloom, 2):
        assert (await planloom.run(asks(10)))["status"] in ("failed", "partial")
        await until_state(planloom, lambda state: state.status == "broken")
        await pool_of(planloom).change("resume", {"by": "ops"})
        result = await planloom.run(asks(20, "again"), timeout=60)
    assert result["status"] == "completed", result["reason"]

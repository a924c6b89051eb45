"""`planloom.testing`, as the author of a tool would use it."""

from __future__ import annotations

import pytest

from planloom import RunFailed, ToolError
from planloom.testing import PlanloomEnvironment, Reply


def convert(amount: float, rate: float) -> float:
    """Convert an amount at an exchange rate."""
    if rate <= 0:
        raise ToolError(f"rate {rate} is not positive")
    return round(amount * rate, 2)


async def test_own_tools_and_a_scripted_model_run_on_a_server_that_skips_time() -> None:
    async with PlanloomEnvironment(tools=[convert]) as planloom:
        # A goal: planned, run and joined.
        planloom.model.script("Write the plan", "a = convert(amount=420, rate=0.92)\njoin(a)")
        planloom.model.script("decide whether", '{"action": "finish", "answer": "386.40 euros"}')
        busy = Reply(status=429, retry_after=5)
        planloom.model.script("In one word", busy, "Paris")
        result = await planloom.run(goal="What are 420 dollars in euros?")
        assert (result.answer, result.tasks["a"].output) == ("386.40 euros", 386.4)
        assert len(planloom.model.calls_of("Write the plan")) == 1
        assert "convert(amount: number" in planloom.model.calls[0].text

        # An answer that waits for three days, and an endpoint that is busy: no time passes here.
        plan = {
            "tasks": [
                {"id": "q", "human": "Which?", "timeout": "3d", "fallback": "none"},
                {"id": "city", "ask": "In one word: the capital of France"},
            ],
            "answer": "${q} ${city}",
        }
        result = await planloom.run(plan=plan)
        assert result.answer == "none Paris"
        assert result.seconds > 2 * 86_400

        # Decisions, as on any server.
        run = await planloom.start(plan={"tasks": [{"id": "q", "human": "Well?"}]}, id="asks")
        async for event in run.stream():
            if event.kind == "wait":
                await run.answer("yes")
        assert (await run.result()).tasks["q"].output == "yes"

        # What is wrong with a plan is an error with its problems.
        wrong = {"tasks": [{"id": "a", "tool": "convert", "args": {"amount": 1}}]}
        with pytest.raises(RunFailed) as failed:
            await planloom.run(plan=wrong)
        assert "rate" in str(failed.value.problems[0].line())

        # What no rule answers is refused, and the message shows it.
        result = await planloom.run(plan={"tasks": [{"id": "a", "ask": "Who are you?"}]})
        assert "Who are you?" in str(result.tasks["a"].error)


async def test_a_workspace_and_settings_of_your_own(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "notes.txt").write_text("six times seven")
    async with PlanloomEnvironment(
        workspace=tmp_path, settings={"models": {"worker": "small"}}
    ) as planloom:
        planloom.model.script(lambda call: call.model == "small", "I am small")
        plan = {
            "tasks": [
                {"id": "r", "tool": "read_file", "args": {"path": "notes.txt"}},
                {"id": "a", "ask": "Who are you?"},
            ],
            "answer": ["${r}", "${a}"],
        }
        result = await planloom.run(plan=plan)
    assert "six times seven" in str(result.answer[0])  # type: ignore[index]
    assert result.answer[1] == "I am small"  # type: ignore[index]


async def test_slips_in_a_test_say_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"tools is a list: tools=\[convert\]"):
        PlanloomEnvironment(tools=convert)  # type: ignore[arg-type]
    environment = PlanloomEnvironment()
    with pytest.raises(RuntimeError, match="use it inside: async with"):
        await environment.run(plan={})
    async with environment as planloom:
        for match, reply in ((3, "x"), ("x", 3)):
            with pytest.raises(TypeError, match="found 3"):
                planloom.model.script(match, reply)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a number of seconds"):
            await planloom.skip("3d")  # type: ignore[arg-type]
        with pytest.raises(RunFailed, match=r"nobody answered in years \(human: q: Which\?\)"):
            await planloom.run(plan={"tasks": [{"id": "q", "human": "Which?"}]})
    with pytest.raises(RuntimeError, match="use it inside: async with"):
        await environment.skip(1)

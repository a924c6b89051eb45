"""The benchmarks start, at their smallest size, whatever they measure then."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace

import pytest
from openai import AsyncOpenAI

from benchmarks import history, steps
from benchmarks.llmcompiler import LLMCompiler, StreamedPlan
from benchmarks.parts import PARTS
from benchmarks.pools import busiest
from benchmarks.report import Figure, Size
from benchmarks.workloads import Call, Workload, workloads
from tests.model_server import ModelServer
from tests.support.process import CHECKOUT


async def test_a_part_on_a_server_starts_and_counts_each_task() -> None:
    """`history` counts, so its figures repeat: an event each for schedule, start and end."""
    figures = {f.measure: f for f in await history.main(Size.TINY)}
    queued = figures["fan-out of 10, queued: events a task"].median
    fused = figures["fan-out of 10, fused: events a task"].median
    assert 3 < queued < 8  # at worst a workflow task for each end: three events more
    assert fused < 2
    large = figures["task with a result of 1 MB: its events"]
    assert (large.must_be, large.median < 10_000) == ("≤ 1024", True)


async def test_the_machine_is_stepped_through_plans_of_two_sizes() -> None:
    figures = await steps.main(Size.TINY)
    assert [f.must_be for f in figures] == ["≤ 1.5", "", "", ""]
    assert all(f.median > 0 for f in figures)


@pytest.mark.slow
@pytest.mark.parametrize("part", [name for name in PARTS if name != "peers"])
async def test_every_part_starts(part: str) -> None:
    """But for the peers, which install what they compare with."""
    figures = await PARTS[part](Size.TINY)
    assert figures
    assert all(isinstance(f, Figure) and f.measure for f in figures)


def test_the_page_and_the_help_name_every_part() -> None:
    page = (CHECKOUT / "docs" / "explanation" / "benchmarks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == list(PARTS)
    program = (CHECKOUT / "benchmarks" / "__main__.py").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+) {2,}\S", program.split('"""')[1], re.M) == list(PARTS)


def test_the_busiest_seconds_are_found_wherever_they_begin() -> None:
    assert busiest([0, 1, 2, 3], 5) == 4 / 5
    assert busiest([0, 4.9, 5.0, 5.1, 9.8], 5) == 4 / 5
    assert busiest([0, 5, 10], 5) == 1 / 5


# -- LLMCompiler's workloads and its method -------------------------------------------------


def test_there_are_seventeen_workloads_and_each_shape_comes_first_once() -> None:
    works = workloads()
    assert len(works) == len({w.name for w in works}) == 17
    assert len({w.name.rpartition(" ")[0] for w in works[:8]}) == 8


def test_the_ideal_waits_for_lines_inputs_and_the_joiner() -> None:
    work = Workload("w", (Call("search", (), 5.0), Call("search", (), 1.0), Call("math", (1,), 2)))
    alone = replace(work, calls=work.calls[:1])
    assert work.ideal_seconds() == pytest.approx(alone.ideal_seconds() + 2)
    quick = Workload("q", tuple(Call("search", (), 0.0) for _ in range(3)))
    said = [p for p in quick.plan().text if isinstance(p, float)]
    last = [p for p in quick.answer().text if isinstance(p, float)]
    assert quick.ideal_seconds() == pytest.approx(sum(said) + sum(last))


def test_a_streamed_plan_is_read_line_by_line_as_the_original_reads_it() -> None:
    plan = StreamedPlan()
    text = '1. search("a", 0.1)\nThought: now compare\n2. math("of $1", [1, "${1}"])\n3. join()'
    tasks = [task for token in re.findall(r"[^\n]{1,4}\n?|\n", text) if (task := plan.take(token))]
    end = plan.end()
    assert end is not None
    read = [(t.number, t.name, t.arguments, t.inputs) for t in [*tasks, end]]
    assert read == [
        (1, "search", ("a", 0.1), []),
        (2, "math", ("of $1", [1, "${1}"]), [1]),
        (3, "join", (), [1, 2]),
    ]


async def test_llmcompilers_method_runs_a_plan_to_its_answer() -> None:
    calls: list[str] = []

    async def tool(text: str, seconds: float) -> str:
        calls.append(text)
        await asyncio.sleep(seconds)
        return f"<{len(calls)}>"

    work = Workload("w", (Call("search", (), 0.05), Call("math", (1,), 0.01)))
    with ModelServer() as model:
        model.script("Solve a question answering task", work.answer())
        model.script(work.question, work.plan())
        async with AsyncOpenAI(base_url=model.url, api_key="-") as client:
            began = time.perf_counter()
            compiler = LLMCompiler(client, "m", {"search": tool, "math": tool})
            assert await compiler.run(work.question) == "42"
            assert time.perf_counter() - began >= work.ideal_seconds()
        joining = model.seen("Solve a question answering task")
    assert calls[1] == "the math of <1>"
    assert "Observation: <2>" in joining[0].text

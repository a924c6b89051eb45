"""Goal to answer over the ideal: LLMCompiler's kinds of work, streamed; and its own method beside.

Both read the same plans from the same scripted model and call the same tools, in turns.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from openai import AsyncOpenAI

from benchmarks.harness import Bench, bench, interleaved
from benchmarks.llmcompiler import JOINER as THEIR_JOINER
from benchmarks.llmcompiler import LLMCompiler
from benchmarks.report import Figure, Size, single
from benchmarks.tools import math, search
from benchmarks.workloads import Workload, workloads
from tests.model_server import ModelServer, Seen

OUR_JOINER = "You decide whether a goal is reached"
TOOLS: dict[str, Any] = {"search": search, "math": math}


async def main(size: Size) -> list[Figure]:
    rounds = size.pick(1, 1, 2)
    works = workloads()[: size.pick(2, 8, 17)]
    with ModelServer() as model:
        for work in works:
            script(model, work)
        environment = {"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": "scripted"}
        async with bench(environment) as b, AsyncOpenAI(base_url=model.url, api_key="-") as client:
            compiler = LLMCompiler(client, "scripted", TOOLS)
            await _planloom(b, works[0])
            await _llmcompiler(compiler, works[0])
            over: tuple[list[float], list[float]] = ([], [])
            for work in works:
                ours, theirs = await interleaved(
                    rounds,
                    lambda work=work: _planloom(b, work),  # type: ignore[misc]
                    lambda work=work: _llmcompiler(compiler, work),  # type: ignore[misc]
                    is_warm=True,
                )
                for found, seconds in zip(over, (ours, theirs), strict=True):
                    found.append(statistics.median(seconds) / work.ideal_seconds())
    name = f"goal to answer ÷ ideal, {len(works)} workloads"
    ours, theirs = over
    return [
        Figure(f"{name}: mean", statistics.mean(ours), min(ours), max(ours), at_most=1.03),
        single(f"{name}: worst", max(ours), at_most=1.06),
        Figure(
            f"{name}: mean of LLMCompiler's method, in memory",
            statistics.mean(theirs),
            min(theirs),
            max(theirs),
        ),
        single(f"{name}: worst of LLMCompiler's method", max(theirs)),
    ]


def script(model: ModelServer, work: Workload) -> None:
    def is_joining(seen: Seen) -> bool:
        return work.question in seen.text and (OUR_JOINER in seen.text or THEIR_JOINER in seen.text)

    model.script(is_joining, work.answer())
    model.script(work.question, work.plan())


async def _planloom(b: Bench, work: Workload) -> float:
    began = time.perf_counter()
    result, _ = await b.planloom({"goal": work.question})
    seconds = time.perf_counter() - began
    assert (result["status"], str(result["answer"])) == ("completed", "42"), result["reason"]
    assert len(result["tasks"]) == len(work.calls), list(result["tasks"])
    return seconds


async def _llmcompiler(compiler: LLMCompiler, work: Workload) -> float:
    began = time.perf_counter()
    answer = await compiler.run(work.question)
    seconds = time.perf_counter() - began
    assert answer == "42", answer
    return seconds

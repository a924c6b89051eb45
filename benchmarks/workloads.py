"""Workloads of the kinds that LLMCompiler was measured on, and the earliest end that each can have.

Its paper has comparisons of two subjects (HotpotQA), recommendations of one film of eight (Movie
Recommendation), questions whose parts are searched and then worked out (ParallelQA), and searches
whose finds are looked at one by one (WebShop). The graphs are those; questions, and how long tools
take, are made up here. A plan is in LLMCompiler's own text, which Planloom reads as well.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from tests.model_server import Reply, tokens_of

TOKEN_SECONDS = 0.005
"""200 tokens a second."""
ANSWER = "Thought: that is enough\nAction: Finish(42)"


class Call(NamedTuple):
    """One task: its tool, its inputs by number (from 1), and its seconds."""

    tool: str
    inputs: Sequence[int]
    seconds: float

    def line(self, number: int) -> str:
        read = " and ".join(f"${n}" for n in self.inputs)
        what = f"the {self.tool} of {read}" if read else f"subject number {number} of the question"
        return f'{number}. {self.tool}("{what}", {self.seconds})'


@dataclass(frozen=True, slots=True)
class Workload:
    """A question, the plan that the scripted model writes, and its joiner's answer."""

    name: str
    calls: tuple[Call, ...]

    @property
    def question(self) -> str:
        return f"Question {self.name}: which of the subjects is the largest?"

    @property
    def lines(self) -> list[str]:
        written = [call.line(n) + "\n" for n, call in enumerate(self.calls, 1)]
        thought = "Thought: I can answer the question now.\n"
        return [*written, thought, f"{len(self.calls) + 1}. join()"]

    def plan(self) -> Reply:
        """The planner's answer: a pause for the tokens of each line, then the line."""
        text: list[str | float] = []
        for line in self.lines:
            text += [_seconds(line), line]
        return Reply(text=text, chunking="line")

    def answer(self) -> Reply:
        """The joiner's answer."""
        return Reply(text=[_seconds(ANSWER), ANSWER], chunking="whole")

    def written_seconds(self) -> list[float]:
        """When each task's line is written, from the start of the planner's answer."""
        return list(accumulate(_seconds(line) for line in self.lines[: len(self.calls)]))

    def ideal_seconds(self) -> float:
        """Each task starts when its line is written and its inputs have ended; the joiner's call
        when the plan is written and all tasks have ended. Nothing else takes time.
        """
        ends: list[float] = []
        for call, written in zip(self.calls, self.written_seconds(), strict=True):
            ends.append(max([written, *(ends[n - 1] for n in call.inputs)]) + call.seconds)
        whole = sum(_seconds(line) for line in self.lines)
        return max([whole, *ends]) + _seconds(ANSWER)


def _seconds(text: str) -> float:
    return tokens_of(text) * TOKEN_SECONDS


SEARCH, MATH = "search", "math"
SHAPES: dict[str, list[tuple[str, Sequence[int]]]] = {
    "comparison": [(SEARCH, ()), (SEARCH, ())],
    "recommendation": [(SEARCH, ())] * 8,
    "ratio of two": [(SEARCH, ()), (SEARCH, ()), (MATH, (1, 2))],
    "two changed, then compared": [
        (SEARCH, ()),
        (MATH, (1,)),
        (SEARCH, ()),
        (MATH, (3,)),
        (MATH, (2, 4)),
    ],
    "three changed, then compared": [
        *((SEARCH, ()), (MATH, (1,))),
        *((SEARCH, ()), (MATH, (3,))),
        *((SEARCH, ()), (MATH, (5,))),
        (MATH, (2, 4, 6)),
    ],
    "smaller of two differences": [
        *((SEARCH, ()), (SEARCH, ()), (MATH, (1, 2))),
        *((SEARCH, ()), (SEARCH, ()), (MATH, (4, 5))),
        (MATH, (3, 6)),
    ],
    "a find, and a look at each of five": [(SEARCH, ()), *[(SEARCH, (1,))] * 5],
    "one after another": [(SEARCH, ()), (SEARCH, (1,)), (MATH, (2,))],
}
COUNTS = {"comparison": 4, "recommendation": 2, "one after another": 1}
"""How many workloads there are of a shape; of the others two."""


def workloads() -> list[Workload]:
    """All seventeen; those of different shapes first."""
    chance = random.Random(17)
    found: list[tuple[int, Workload]] = []
    for shape, tasks in SHAPES.items():
        for n in range(COUNTS.get(shape, 2)):
            calls = tuple(
                Call(tool, inputs, round(chance.uniform(0.2, 0.8 if tool == MATH else 1.6), 2))
                for tool, inputs in tasks
            )
            found.append((n, Workload(f"{shape} {n + 1}", calls)))
    return [workload for _, workload in sorted(found, key=lambda each: each[0])]

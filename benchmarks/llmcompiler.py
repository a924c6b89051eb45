"""LLMCompiler's own method in memory: planner, task fetching unit, joiner. For comparison only.

Its code is not a package that pip can install, so this repeats what the code does (commit a00c9d3,
files `planner.py`, `output_parser.py`, `task_fetching_unit.py`, `llm_compiler.py` of
`src/llm_compiler`): the parser that looks at each line as its newline arrives, the queue, the unit
that waits for the next line before each look at what is ready and sleeps for 10 ms when nothing is,
and the join after all tasks. Calls go to the same endpoint through the `openai` package alone; the
original goes through LangChain, which takes longer. Nothing is durable.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI

Tool = Callable[..., Awaitable[Any]]

SCHEDULING_INTERVAL = 0.01
PLANNER = "create a plan to solve it with the utmost parallelizability"
JOINER = "Solve a question answering task with interleaving Observation, Thought, and Action steps."
_THOUGHT = re.compile(r"Thought: ([^\n]*)")
_ACTION = re.compile(r"\n*(\d+)\. (\w+)\((.*)\)(\s*#\w+\n)?")
_ID = re.compile(r"\$\{?(\d+)\}?")


@dataclass(slots=True)
class Task:
    """One line of the plan."""

    number: int
    name: str
    arguments: tuple[Any, ...]
    inputs: list[int]
    observation: Any = None

    @property
    def is_join(self) -> bool:
        return self.name == "join"

    def text(self) -> str:
        given = str(self.arguments[0]) if len(self.arguments) == 1 else str(self.arguments)
        return f"{self.name}{given}\nObservation: {self.observation}\n"


class StreamedPlan:
    """Tokens in, tasks out: one is known when its line has ended."""

    def __init__(self) -> None:
        self._buffer = ""

    def take(self, token: str) -> Task | None:
        if "\n" not in token:
            self._buffer += token
            return None
        end, rest = token.split("\n", 1)
        line, self._buffer = self._buffer + end.strip(), rest
        return _task_of(line)

    def end(self) -> Task | None:
        return _task_of(self._buffer)


def _task_of(line: str) -> Task | None:
    match = None if _THOUGHT.match(line) else _ACTION.match(line)
    if match is None:
        return None
    number, name, text = int(match[1]), match[2], match[3]
    named = {int(n) for n in _ID.findall(text)}
    inputs = [n for n in range(1, number) if name == "join" or n in named]
    return Task(number, name, _arguments(text), inputs)


def _arguments(text: str) -> tuple[Any, ...]:
    if not text:
        return ()
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    return tuple(value) if isinstance(value, list | tuple) else (value,)


class TaskFetchingUnit:
    """Starts each task when its inputs have ended, as it gets to look."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self.tasks: dict[int, Task] = {}
        self._tools = tools
        self._done: dict[int, asyncio.Event] = {}
        self._waiting: set[int] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def schedule(self, queue: asyncio.Queue[Task | None]) -> None:
        is_whole = False
        while True:
            if not is_whole:
                task = await queue.get()
                if task is None:
                    is_whole = True
                else:
                    self.tasks[task.number] = task
                    self._done[task.number] = asyncio.Event()
                    self._waiting.add(task.number)
            ready = [n for n in self._waiting if self._is_ready(n)]
            for number in ready:
                self._waiting.remove(number)
                started = asyncio.create_task(self._run(self.tasks[number]))
                self._running.add(started)
                started.add_done_callback(self._running.discard)
            if ready:
                continue
            if is_whole and all(event.is_set() for event in self._done.values()):
                return
            await asyncio.sleep(SCHEDULING_INTERVAL)

    def _is_ready(self, number: int) -> bool:
        return all(self._done[n].is_set() for n in self.tasks[number].inputs)

    async def _run(self, task: Task) -> None:
        if not task.is_join:
            given = tuple(self._filled(argument, task.inputs) for argument in task.arguments)
            task.arguments = given
            task.observation = await self._tools[task.name](*given)
        self._done[task.number].set()

    def _filled(self, argument: Any, inputs: list[int]) -> Any:
        if isinstance(argument, list | tuple):
            return type(argument)(self._filled(each, inputs) for each in argument)
        if isinstance(argument, str):
            for number in sorted(inputs, reverse=True):
                for mask in (f"${{{number}}}", f"${number}"):
                    argument = argument.replace(mask, str(self.tasks[number].observation))
        return argument


@dataclass(slots=True)
class LLMCompiler:
    """Question in, answer out; one plan, as its shipped configurations have it."""

    client: AsyncOpenAI
    model: str
    tools: Mapping[str, Tool]

    async def run(self, question: str) -> str:
        unit = TaskFetchingUnit(self.tools)
        queue: asyncio.Queue[Task | None] = asyncio.Queue()
        planner = asyncio.create_task(self._plan(question, queue))
        await unit.schedule(queue)
        await planner
        found = "".join(task.text() for task in unit.tasks.values() if not task.is_join)
        return await self._join(f"{JOINER}\nQuestion: {question}\n\n{found.strip()}\n")

    async def _plan(self, question: str, queue: asyncio.Queue[Task | None]) -> None:
        plan = StreamedPlan()
        async for token in self._tokens(f"Given a user query, {PLANNER}.", question):
            if task := plan.take(token):
                await queue.put(task)
        if task := plan.end():
            await queue.put(task)
        await queue.put(None)

    async def _tokens(self, system: str, question: str) -> AsyncIterator[str]:
        stream = await self.client.chat.completions.create(
            model=self.model,
            messages=[
                {"role": "system", "content": system},
                {"role": "user", "content": f"Question: {question}"},
            ],
            stop=["<END_OF_PLAN>"],
            stream=True,
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def _join(self, prompt: str) -> str:
        reply = await self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            stop=["<END_OF_RESPONSE>"],
        )
        answer = ""
        for line in (reply.choices[0].message.content or "").split("\n"):
            if line.startswith("Action:"):
                answer = line[line.find("(") + 1 : line.find(")")]
        return answer

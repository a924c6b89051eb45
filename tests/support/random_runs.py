"""Random plans, planner texts and signals, each from one seed: what no author would write."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.model_server import Reply

Document = dict[str, Any]


class Chance:
    """A seeded source of choices over the tasks named so far."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.ids: list[str] = []

    def is_so(self, chance: float) -> bool:
        return self.random.random() < chance

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def known(self) -> str:
        return self.random.choice(self.ids)

    def value(self) -> Any:
        """A reference to an earlier task, or a number."""
        if self.ids and self.is_so(0.6):
            return f"${{{self.known()}}}"
        return self.random.randint(0, 5)


def plan_from(chance: Chance, depth: int = 0) -> Document:
    """Up to nine tasks of every kind that needs no model; nested once."""
    outer, chance.ids = chance.ids, []
    tasks = []
    for n in range(chance.random.randint(1, 9)):
        task = _task(chance, f"t{n}", depth)
        tasks.append(task)
        chance.ids.append(task["id"])
    plan: Document = {"tasks": tasks}
    if chance.is_so(0.5):
        plan["answer"] = {"x": f"${{{chance.known()}}}"}
    if chance.is_so(0.15):
        plan["stop_when"] = f"{chance.known()}.outcome == 'succeeded'"
    chance.ids = outer
    return plan


def _task(chance: Chance, id: str, depth: int) -> Document:
    bodies: dict[str, Callable[[], Document]] = {
        "nap": lambda: {
            "tool": "nap",
            "args": {"name": id, "seconds": chance.pick(0, 0.01, 0.05), "after": chance.value()},
        },
        "echo": lambda: {"tool": "echo", "args": {"value": [chance.value(), chance.value()]}},
        "odd": lambda: {"tool": "odd", "args": {"n": chance.random.randint(0, 9)}},
        "broken": lambda: {"tool": "broken", "args": {"name": id}},
        "sum": lambda: {"tool": "calculate", "args": {"expression": f"{chance.pick(1, 2)} + 1"}},
        "human": lambda: {"human": f"Well, {chance.value()}?", "timeout": chance.pick(0.1, 0.3)},
        "plan": lambda: {"plan": plan_from(chance, depth + 1)},
    }
    kind = chance.pick("nap", "nap", *bodies) if depth == 0 else chance.pick("nap", "echo", "odd")
    task = {"id": id, **bodies[kind]()}
    if kind not in ("human", "plan"):
        task["retry"] = {"max_attempts": chance.pick(1, 2), "initial_seconds": 0.01}
    if kind == "nap" and chance.is_so(0.1):
        task["timeout"] = 0.02
    return task | _order(chance) | _course(chance, depth)


def _order(chance: Chance) -> Document:
    """What a task waits for, and when it runs at all."""
    more: Document = {}
    if chance.is_so(0.25):
        whole = [1, 2, 3][: chance.random.randint(0, 3)]
        more["map"] = f"${{{chance.known()}}}" if chance.ids and chance.is_so(0.4) else whole
    if chance.ids and chance.is_so(0.3):
        more["depends_on"] = [chance.known()]
    if chance.ids and chance.is_so(0.3):
        other = chance.known()
        more["when"] = chance.pick(
            f"{other}.outcome == 'succeeded'",
            f"{other}.output == '{other}'",
            f"length({other}.output) > `1`",
        )
        more["speculate"] = chance.is_so(0.6)
    return more


def _course(chance: Chance, depth: int) -> Document:
    """What its inputs must be, and what is done when it fails."""
    more: Document = {}
    if chance.is_so(0.3):
        more["requires"] = chance.pick("any", "best_effort", {"at_least": 1})
    if chance.is_so(0.2):
        path = {"tool": chance.pick("echo", "broken"), "args": {}}
        more["fallback"] = chance.pick(7, None, path if path["tool"] == "broken" else 8)
    if chance.is_so(0.15):
        more["on_error"] = chance.pick("skip", "fail")
    if chance.is_so(0.1):
        more["cache"] = chance.pick("run", "shared")
    if depth == 0 and chance.is_so(0.08):
        more["approval"] = True
    return more


def request_from(chance: Chance) -> Document:
    """Limits and policies of a run, small enough to be met."""
    request: Document = {"budget": {"parallel": chance.pick(1, 1, 2, 3, 50)}}
    if chance.is_so(0.2):
        request["on_failure"] = "fail"
    if chance.is_so(0.2):
        request["budget"]["tasks"] = chance.random.randint(1, 6)
        request["on_budget"] = chance.pick("partial", "park")
    if chance.is_so(0.2):
        request["approval"] = {
            "mode": chance.pick("plan", "replan", "major", "always"),
            "timeout": 0.1,
            "on_timeout": chance.pick("approve", "reject", "park"),
        }
    return request


def signals_from(chance: Chance, ids: list[str]) -> list[tuple[float, str, Any]]:
    """Up to six signals, each with the seconds to wait before it; most come at a wrong moment."""
    patches = [
        [
            {
                "op": "add",
                "path": "/tasks/-",
                "value": {"id": "more", "tool": "calculate", "args": {"expression": "1 + 1"}},
            }
        ],
        [{"op": "remove", "path": "/tasks/0"}],
    ]
    makers: list[Callable[[], tuple[str, Any]]] = [
        lambda: ("pause", None),
        lambda: ("resume", None),
        lambda: ("cancel_task", {"id": chance.pick(*ids)}),
        lambda: ("complete_task", {"id": chance.pick(*ids), "output": 1}),
        lambda: ("approve_task", {"id": chance.pick(*ids), "approve": chance.is_so(0.7)}),
        lambda: ("raise_budget", {"tasks": chance.random.randint(5, 30)}),
        lambda: ("request_replan", {"feedback": "another way"}),
        lambda: ("edit_plan", {"revision": chance.pick(1, 2), "patch": chance.pick(*patches)}),
    ]
    return [
        (chance.random.random() * 0.2, *chance.pick(*makers)())
        for _ in range(chance.random.randint(0, 6))
    ]


def planner_text(chance: Chance, prefix: str) -> str:
    """What a planner may write: calls of what is there and of what is not, in and out of order."""
    lines = []
    for n in range(chance.random.randint(0, 6)):
        id = f"{prefix}{n}"
        value = chance.known() if chance.ids and chance.is_so(0.5) else chance.pick("1", "2")
        lines.append(
            chance.pick(
                f'{id} = nap(name="{id}", seconds={chance.pick(0, 0.02, 0.1)}, after={value})',
                f"{id} = echo(value=[{value}], _fallback=5)",
                f'{id} = broken(name="{id}")',
                f"{id} = odd(n={chance.random.randint(0, 9)})",
                f'{id} = human(question="Well?", _timeout=0.2)',
                f"{id} = nowhere(x=1)",
                f"{id} = nap(seconds={id})",
                "Thought: what next?",
                "and so on",
            )
        )
        chance.ids.append(id)
    ends = ["", "join()", *(f"join({i})" for i in chance.ids[-2:])]
    return "\n".join([*lines, chance.pick(*ends)])


def planner_replies(chance: Chance) -> list[Reply]:
    """Answers of a planner in turn: whole, cut off, refused for now, broken, or in prose."""
    replies: list[Reply] = []
    for prefix in "abcd":
        text = planner_text(chance, prefix)
        whole = Reply(text=text, token_seconds=chance.pick(0, 0, 0.005))
        replies += chance.pick(
            [whole],
            [whole],
            [whole],
            [Reply(text=text, finish="length")],
            [Reply(text=text, fault="cut_stream", cut_after=chance.random.randint(1, 10)), whole],
            [Reply(status=429, headers={"retry-after": "0.1"}), whole],
            [Reply(text="I cannot plan this.")],
        )
    return replies


def joiner_replies(chance: Chance) -> list[str]:
    return [
        chance.pick(
            '{"action": "finish", "answer": "done"}',
            '{"action": "replan", "feedback": "more"}',
            "Thought: enough\nAction: Finish(yes)",
            "hm",
        )
        for _ in range(4)
    ]

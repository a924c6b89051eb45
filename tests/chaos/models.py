"""A model whose answer is a function of the question, and an endpoint that fails by chance."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from random import Random

from planloom.planner.language.plan import Task
from planloom.planner.syntax.calls.text import call_text
from tests.chaos.cases import MARK, Case
from tests.model_server import ModelServer, Reply, Seen

HELPS = "You are one who helps."
PLANNER = "Write the plan that reaches the goal"
JOINER = "You decide whether a goal is reached"
JUDGE = "You judge"
FAULTS = (
    "429",
    "500",
    "503",
    "not_json",
    "cut_stream",
    "silent_end",
    "close",
    "slow",
    "error_body",
)
FAULTS_MAX = 1
"""Of one question: an endpoint that fails for good is another promise."""


class Models:
    """Answers for all cases; `chance` is how often an endpoint fails instead."""

    def __init__(self, server: ModelServer, cases: list[Case]) -> None:
        self.server = server
        self.chance = 0.0
        self.faults: Counter[str] = Counter()
        self._cases = {case.seed: case for case in cases}
        self._failed: Counter[str] = Counter()
        self._random = Random(0)
        server.script("", self._answer)

    def add(self, case: Case) -> None:
        """One more case to answer for."""
        self._cases[case.seed] = case

    def seed(self, seed: int, chance: float) -> None:
        """Fail with this chance from now on."""
        self._random, self.chance = Random(seed), chance
        self._failed.clear()

    def paid(self, case: Case) -> int:
        """How many answers came whole for a case."""
        return sum(s.ended == "whole" and case.mark in s.text for s in self.server.seen())

    def _answer(self, seen: Seen) -> Reply:
        reply = self._reply(seen)
        question = hashlib.sha256(json.dumps(seen.messages).encode()).hexdigest()
        if self._failed[question] >= FAULTS_MAX or self._random.random() >= self.chance:
            return reply
        self._failed[question] += 1
        fault = self._random.choice(FAULTS)
        self.faults[fault] += 1
        return _failing(reply, fault, self._random)

    def _reply(self, seen: Seen) -> Reply:
        found = MARK.search(seen.text)
        case = self._cases.get(int(found[1])) if found else None
        if case is None:
            return Reply(status=400, body={"error": {"message": "which case?"}})
        if PLANNER in seen.text:
            return _plan(case, seen)
        if JOINER in seen.text:
            return _join(case, seen)
        if JUDGE in seen.text:
            return Reply(text='{"verdict": "trusted", "reason": "ok"}')
        if any(m["role"] == "system" and HELPS in str(m["content"]) for m in seen.messages):
            return _turn(case, seen)
        return Reply(text=f"said {_digest(seen.last)}", token_seconds=0.01)


def _digest(text: str) -> str:
    """The same for the same text in two runs."""
    return hashlib.sha256(MARK.sub("", text).encode()).hexdigest()[:12]


def _plan(case: Case, seen: Seen) -> Reply:
    """The plan of the case, or what is left of it when its first lines were accepted before."""
    asked = seen.messages[1]["content"]
    if case.first_plan is None or "need more" in asked or "r0" in asked or "t0" in asked:
        lines = ['r0 = work(key="more")', "join(answer=r0)"]
    else:
        tasks = [Task.model_validate(t) for t in case.first_plan["tasks"]]
        lines = [call_text(t) for t in tasks]
        lines.append(f"join({', '.join(str(t.id) for t in tasks)})")
    accepted = [m["content"] for m in seen.messages if m["role"] == "assistant"]
    written = set(re.findall(r"^(\w+) = ", "\n".join(map(str, accepted)), re.M))
    lines = [line for line in lines if line.partition(" ")[0] not in written]
    text: list[str | float] = []
    for line in lines:
        text += [line + "\n", 0.1]
    return Reply(text=text[:-1], chunking="line", obeys_limit=False)


def _join(case: Case, seen: Seen) -> Reply:
    if case.replans and "r0" not in seen.text:
        return Reply(text='{"action": "replan", "feedback": "need more"}')
    return Reply(text=json.dumps({"action": "finish", "answer": "reached"}))


def _turn(case: Case, seen: Seen) -> Reply:
    """A turn of an agent or a member: its tools first, if it has any, then the labelled form."""
    tools = [t["function"]["name"] for t in seen.body.get("tools") or []]
    task = _digest(str(seen.messages[1]["content"]))
    if tools and not any(m["role"] == "tool" for m in seen.messages):
        calls = []
        if "work" in tools:
            calls.append({"id": "c1", "name": "work", "arguments": {"key": f"{task} {case.mark}"}})
        if "post" in tools:
            calls.append({"id": "c2", "name": "post", "arguments": {"key": f"{task} {case.mark}"}})
        if "ask_human" in tools:
            calls.append({"id": "c3", "name": "ask_human", "arguments": {"question": "Well?"}})
        return Reply(tool_calls=calls, token_seconds=0.01)
    text = (
        f"SUMMARY: looked\nCLAIM: it is so\nEVIDENCE: seen\nCONFIDENCE: 0.9\nRESULT: done {task}\n"
        "NEXT_STEP: none"
    )
    return Reply(text=text, token_seconds=0.01)


def _failing(reply: Reply, fault: str, random: Random) -> Reply:
    match fault:
        case "429":
            return Reply(status=429, headers={"retry-after": "0.3"})
        case "500" | "503":
            return Reply(status=int(fault))
        case "slow":
            return replace(reply, delay=2.0)
        case "cut_stream":
            return replace(reply, fault=fault, cut_after=random.randint(0, 6))
        case _:
            return replace(reply, fault=fault)

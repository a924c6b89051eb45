"""Random requests of the three workflows, as documents: every field, also in odd company."""

from __future__ import annotations

from random import Random
from typing import Any

from pydantic import ValidationError

from tests.simulation.chance import some, weighted
from tests.simulation.kinds import KINDS
from tests.simulation.plans import Document, names_of, random_condition, random_plan

OF_HOSTS = ["work", "search", "put", "post", "slow", "ask_human"]
"""Tools that agents and members may have."""


def readable_request(random: Random, kind: str) -> Document:
    """A request that the contract accepts; what it does not is drawn again."""
    make = {"DagWorkflow": random_run, "AgentWorkflow": random_agent, "TeamWorkflow": random_team}
    while True:
        request = make[kind](random)
        public = {k: v for k, v in request.items() if k != "lineage"}  # a parent says that
        try:
            KINDS[kind].request.model_validate(public)
        except ValidationError:
            continue
        return request


def random_run(random: Random) -> Document:
    """A run of any kind, with any of its fields."""
    kind = weighted(random, {"plan": 45, "goal": 38, "template": 4, "agents": 5, "joiner": 8})
    size = random.choice([1, 2, 3, 5, 8, 12, 20])
    request: Document = {}
    match kind:
        case "goal":
            request = {"goal": "reach it", "stream": random.random() < 0.8}
        case "agents":
            request = {"goal": "say it", **_members(random)}
        case "template":
            request = {"template": random.choice(["pair", "deep"]), "params": {}}
        case _:
            request = {"plan": random_plan(random, size=size), "joiner": kind == "joiner"}
    if kind == "plan" and random.random() < 0.1:
        request["reuse"] = _reused(random, names_of(request["plan"]))
    _policies(random, request)
    return request


# -- agents and teams -----------------------------------------------------------------------


def random_agent(random: Random) -> Document:
    """An agent by name or as it is written, with any of its fields."""
    spec: Any = random.choice(["helper", "critic", "nobody"])
    if random.random() < 0.7:
        spec = {"id": random.choice(["me", "a.b"]), "system": "you help", **_of_member(random)}
    request: Document = {"agent": spec, "task": random.choice(["do it", "do " * 1_500])}
    if random.random() < 0.3:
        request["output_schema"] = {"type": "object", "required": ["n"]}
    _of_hosts(random, request)
    return request


def random_team(random: Random) -> Document:
    """A team that talks, or one on a graph."""
    team: Any
    if random.random() < 0.2:
        team, names = random.choice(["panel", "panel", "nobody"]), ["first", "second", "third"]
    else:
        names = ["ann", "bob", "c.d", "dan"][: random.choice([1, 2, 3, 4])]
        has_graph = random.random() < 0.3
        members = [_member(random, names, n, has_graph=has_graph) for n in range(len(names))]
        links = random.choice([None, "ring", "star", "pairs", "source"])
        team = {"members": members, "links": links}
    request: Document = {"team": team, "task": random.choice(["do it", "do " * 1_500])}
    if random.random() < 0.6:
        request["rounds"] = random.choice([0, 1, 2, 3])
    if random.random() < 0.4:
        request["strategy"] = random.choice(["parallel", "sequential"])
    if random.random() < 0.3:
        request["quorum"] = random.randint(1, 2)
    if random.random() < 0.3:
        request["subtasks"] = random.choice(["plan", _subtasks(random, names)])
    if random.random() < 0.3:
        request["approval"] = random_approval(random)
    if random.random() < 0.3:
        request["replan"] = {"max_rounds": random.choice([0, 1, 2])}
    if random.random() < 0.5:
        request["retry_rounds"] = random.choice([0, 1, 2, 2])
    _of_hosts(random, request)
    return request


def _of_member(random: Random) -> Document:
    found: Document = {"tools": some(random, OF_HOSTS, 3)}
    if random.random() < 0.15:
        found["model"] = random.choice(["m1", "m2", "b1"])
    return found


def _member(random: Random, names: list[str], number: int, *, has_graph: bool) -> Document:
    found: Document = {"id": names[number], **_of_member(random)}
    if has_graph:
        found |= {"task": f"part {number}", "depends_on": some(random, names[:number], 2)}
    if random.random() < 0.05:
        found["enabled"] = False
    return found


def _subtasks(random: Random, names: list[str]) -> list[Document]:
    ids = [f"s{n}" for n in range(random.choice([1, 2, 3, 5]))]
    return [
        {
            "id": id,
            "task": f"part {id}",
            "member": random.choice(names),
            "depends_on": some(random, ids[:n], 2),
        }
        for n, id in enumerate(ids)
    ]


def _of_hosts(random: Random, request: Document) -> None:
    if random.random() < 0.3:
        request["context"] = random.choice(["to know", "to know " * 500, {"a": 1}])
    if random.random() < 0.6:
        request["max_turns"] = random.choice([1, 2, 4])
    if random.random() < 0.2:
        request["timeout"] = random.choice([0.5, 5, 60])
    if random.random() < 0.2:
        request["tools"] = some(random, OF_HOSTS, 4)
    if random.random() < 0.5:
        request["budget"] = random_budget(random)
    if random.random() < 0.2:
        request.setdefault("budget", {})["seconds"] = random.choice([0.5, 5, 60])
    if random.random() < 0.15:
        request["lineage"] = _lineage(random)
    _common(random, request)


# -- what all of them have ------------------------------------------------------------------


def _policies(random: Random, request: Document) -> None:
    if random.random() < 0.35:
        request["approval"] = random_approval(random)
    if random.random() < 0.5:
        request["budget"] = random_budget(random)
    if random.random() < 0.3:
        request["replan"] = {
            "max_rounds": random.choice([0, 1, 2, 4]),
            "on_failure": random.random() < 0.6,
        }
    if random.random() < 0.2:
        request["on_failure"] = "fail"
    if random.random() < 0.4:
        request["retry_rounds"] = random.choice([0, 1, 2, 3])
    if random.random() < 0.1:
        request["stop_when"] = random_condition(random, ["t0", "t1", "t2"])
    if random.random() < 0.5:
        request["fuse"] = random.random() < 0.4
    _common(random, request)


def _common(random: Random, request: Document) -> None:
    if random.random() < 0.1:
        request["on_budget"] = "partial"
    if random.random() < 0.1:
        request["tenant"] = "acme"
    if random.random() < 0.5:
        request["fuse"] = random.random() < 0.4
    if random.random() < 0.1:
        request["cache"] = random.choice(["run", "shared"])
    if random.random() < 0.1:
        request["priority"] = "high"
    if random.random() < 0.1:
        request["model"] = random.choice(["m1", {"planner": "m2", "worker": "b1"}])
    if random.random() < 0.08:
        request["lineage"] = _lineage(random)


def random_approval(random: Random) -> Any:
    """A policy: the mode alone, or with a time and what happens then."""
    mode = random.choice(["plan", "replan", "major", "always", "never"])
    if random.random() < 0.4:
        return mode
    policy: Document = {"mode": mode}
    if random.random() < 0.7:
        policy["timeout"] = random.choice([1, 30, 600])
        policy["on_timeout"] = random.choice(["approve", "reject", "park"])
    return policy


def random_budget(random: Random) -> Document:
    """Caps, often too tight."""
    budget: Document = {}
    if random.random() < 0.4:
        budget["tokens"] = random.choice([1, 500, 2_500, 8_000, 30_000, 10**6])
    if random.random() < 0.25:
        budget["usd"] = random.choice([0.000001, 0.001, 0.02, 0.5, 50.0])
    if random.random() < 0.25:
        budget["seconds"] = random.choice([0.5, 5, 60, 1000])
    if random.random() < 0.3:
        budget["tasks"] = random.choice([1, 2, 4, 30])
    if random.random() < 0.4:
        budget["parallel"] = random.choice([1, 2, 3])
    if random.random() < 0.25:
        budget["on_budget"] = random.choice(["park", "partial"])
    return budget


def _members(random: Random) -> Document:
    if random.random() < 0.6:
        names = random.choice([["helper"], ["helper", "critic"], ["helper", "helper", "critic"]])
        return {"agents": names, "limits": {"agents": random.choice([1, 2])}}
    return {"teams": random.choice([["panel"], ["panel", "panel"]])}


def _reused(random: Random, names: list[str]) -> Document:
    picked = [n for n in names if random.random() < 0.4]
    value = {"value": {"value": 3, "ok": True, "items": [1, 2]}}
    return {n: {"outcome": "succeeded", "output": value} for n in picked}


def _lineage(random: Random) -> Document:
    """The run is a child of one that the world plays."""
    lineage: Document = {"parent": "boss", "root": "boss", "depth": 1}
    if random.random() < 0.7:
        lineage["grant"] = {
            "tokens": random.choice([None, 100, 5_000]),
            "usd_nano": random.choice([None, None, 10_000_000]),
            "tasks": random.choice([None, 1, 5]),
        }
    if random.random() < 0.4:
        lineage["deadline"] = 1_000_000.0 + random.choice([-5, 3, 90])
    return lineage

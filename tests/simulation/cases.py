"""A case: all that decides how one simulated run goes. Equal cases go equally."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from pydantic import ValidationError

from planloom.planner.contract.requests import RunRequest
from planloom.workflows.machines.run.state import Stage
from tests.simulation.chance import Chance, weighted
from tests.simulation.plans import Document, names_of, random_condition, random_plan, without_task

STIMULI = {
    "approve_plan": 8.0,
    "reject_plan": 3.0,
    "edit_plan": 10.0,
    "request_replan": 6.0,
    "raise_budget": 8.0,
    "pause": 6.0,
    "resume": 4.0,
    "cancel_task": 8.0,
    "complete_task": 8.0,
    "approve_task": 6.0,
    "unreadable": 3.0,
    "cancel_run": 3.0,
    "terminate_child": 2.0,
    "stale_child": 3.0,
    "deadline": 3.0,
}


@dataclass(frozen=True, slots=True)
class Stimulus:
    """Something that a person (or another run) does right after the `after`-th event."""

    after: int
    kind: str
    salt: int
    """What it says exactly is chosen by it, from what the run shows then."""
    is_update: bool = False
    times: int = 1
    """Sent twice, or more often."""
    to_child: bool = False
    """To one of the child runs, if there is any."""
    at_stage: str = ""
    """Sent when the run comes to this stage, and not after an event."""


@dataclass(frozen=True, slots=True)
class Case:
    """One simulated run."""

    seed: int
    request: Document
    stimuli: tuple[Stimulus, ...] = ()
    carried: float = 0.1
    """How often the state is serialized, dropped and read back after an event."""
    long_after: tuple[int, ...] = ()
    """Events after which the history is long: the run continues as new once it may."""
    without: frozenset[str] = frozenset()
    """Tasks that the planner does not write: taken out to make a case shorter."""
    fails: float = 0.15
    """How often an activity fails."""
    is_handed_catalog: bool = False
    """The plan of a team: the site is known from the start."""
    runs_children: float = 0.7
    """How often a child run is one of the machine itself."""
    blobs_fail: bool = True
    """A blob cannot be read now and then."""
    overuses: bool = False
    """Some calls use more than was reserved for them."""

    def shorter(self) -> list[Case]:
        """Cases that lack one thing each, those that lack most first."""
        found: list[Case] = []
        half = len(self.stimuli) // 2
        if half > 1:
            found += [replace(self, stimuli=self.stimuli[half:])]
            found += [replace(self, stimuli=self.stimuli[:half])]
        for n in range(len(self.stimuli)):
            rest = self.stimuli[:n] + self.stimuli[n + 1 :]
            found.append(replace(self, stimuli=rest))
        if self.long_after:
            found.append(replace(self, long_after=()))
        if self.fails:
            found.append(replace(self, fails=0.0))
        if 0 < self.carried < 1:
            found.append(replace(self, carried=0.0))
        found += [replace(self, request=r) for r in _shorter_requests(self.request)]
        return found


def _shorter_requests(request: Document) -> list[Document]:
    found: list[Document] = []
    plan = request.get("plan")
    if plan is not None:
        for name in names_of(plan):
            rest = without_task(plan, name)
            if rest is not None:
                found.append({**request, "plan": rest})
        for n, task in enumerate(plan["tasks"]):
            for field_name in set(task) - {"id", "tool", "ask", "human", "agent", "team", "plan"}:
                if field_name != "args":
                    slim = {k: v for k, v in task.items() if k != field_name}
                    tasks = [*plan["tasks"][:n], slim, *plan["tasks"][n + 1 :]]
                    found.append({**request, "plan": {**plan, "tasks": tasks}})
        for name in ("answer", "join", "stop_when"):
            if name in plan:
                rest = {k: v for k, v in plan.items() if k != name}
                found.append({**request, "plan": rest})
    names = sorted(set(request) - {"plan", "goal", "template"})
    return found + [{k: v for k, v in request.items() if k != name} for name in names]


def random_case(seed: int) -> Case:
    """The case of a seed."""
    random = Chance(seed).of("case")
    request = _readable_request(random)
    most = random.choice([0, 0, 3, 6, 12])
    return Case(
        seed,
        request,
        stimuli=tuple(_stimulus(random) for _ in range(most)),
        carried=random.choice([0.0, 0.05, 0.3]),
        long_after=tuple(sorted(random.randint(0, 40) for _ in range(random.choice([0, 0, 1, 3])))),
        fails=random.choice([0.0, 0.1, 0.3]),
        is_handed_catalog=random.random() < 0.03,
        runs_children=random.choice([0.0, 0.7, 1.0]),
        overuses=random.random() < 0.1,
    )


def _stimulus(random: Random) -> Stimulus:
    return Stimulus(
        random.randint(0, random.choice([3, 15, 60])),
        weighted(random, STIMULI),
        random.randrange(1_000_000),
        random.random() < 0.5,
        random.choice([1, 1, 1, 1, 2, 3]),
        to_child=random.random() < 0.15,
        at_stage=random.choice(list(Stage)).value if random.random() < 0.3 else "",
    )


def _readable_request(random: Random) -> Document:
    """A request that the contract accepts; what it does not is drawn again."""
    while True:
        request = random_request(random)
        try:
            RunRequest.model_validate(request)
        except ValidationError:
            continue
        return request


def random_request(random: Random) -> Document:
    """A request of any kind, with any of its fields."""
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
    if random.random() < 0.1:
        request["on_budget"] = "partial"
    if random.random() < 0.5:
        request["fuse"] = random.random() < 0.4
    if random.random() < 0.1:
        request["tenant"] = "acme"
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

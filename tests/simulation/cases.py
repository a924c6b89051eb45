"""A case: all that decides how one simulated run goes. Equal cases go equally."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from planloom.workflows.machines.run.state import Stage
from planloom.workflows.machines.team.state import Stage as TeamStage
from tests.simulation.chance import Chance, weighted
from tests.simulation.plans import Document, names_of, without_task
from tests.simulation.requests import readable_request

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
KINDS = {"DagWorkflow": 76.0, "AgentWorkflow": 9.0, "TeamWorkflow": 15.0}
STAGES = [*Stage, *TeamStage]
LOOKED_UP = "a condition is looked up"
FAILING = "what has a child run as its fallback is going to fail"


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
    """Sent when the run comes to this stage, or to that moment, and not after an event."""


@dataclass(frozen=True, slots=True)
class Case:
    """One simulated run."""

    seed: int
    request: Document
    kind: str = "DagWorkflow"
    """Whose request it is: of a run, an agent or a team."""
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
    """A run that knows from the start what the worker offers, as the plan of a team does."""
    runs_children: float = 0.7
    """How often a child run is one of the machine itself."""
    blobs_fail: bool = True
    """A blob cannot be read now and then."""
    overuses: bool = False
    """Some calls use more than was reserved for them."""
    batches: bool = False
    """Maps go in batches although they are short."""

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
        if self.batches:
            found.append(replace(self, batches=False))
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
    names = sorted(set(request) - {"plan", "goal", "template", "agent", "team", "task"})
    return found + [{k: v for k, v in request.items() if k != name} for name in names]


def random_case(seed: int) -> Case:
    """The case of a seed."""
    random = Chance(seed).of("case")
    kind = weighted(random, KINDS)
    request = readable_request(random, kind)
    most = random.choice([0, 0, 3, 6, 12])
    stimuli = [_stimulus(random) for _ in range(most)]
    if random.random() < 0.1:  # what is decided in a time is changed in it
        stimuli.append(_in_time(random))
    stimuli += _at_moments(Chance(seed).of("moments"))
    return Case(
        seed,
        request,
        kind,
        stimuli=tuple(stimuli),
        carried=random.choice([0.0, 0.05, 0.3]),
        long_after=tuple(sorted(random.randint(0, 40) for _ in range(random.choice([0, 0, 1, 3])))),
        fails=random.choice([0.0, 0.1, 0.3]),
        is_handed_catalog=random.random() < 0.03,
        runs_children=random.choice([0.0, 0.7, 1.0]),
        overuses=random.random() < 0.1,
        batches=random.random() < 0.25,
    )


def _at_moments(random: Random) -> list[Stimulus]:
    """Now and then something at a moment that chance alone would hardly meet."""
    if random.random() > 0.3:
        return []
    kind, moment = random.choice([("cancel_task", LOOKED_UP), ("pause", FAILING)])
    return [Stimulus(0, kind, random.randrange(1_000_000), at_stage=moment)]


def _in_time(random: Random) -> Stimulus:
    """A plan that waits for approval is edited, or one that runs is paused."""
    kind, stage = random.choice([("edit_plan", Stage.APPROVING), ("pause", Stage.RUNNING)])
    return Stimulus(0, kind, random.randrange(1_000_000), at_stage=stage.value)


def _stimulus(random: Random) -> Stimulus:
    return Stimulus(
        random.randint(0, random.choice([3, 15, 60])),
        weighted(random, STIMULI),
        random.randrange(1_000_000),
        random.random() < 0.5,
        random.choice([1, 1, 1, 1, 2, 3]),
        to_child=random.random() < 0.15,
        at_stage=random.choice(STAGES).value if random.random() < 0.3 else "",
    )

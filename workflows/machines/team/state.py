"""The state of a team: a plain value, changed by `step` only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from planloom.planner.contract.requests import TeamRequest
from planloom.planner.contract.results import RoundReport, RunStatus, TeamResult
from planloom.planner.language.definitions import MemberSpec, TeamSpec
from planloom.planner.language.values import JsonValue, Outcome, Stored, Usage
from planloom.workflows.machines.agent.state import Ended, Host
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared.machine import Failed
from planloom.workflows.machines.team.judge import Judgement
from planloom.workflows.machines.team.rounds import Said


class Stage(StrEnum):
    """The stage of a team."""

    PREPARING = "preparing"
    """The team loads its definition and asks its worker for tools, pools and a permit."""
    PLAN = "plan"
    """The subtasks run as a plan."""
    INITIAL = "initial"
    """Every member gives its first answer."""
    COMMUNICATION = "communication"
    """Every member reads its partners' answers and answers again."""
    RETRY = "retry"
    """Members that failed are asked again."""
    JUDGING = "judging"
    """The judge model reads the answers."""
    ANSWERING = "answering"
    """The answer is being made from the members' answers."""
    OVER = "over"
    """The team has its result, or has failed."""


@dataclass(slots=True)
class Member:
    """A member at work. Its last answer stands until a later one replaces it."""

    spec: MemberSpec
    ended: Ended | None = None
    outcome: Outcome | None = None
    attempts: int = 0
    is_recovered: bool = False
    is_speaking: bool = False
    has_part: bool = True
    """False when a plan of subtasks gave it nothing to do."""
    usage: Usage = field(default_factory=Usage)

    @property
    def is_good(self) -> bool:
        return self.outcome is Outcome.SUCCEEDED

    @property
    def state(self) -> str:
        if self.is_speaking:
            return "running"
        return self.outcome.value if self.outcome else "waiting"

    def text(self) -> Stored | None:
        """Its last answer."""
        return self.ended.reply.text if self.ended and self.ended.reply else None


@dataclass(slots=True)
class Judging:
    """The judge model's answer, as far as it is known."""

    brief: Stored | None = None
    answer: Stored | None = None
    parts_left: int = 0
    """Of a long answer, whose parts are fetched apart."""


@dataclass(slots=True)
class PlanEnd:
    """How a plan of subtasks came out; `answer` when a joiner composed one."""

    status: RunStatus
    reason: str | None
    answer: Stored | None


@dataclass(frozen=True, slots=True)
class EarlyControl:
    """A control of a plan that is not there yet; `payload` is its JSON, as `name` says whose."""

    name: str
    payload: dict[str, JsonValue]
    token: int | None = None


@dataclass(slots=True)
class TeamState(Host):
    """All of one team."""

    request: TeamRequest
    is_team: bool = True
    stage: Stage = Stage.PREPARING
    team: TeamSpec | None = None
    strategy: Literal["parallel", "sequential"] = "parallel"
    members: dict[str, Member] = field(default_factory=dict)
    links: dict[str, list[str]] = field(default_factory=dict)
    """Whom each member hears."""

    # The answers in progress.
    number: int = 0
    """Of the communication or retry round."""
    queue: list[str] = field(default_factory=list)
    """Members that are still to speak in it."""
    said: dict[str, Said] = field(default_factory=dict)
    """What all said before the round: each reads that, whenever it speaks."""
    retried: list[str] = field(default_factory=list)
    """Members that a retry round asks again."""
    rounds: list[RoundReport] = field(default_factory=list)

    # A team on a graph.
    plan: RunState | None = None
    """The run of its subtasks, until they have ended and after."""
    plan_end: PlanEnd | None = None
    early: list[EarlyControl] = field(default_factory=list)
    """Controls of a plan that came before there was one."""
    revisions_seen: int = 0
    plan_rounds_seen: int = 0
    reopened: list[str] = field(default_factory=list)
    """Subtasks that had failed when another round opened them."""

    # The end.
    judgement: Judgement | None = None
    judging: Judging | None = None
    disagreements: list[str] = field(default_factory=list)
    answer: Stored | None = None
    result: TeamResult | None = None
    failed: Failed | None = None

    @property
    def is_planned(self) -> bool:
        """Whether its subtasks run as a plan: a graph, or one with approval or replans."""
        request = self.request
        asks_for_plans = request.approval.mode not in ("never", "tainted")
        has_rules = request.replan.max_rounds > 0 or asks_for_plans
        has_graph = any(m.spec.depends_on for m in self.members.values())
        return has_rules or request.subtasks is not None or has_graph

    @property
    def speakers_max(self) -> int:
        """How many members speak at once."""
        return 1 if self.strategy == "sequential" else self.parallel

    @property
    def phase(self) -> str:
        """What the team is at, in words that `progress` shows."""
        match self.stage:
            case Stage.PREPARING:
                return "loading"
            case Stage.PLAN | Stage.INITIAL:
                return "initial"
            case Stage.COMMUNICATION:
                return f"round {self.number}"
            case Stage.RETRY:
                return f"retry {self.number}"
            case Stage.OVER:
                return self.result.status if self.result else "failed"
            case _:
                return "judge"

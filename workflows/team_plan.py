"""A team on a graph as a plan: its subtasks run by the same frontier as any plan's.

So approval, edits, replans after a round, budget and progress are those of `DagWorkflow`. The
planner knows the team's members as its agents; each subtask is an `AgentWorkflow` child.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from temporalio import workflow

from planloom.planner.contract.jobs import TurnReply
from planloom.planner.contract.requests import RunRequest, TeamRequest
from planloom.planner.contract.results import AgentResult, RoundReport, RunResult
from planloom.planner.language.definitions import AgentSpec, MemberSpec, Subtask, TeamSpec
from planloom.planner.language.plan import Plan
from planloom.planner.language.references import as_text
from planloom.planner.language.values import Outcome, Stored
from planloom.workflows.conversation import Conversation, Ended
from planloom.workflows.desk import Desk
from planloom.workflows.dispatch import stored_of, usage_from_report
from planloom.workflows.member import Member, subtask_text, system_of
from planloom.workflows.run import PlanRefused, Run

if TYPE_CHECKING:
    from planloom.workflows.team_course import TeamCourse


class TeamPlan:
    """The plan of a team's subtasks, at work."""

    def __init__(
        self,
        request: TeamRequest,
        desk: Desk,
        team: TeamSpec,
        members: Mapping[str, Member],
    ) -> None:
        self._desk = desk
        self._members = members
        cast = {m: agent_of(team, members[m].spec, request) for m in members}
        whole = run_request(request, [m.spec for m in members.values()])
        self.run = Run(whole, desk.started)
        engine = self.run.engine
        # One ledger, whoever spends: subtasks and planner, then the members' rounds and the judge.
        engine.ledger = desk.ledger
        engine.clock = desk.clock
        engine.dispatcher.cast = cast
        engine.dispatcher.cast_fields = {
            k: getattr(request, k) for k in ("max_turns", "timeout", "retry")
        }

    async def main(self) -> RunResult:
        """Plan where that is asked for, approve, run, plan again within the bounds."""
        run, catalog = self.run, self._desk.catalog
        known = {m: f"{x.spec.role}: {x.spec.description}" for m, x in self._members.items()}
        run.engine.open(catalog.model_copy(update={"agents": known, "teams": {}}))
        run.show()
        try:
            result = await run.course()
        except PlanRefused as refused:
            result = await run.refused(refused)
        for note in run.engine.notes:
            self._desk.note(note)
        return result

    @property
    def has_composed(self) -> bool:
        """Whether the answer is a joiner's, and not just the outputs by name."""
        return self.run.goal_loop is not None

    def rounds(self) -> list[RoundReport]:
        """One for the first plan, one for each revision that gave more to do."""
        found: list[RoundReport] = []
        seen: set[str] = set()
        for n, revision in enumerate(self.run.revisions):
            new = [t for t in revision.plan.tasks if t.id not in seen]
            seen |= {t.id for t in new}
            names = [t.agent for t in new if isinstance(t.agent, str) and t.agent in self._members]
            kind = "initial" if n == 0 else "replan"
            report = {"round": n, "kind": kind, "members": list(dict.fromkeys(names))}
            found.append(RoundReport.model_validate(report))
        return found

    def hand_over(self, course: TeamCourse) -> None:
        """What each member's last subtask came to, as the team's own rounds and judge need it."""
        dispatcher, records = self.run.engine.dispatcher, self.run.engine.records
        info = workflow.info()
        key = f"{info.workflow_id}/{info.first_execution_run_id}"
        for member in course.members.values():
            member.has_part = False
        for task_id, task in self.run.engine.tasks.items():
            if not isinstance(task.agent, str) or task.agent not in course.members:
                continue
            member, record = course.members[task.agent], records[task_id]
            member.has_part = True
            member.attempts += record.attempts
            member.usage += record.usage
            found = dispatcher.spoken.get(task_id)
            if member.is_good and not (record.outcome and record.outcome.is_good):
                continue  # an earlier subtask's answer is better than none
            member.outcome = record.outcome or Outcome.CANCELLED
            if member.outcome.is_good:
                member.outcome = Outcome.SUCCEEDED
            member.ended = _ended(found, record.error or record.reason, record.error_class)
            if (text := member.text()) is not None:
                talk, old = member.talk, {"my_result": text}
                member.talk = Conversation(course.desk, talk.persona, talk.task, None, old, key)


def _ended(found: AgentResult | None, reason: str | None, error_class: str | None) -> Ended:
    if found is None:
        return Ended("failed", reason=reason, error_class=error_class)
    seen = found.diagnosis
    reply = TurnReply.model_validate(
        {
            "transcript": Stored(blob=found.transcript) if found.transcript else Stored(),
            "text": stored_of(found.output, found.preview, found.blob),
            "fields": found.fields,
            **(seen.model_dump() if seen is not None else {}),
            "usage": usage_from_report(found.usage),
        }
    )
    if found.status not in ("completed", "partial"):
        return Ended("failed", None, found.error_class, found.reason)
    return Ended("completed", reply, found.error_class, found.reason)


def agent_of(team: TeamSpec, spec: MemberSpec, request: TeamRequest) -> AgentSpec:
    """A member as the agent that does its subtasks."""
    allowed = request.tools
    tools = [t for t in spec.tools or [] if allowed is None or t in allowed]
    system = system_of(team, spec)
    return AgentSpec.model_validate(
        {"id": spec.id, "system": system, "tools": tools, "model": spec.model}
    )


def run_request(request: TeamRequest, members: list[MemberSpec]) -> RunRequest:
    """The run of a team's subtasks: its plan, or the goal that the planner makes one for."""
    fields: dict[str, Any] = {
        name: getattr(request, name)
        for name in (
            "model",
            "tools",
            "budget",
            "on_budget",
            "priority",
            "tenant",
            "cache",
            "approval",
            "replan",
            "retry_rounds",
            "lineage",
        )
    }
    if request.strategy == "sequential":
        fields["budget"] = request.budget.model_copy(update={"parallel": 1})
    if request.subtasks == "plan":
        return RunRequest.model_validate(
            {**fields, "goal": request.task, "context": request.context}
        )
    plan = plan_of(request, members)
    return RunRequest.model_validate(
        {**fields, "plan": plan, "joiner": request.replan.max_rounds > 0}
    )


def plan_of(request: TeamRequest, members: list[MemberSpec]) -> Plan:
    """The subtasks as a plan: of the request, else of the members; without any, the task for each.

    What a subtask waits for is in its context.
    """
    parts = request.subtasks if isinstance(request.subtasks, list) else _own_parts(members)
    tasks: list[dict[str, Any]] = []
    for part in parts:
        text = subtask_text(part.task, request.task) if part.task else request.task
        args: dict[str, Any] = {"task": text.replace("${", "$${")}
        told = [f"# Result of {d}\n${{{_quoted(d)}}}" for d in part.depends_on]
        if request.context is not None:
            told.insert(0, f"# Context\n{as_text(request.context).replace('${', '$${')}")
        if told:
            args["context"] = "\n\n".join(told)
        member = part.member or part.id
        task = {"id": part.id, "agent": member, "args": args, "description": part.task[:200]}
        tasks.append(task)
    return Plan.model_validate({"goal": request.task, "tasks": tasks})


def _own_parts(members: list[MemberSpec]) -> list[Subtask]:
    return [
        Subtask.model_construct(id=m.id, task=m.task or "", member=m.id, depends_on=m.depends_on)
        for m in members
    ]


def _quoted(name: str) -> str:
    return f'"{name}"' if "." in name else name

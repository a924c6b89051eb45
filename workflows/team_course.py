"""The course of a team: initial answers, communication rounds, retry rounds, the judge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from planloom.planner.compile.team_check import team_problems
from planloom.planner.contract.jobs import LoadJob, PrepareJob, ResolveJob
from planloom.planner.contract.names import INVALID_REQUEST, STALE, UNKNOWN_TOOL
from planloom.planner.contract.requests import TeamRequest
from planloom.planner.contract.results import (
    JudgeReport,
    RoundReport,
    RunStatus,
    TeamResult,
    usage_report,
)
from planloom.planner.language.definitions import MemberSpec, TeamSpec
from planloom.planner.language.team_links import check_links
from planloom.planner.language.values import JsonValue, Outcome, Stored, TaskId
from planloom.workflows.controls import Control
from planloom.workflows.conversation import AGENT_SHOWN_MAX_BYTES, Conversation, Persona, summary_of
from planloom.workflows.desk import Desk
from planloom.workflows.machines.run.frontier import Frontier, Node, units_of
from planloom.workflows.machines.run.status import markdown_page
from planloom.workflows.machines.shared.requests import own_tools, unknown_tools
from planloom.workflows.machines.team.judge import Judgement, judge
from planloom.workflows.machines.team.rounds import (
    context_for,
    disagreements,
    is_consensus,
    links_of,
    may_retry,
)
from planloom.workflows.member import Member, subtask_text, system_of
from planloom.workflows.requests import invalid
from planloom.workflows.run_permit import run_permit
from planloom.workflows.shell import activities as doors
from planloom.workflows.shell.failures import BodyCancelled
from planloom.workflows.team_judge import ask_judge, compose
from planloom.workflows.team_plan import TeamPlan

HEARD_INLINE_CHARS = 1_500


class TeamCourse:
    """One team at work."""

    def __init__(self, request: TeamRequest, started: datetime) -> None:
        self.request = request
        self.desk = Desk(request, started, is_team=True)
        self.desk.on_change = self.show
        self.members: dict[str, Member] = {}
        self.links: dict[str, list[str]] = {}
        self.rounds: list[RoundReport] = []
        self.judgement: Judgement | None = None
        self.disagreements: list[str] = []
        self.phase = "loading"
        self.status: str = "running"
        self.answer: Stored | None = None
        self.plan: TeamPlan | None = None
        """Of a team on a graph whose subtasks are planned, approved or planned again."""
        self._strategy = request.strategy
        self._summaries: dict[str, asyncio.Task[Stored | None]] = {}

    # -- the course -------------------------------------------------------------------------

    async def main(self) -> TeamResult:
        """The whole course.

        Raises:
            ApplicationError: `InvalidRequest` or `UnknownTool`, with all problems.
        """
        team = await self._gather_team()
        self.show()
        pool = self.desk.catalog.pool_for(self.desk.model_for("worker"))
        calls = 1 if self._strategy == "sequential" else min(self.desk.parallel, len(self.members))
        async with run_permit(pool, self.request, calls, self.desk.wait_for_room):
            self.phase = "initial"
            if self.is_planned:
                return await self._by_plan(team)
            await self._initial()
            await self._communicate()
            await self._ask_failed_again()
            return await self._conclude()

    @property
    def is_planned(self) -> bool:
        request = self.request
        has_rules = request.replan.max_rounds > 0 or request.approval.mode != "never"
        return has_rules or request.subtasks is not None

    async def _gather_team(self) -> TeamSpec:
        request, named = self.request, self.request.team
        if isinstance(named, str):
            loaded = await doors.load_definition(LoadJob(kind="team", name=named))
            if loaded.spec is None:
                raise invalid(INVALID_REQUEST, loaded.problems)
            for warning in loaded.warnings:
                self.desk.note(warning)
            team = TeamSpec.model_validate(
                {
                    "id": named,
                    "description": loaded.description,
                    "members": loaded.members,
                    "links": loaded.links,
                    "strategy": loaded.strategy,
                }
            )
        else:
            team = named
        subtasks = request.subtasks if isinstance(request.subtasks, list) else None
        problems = team_problems(
            team,
            quorum=request.quorum,
            subtasks=subtasks,
            check_links=lambda active: check_links(team.links, [m.id for m in active]),
        )
        if problems:
            raise invalid(INVALID_REQUEST, problems)
        if team.strategy and "strategy" not in request.model_fields_set:
            self._strategy = team.strategy
        await self._take_members(team)
        return team

    async def _take_members(self, team: TeamSpec) -> None:
        request = self.request
        active = [m for m in team.members if m.enabled]
        self.links = links_of(team.links, [(m.id, m.role) for m in active])
        allowed = request.tools
        wanted = [t for m in active for t in m.tools or [] if allowed is None or t in allowed]
        tools = list(dict.fromkeys(wanted))
        models = [m for m in (request.model_for("worker"), *(a.model for a in active)) if m]
        job = PrepareJob(tools=own_tools(tools), models=list(dict.fromkeys(models)))
        if self.is_planned:
            job = PrepareJob(is_goal=True, allow=request.tools, models=job.models)
        self.desk.catalog = await doors.prepare_run(job)
        inline = wanted if isinstance(request.team, TeamSpec) else []
        problems = unknown_tools([*(allowed or ()), *inline], self.desk.catalog)
        if problems and request.lineage.parent is None:
            raise invalid(UNKNOWN_TOOL, problems)
        for member in active:
            self.members[member.id] = self._member(team, member, tools)

    def _member(self, team: TeamSpec, spec: MemberSpec, tools: Sequence[str]) -> Member:
        request = self.request
        persona = Persona(
            name=spec.id,
            spec=Stored(value={"system": system_of(team, spec)}),
            tools=tuple(t for t in spec.tools or [] if t in tools),
            model=spec.model,
            form="member",
            max_turns=request.max_turns,
            timeout=request.timeout,
            retry=request.retry,
        )
        inputs = dict(request.lineage.inputs)
        task = inputs.pop("task", None) or Stored(value=request.task)
        if spec.task:
            task = Stored(value=subtask_text(spec.task, request.task))
        context = None if request.context is None else Stored(value=request.context)
        info = workflow.info()
        key = f"{info.workflow_id}/{info.first_execution_run_id}"
        return Member(spec, Conversation(self.desk, persona, task, context, inputs, key))

    @property
    def _is_graph(self) -> bool:
        return any(m.spec.depends_on for m in self.members.values())

    async def _initial(self) -> None:
        """Every member's first answer: at once, in turn, or as the graph of subtasks allows."""
        report = RoundReport(round=0, kind="initial", members=list(self.members))
        self.rounds.append(report)
        if self._is_graph:
            await self._by_graph(list(self.members))
        else:
            await self._ask_all(list(self.members.values()))

    async def _by_graph(self, names: Sequence[str]) -> None:
        """Members as nodes of a frontier: each starts when those it depends on have answered."""
        parallel = 1 if self._strategy == "sequential" else self.desk.parallel
        frontier = Frontier(min(parallel, len(self.members)))
        waits = {m: [d for d in self.members[m].spec.depends_on if d in names] for m in names}
        frontier.add([Node(TaskId(m), inputs=tuple(map(TaskId, waits[m]))) for m in names])
        frontier.close()
        jobs: dict[str, asyncio.Task[None]] = {}
        while not frontier.is_over:
            for unit in list(units_of(frontier)):
                member = self.members[unit.task]
                jobs[unit.task] = asyncio.create_task(self._after_others(member))
            await workflow.wait(list(jobs.values()), return_when=asyncio.FIRST_COMPLETED)
            for name in [n for n, job in jobs.items() if job.done()]:
                await jobs.pop(name)
                outcome = self.members[name].outcome or Outcome.FAILED
                for settled in frontier.end(TaskId(name), outcome):
                    self.members[settled.task].outcome = settled.outcome

    async def _after_others(self, member: Member) -> None:
        await self._ask(member, await self._predecessors(member))

    async def _predecessors(self, member: Member) -> Stored | None:
        """The results of those a member depends on, as it is told them: large ones summed up."""
        if not member.spec.depends_on:
            return None
        lines, inputs = [], dict[str, Stored]()
        for name in member.spec.depends_on:
            ended = self.members[name].ended
            reply = ended.reply if ended else None
            if reply is None or reply.text is None:
                continue
            title, text = f"# Result of {name}", reply.text
            if not text.is_inline and text.size_bytes > AGENT_SHOWN_MAX_BYTES:
                member.talk.shelve(name, text)
                summary = await self._summary(name, text)
                title += f' (summed up; read_output("{name}", start, end) opens it)' * bool(summary)
                text = summary or await doors.read_output(text, 0, AGENT_SHOWN_MAX_BYTES)
            inputs[f"r{len(inputs)}"] = text
            lines.append(f"{title}\n${{r{len(inputs) - 1}}}")
        job = ResolveJob.model_validate(
            {
                "value": "\n\n".join(lines),
                "bindings": {"inputs": inputs},
                "inline_max_bytes": HEARD_INLINE_CHARS,
            }
        )
        return (await doors.resolve_value(job)).stored

    async def _summary(self, name: str, text: Stored) -> Stored | None:
        """The summary of a result, made once for all who read it."""
        key = text.blob or ""
        if key not in self._summaries:
            made = asyncio.create_task(
                summary_of(self.desk, f"{name}.{len(self._summaries)}", text)
            )
            self._summaries[key] = made
        return await self._summaries[key]

    async def _communicate(self) -> None:
        request = self.request
        rounds = request.rounds
        if (self._is_graph or self.is_planned) and "rounds" not in request.model_fields_set:
            rounds = 0  # subtasks differ: there is nothing to agree on unless it is asked for
        for number in range(1, rounds + 1):
            good = [m for m in self.members.values() if m.is_good]
            if len(self.members) < 2 or len(good) < 2:
                break
            said = [m.said() for m in self.members.values()]
            sure = [m.ended.reply.confidence for m in good if m.ended and m.ended.reply]
            if request.consensus and number > 1 and is_consensus(said, sure):
                self.desk.note(f"consensus after round {number - 1}")
                break
            self.phase = f"round {number}"
            await self._round(number, good, "communication")

    async def _round(
        self, number: int, members: Sequence[Member], kind: Literal["communication", "retry"]
    ) -> None:
        """All read what was said before the round; new answers replace the old after it."""
        said = {m.spec.id: m.said() for m in self.members.values() if m.ended is not None}
        heard = {m.spec.id: self.links.get(m.spec.id, []) for m in members}
        report = RoundReport(
            round=number, kind=kind, heard=heard, members=[m.spec.id for m in members]
        )
        self.rounds.append(report)
        self.show()
        contexts = {
            m.spec.id: context_for(m.spec.id, heard[m.spec.id], said, number) for m in members
        }
        await self._ask_all(members, contexts)

    async def _ask_failed_again(self) -> None:
        """Failed members once more, unless what failed them would again."""
        if len(self.members) < 2:
            return
        for number in range(1, self.request.retry_rounds + 1):
            failed = [
                m
                for m in self.members.values()
                if m.outcome is Outcome.FAILED and self._may_retry(m, number)
            ]
            if not failed:
                return
            self.phase = f"retry {number}"
            if self._is_graph:
                await self._graph_again(number, failed)
            else:
                await self._round(self.request.rounds + number, failed, "retry")
            for member in failed:
                member.is_recovered = member.is_good

    def _may_retry(self, member: Member, number: int) -> bool:
        ended = member.ended
        return ended is None or may_retry(ended.error_class, ended.reason, number)

    async def _graph_again(self, number: int, failed: Sequence[Member]) -> None:
        """Failed members of a graph again, and then those who were skipped because of them."""
        names = [m.spec.id for m in failed]
        skipped = [n for n, m in self.members.items() if m.outcome is Outcome.SKIPPED]
        while new := [
            n
            for n in skipped
            if n not in names and self._could_run(self.members[n].spec.depends_on, names)
        ]:
            names += new
        report = RoundReport(round=self.request.rounds + number, kind="retry", members=names)
        self.rounds.append(report)
        for name in names:
            self.members[name].outcome = None  # it waits again
        await self._by_graph(names)

    def _could_run(self, needed: Sequence[str], names: Sequence[str]) -> bool:
        return all(self.members[n].is_good or n in names for n in needed)

    async def _ask_all(
        self, members: Sequence[Member], contexts: dict[str, str] | None = None
    ) -> None:
        """One answer of each, at once within the limit, or in turn."""
        slots = asyncio.Semaphore(self.desk.parallel)
        jobs = []
        for member in members:
            text = (contexts or {}).get(member.spec.id)
            heard = None if text is None else await self._heard(text)
            if self._strategy == "sequential":
                await self._ask(member, heard)
            else:
                jobs.append(asyncio.create_task(self._ask_within(slots, member, heard)))
        for job in jobs:
            await job

    async def _ask_within(
        self, slots: asyncio.Semaphore, member: Member, heard: Stored | None
    ) -> None:
        async with slots:
            await self._ask(member, heard)

    async def _heard(self, text: str) -> Stored:
        if len(text) <= HEARD_INLINE_CHARS:
            return Stored(value=text)
        plain = text.replace("${", "$${")
        job = ResolveJob(value=plain, inline_max_bytes=HEARD_INLINE_CHARS)
        return (await doors.resolve_value(job)).stored

    async def _ask(self, member: Member, heard: Stored | None = None) -> None:
        """One answer of one member; its failure is its own."""
        member.is_speaking = True
        self.show()
        try:
            ended = await member.talk.say(heard)
        finally:
            member.is_speaking = False
        member.take(ended)
        self.show()
        # A member ends like that only when the whole team does: it must not go on to the judge.
        if member.outcome is Outcome.CANCELLED:
            raise BodyCancelled("the team was cancelled")

    async def _by_plan(self, team: TeamSpec) -> TeamResult:
        """Subtasks as a plan: approved, planned again after a round, within the budget."""
        self.plan = TeamPlan(self.request, self.desk, team, self.members)
        ended = await self.plan.main()
        self.rounds += self.plan.rounds()
        if ended.status in ("rejected", "cancelled"):
            return self.result(ended.status, ended.reason)
        self.plan.hand_over(self)
        await self._communicate()
        has_answer = self.plan.has_composed and ended.answer is not None
        answer = (ended.answer_ref or Stored(value=ended.answer)) if has_answer else None
        return await self._conclude(answer, (ended.status, ended.reason))

    # -- the end ----------------------------------------------------------------------------

    async def cancelled(self) -> TeamResult:
        """The run was cancelled: what the members have said is kept."""
        run = self.plan.run if self.plan else None
        if run is not None and run.result is None:
            await run.cancelled()
        return self.result("cancelled", "the run was cancelled")

    async def _conclude(
        self, answer: Stored | None = None, ended: tuple[RunStatus, str | None] | None = None
    ) -> TeamResult:
        """Judgement and answer; `ended` is how a plan of subtasks came out, with its answer."""
        self.phase = "judge"
        self.show()
        members = [m for m in self.members.values() if m.has_part]
        formula = judge([m.diagnostics() for m in members])
        self.disagreements = disagreements([m.said() for m in members])
        self.judgement = formula
        good = [m for m in members if m.is_good]
        answers = {m.spec.id: t for m in good if (t := m.text()) is not None}
        if answers:
            task = self.request.lineage.inputs.get("task") or Stored(value=self.request.task)
            judged = await ask_judge(self.desk, formula, task, answers)
            self.judgement, answer = judged.judgement, judged.answer or answer
            self.disagreements += judged.disagreements
        self.answer = answer or await compose(answers)
        quorum = self.request.quorum
        if len(good) < (quorum or 1):
            status: RunStatus = "partial" if good else "failed"
            return self.result(status, f"{len(good)} of {len(members)} members have an answer")
        if ended is not None and quorum is None:
            return self.result(*ended)
        failed = [m.spec.id for m in members if not m.is_good]
        if failed and quorum is None:
            return self.result("partial", "failed: " + ", ".join(failed))
        return self.result("completed", None)

    def result(self, status: RunStatus, reason: str | None) -> TeamResult:
        self.phase = self.status = status
        self.desk.lack = None
        self.show()
        answer = self.answer
        shown: JsonValue = None
        if answer is not None:
            shown = answer.value
            if not answer.is_inline:
                shown = {
                    "preview": answer.preview,
                    "blob": answer.blob,
                    "size_bytes": answer.size_bytes,
                }
        planned = self.plan.run.result if self.plan else None
        return TeamResult.model_validate(
            {
                "status": status,
                "answer": shown,
                "members": {name: m.report() for name, m in self.members.items()},
                "rounds": self.rounds,
                "judge": self._judge_report(),
                "tasks": planned.tasks if planned else {},
                "revision": planned.revision if planned else 0,
                "usage": usage_report(self.desk.used),
                "seconds": round(self.desk.now(), 3),
                "notes": self.desk.notes,
                "reason": reason,
            }
        )

    def _judge_report(self) -> JudgeReport | None:
        j = self.judgement
        if j is None:
            return None
        return JudgeReport(
            verdict=j.verdict,
            confidence=round(j.confidence, 4),
            u_intra=round(j.u_intra, 4),
            u_inter=round(j.u_inter, 4),
            u_sys=round(j.u_sys, 4),
            signals=list(j.signals),
            reason=j.reason,
            disagreements=self.disagreements,
        )

    def control(self, name: str) -> Control[Any]:
        """A signal or update by its name: of the plan of subtasks while it runs, else our own.

        Raises:
            ApplicationError: there is no such thing to control now.
        """
        run = self.plan.run if self.plan else None
        if run is not None and run.result is None:
            return run.controls[name]
        if name in self.desk.controls:
            return self.desk.controls[name]
        message = f"{name}: this team has no plan of subtasks that waits for it"
        raise ApplicationError(message, type=STALE, non_retryable=True)

    def show(self) -> None:
        """Search attributes and current details; a plan of subtasks shows itself."""
        run = self.plan.run if self.plan else None
        if run is None or run.result is not None:
            self.desk.show(self.desk.status_word(self.status))
            workflow.set_current_details(self._details())

    def _details(self) -> str:
        """What the Web UI shows: the members, and what each claims."""
        desk, word = self.desk, self.desk.status_word(self.status)
        head = f"**{word}**" + ("" if self.phase == word else f": {self.phase}")
        rows = [
            (name, m.spec.role or "", m.state, str(m.attempts), m.said().claim or m.said().summary)
            for name, m in self.members.items()
        ]
        columns = ("member", "role", "state", "attempts", "claim")
        waits = desk.awaiting, desk.awaiting_detail()
        return markdown_page(self.request.task, head, waits, columns, rows)

    def progress(self) -> dict[str, Any]:
        """The answer of the query `progress`."""
        desk, run = self.desk, self.plan.run if self.plan else None
        shown: dict[str, Any] = {
            "status": desk.status_word(self.status),
            "awaiting": desk.awaiting,
            "detail": desk.awaiting_detail(),
            "notes": desk.notes[-20:],
        }
        if run is not None and run.result is None:
            shown = run.view.progress().model_dump(mode="json")
        return shown | {
            "phase": self.phase,
            "members": {name: m.state for name, m in self.members.items()},
            "rounds": [r.model_dump(mode="json") for r in self.rounds],
            "usage": usage_report(desk.used).model_dump(mode="json"),
            "seconds": desk.now(),
        }

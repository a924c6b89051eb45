"""The course of a team: initial answers, communication rounds, retry rounds, the judge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from temporalio import workflow

from planner.contract import (
    INVALID_REQUEST,
    UNKNOWN_TOOL,
    JudgeReport,
    RoundReport,
    RunStatus,
    TeamRequest,
    TeamResult,
    usage_report,
)
from planner.definitions import MemberSpec, TeamSpec
from planner.jobs import AskJob, LoadJob, PrepareJob, ResolveJob
from planner.values import JsonValue, Outcome, Stored, TaskId, Usage
from workflows import doors
from workflows.conversation import ASK_HUMAN, Conversation, Desk, Ended, Persona
from workflows.failures import BodyCancelled, BodyFailed
from workflows.frontier import Frontier, Node, units_of
from workflows.judge import Diagnostics, Judgement, judge, lowered
from workflows.pools import on_pools
from workflows.requests import invalid, unknown_tools
from workflows.rounds import (
    Said,
    context_for,
    disagreements,
    is_consensus,
    links_of,
    may_retry,
)
from workflows.run_permit import run_permit

HEARD_INLINE_CHARS = 1_500
ANSWER_INLINE_BYTES = 12_000
JUDGE_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["trusted", "partial", "uncertain", "untrusted"]},
        "confidence": {"type": "number"},
        "reason": {"type": "string"},
        "disagreements": {"type": "array", "items": {"type": "string"}},
        "answer": {"type": "string"},
    },
    "required": ["verdict", "reason"],
}
JUDGE_PROMPT = (
    "You judge what a team answered to a task. Say how far it can be trusted: trusted, partial or "
    "uncertain; list where the members disagree, and do not average it away. With `answer` give "
    "the team's answer in full, made from what the members wrote, if they support one."
)


@dataclass(slots=True)
class Member:
    """One member: its talk, and what its last answer came to."""

    spec: MemberSpec
    talk: Conversation
    ended: Ended | None = None
    outcome: Outcome | None = None
    attempts: int = 0
    is_recovered: bool = False
    usage: Usage = field(default_factory=Usage)

    @property
    def is_good(self) -> bool:
        return self.outcome is Outcome.SUCCEEDED

    def said(self) -> Said:
        fields = self.ended.reply.fields if self.ended and self.ended.reply else {}
        return Said(
            self.spec.id,
            self.spec.role,
            self.is_good,
            fields.get("SUMMARY", "") or (self.ended.reason or "" if self.ended else ""),
            fields.get("CLAIM", ""),
            fields.get("EVIDENCE", ""),
            fields.get("NEXT_STEP", ""),
        )

    def diagnostics(self) -> Diagnostics:
        reply = self.ended.reply if self.ended else None
        if not self.is_good or reply is None:
            return Diagnostics(is_failed=True, confidence=0.0)
        return Diagnostics(
            confidence=reply.confidence,
            evidence=reply.evidence,
            contradictions=reply.contradictions,
            conflicts=reply.conflicts,
        )


class TeamCourse:
    """One team at work."""

    def __init__(self, request: TeamRequest, started: datetime) -> None:
        self.request = request
        self.desk = Desk(request)
        self.members: dict[str, Member] = {}
        self.links: dict[str, list[str]] = {}
        self.rounds: list[RoundReport] = []
        self.judgement: Judgement | None = None
        self.disagreements: list[str] = []
        self.notes: list[str] = []
        self.phase = "loading"
        self.answer: Stored | None = None
        self._started = started

    # -- the course -------------------------------------------------------------------------

    async def main(self) -> TeamResult:
        """The whole course.

        Raises:
            ValueError: the team cannot work as it is described.
            ApplicationError: `InvalidRequest`.
        """
        await self._gather_team()
        pool = self.desk.site.pool_for(self.desk.model_for("worker"))
        calls = 1 if self.request.strategy == "sequential" else len(self.members)
        async with run_permit(pool, self.request, calls, self.desk.wait_for_room):
            self.phase = "initial"
            await self._initial()
            await self._communicate()
            await self._ask_failed_again()
            return await self._conclude()

    async def _gather_team(self) -> None:
        request, named = self.request, self.request.team
        if isinstance(named, str):
            loaded = await doors.load_definition(LoadJob(kind="team", name=named))
            if loaded.spec is None:
                raise invalid(INVALID_REQUEST, loaded.problems)
            self.notes += loaded.warnings
            team = TeamSpec.model_validate({"members": loaded.members, "links": loaded.links})
        else:
            team = named
        active = [m for m in team.members if m.enabled]
        if not active:
            raise ValueError("no member is enabled")
        if len({m.id for m in active}) < len(active):
            raise ValueError("two members have the same id")
        if request.quorum is not None and request.quorum > len(active):
            raise ValueError(f"quorum {request.quorum} of {len(active)} members cannot be met")
        self.links = links_of(team.links, [(m.id, m.role) for m in active])
        allowed = request.tools
        wanted = [t for m in active for t in m.tools or [] if allowed is None or t in allowed]
        tools = list(dict.fromkeys(wanted))
        self.desk.site = await doors.prepare_run(
            PrepareJob(tools=[t for t in tools if t != ASK_HUMAN])
        )
        inline = [] if isinstance(named, str) else wanted
        if problems := unknown_tools([*(allowed or ()), *inline], self.desk.site):
            raise invalid(UNKNOWN_TOOL, problems)
        for member in active:
            self.members[member.id] = self._member(team, member, tools)

    def _member(self, team: TeamSpec, spec: MemberSpec, tools: Sequence[str]) -> Member:
        request = self.request
        mission = f"You are {spec.id}, {spec.role or 'a member'} of a team."
        system = "\n".join(
            t for t in (mission, team.description, spec.description, spec.system) if t
        )
        persona = Persona(
            name=spec.id,
            spec=Stored(value={"system": system}),
            tools=tuple(t for t in spec.tools or [] if t in tools),
            model=spec.model,
            form="member",
            max_turns=request.max_turns,
        )
        inputs = dict(request.lineage.inputs)
        task = inputs.pop("task", None) or Stored(value=request.task)
        if spec.task:
            task = Stored(value=f"{spec.task}\n\n(The team's whole task: {request.task})")
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
            await self._by_graph()
        elif self.request.strategy == "sequential":
            for member in self.members.values():
                await self._ask(member)
        else:
            await self._ask_all(list(self.members.values()))

    async def _by_graph(self) -> None:
        """Members as nodes of a frontier: each starts when those it depends on have answered."""
        frontier = Frontier(self.request.budget.parallel or len(self.members))
        for member in self.members.values():
            for name in member.spec.depends_on:
                if name not in self.members:
                    known = ", ".join(self.members)
                    raise ValueError(f'"{member.spec.id}" depends on "{name}". Members: {known}')
        frontier.add(
            [
                Node(TaskId(m), inputs=tuple(TaskId(d) for d in self.members[m].spec.depends_on))
                for m in self.members
            ]
        )
        frontier.close()
        jobs: dict[str, asyncio.Task[None]] = {}
        while not frontier.is_over:
            for unit in list(units_of(frontier)):
                member = self.members[unit.task]
                heard = await self._predecessors(member)
                jobs[unit.task] = asyncio.create_task(self._ask(member, heard))
            if not jobs:
                raise ValueError("the members wait for each other: depends_on has a cycle")
            await workflow.wait(list(jobs.values()), return_when=asyncio.FIRST_COMPLETED)
            for name in [n for n, job in jobs.items() if job.done()]:
                await jobs.pop(name)
                outcome = self.members[name].outcome or Outcome.FAILED
                for settled in frontier.end(TaskId(name), outcome):
                    self.members[settled.task].outcome = settled.outcome

    async def _predecessors(self, member: Member) -> Stored | None:
        """The results of those a member depends on, as it is told them."""
        if not member.spec.depends_on:
            return None
        lines, inputs = [], dict[str, Stored]()
        for name in member.spec.depends_on:
            ended = self.members[name].ended
            reply = ended.reply if ended else None
            if reply is None or reply.text is None:
                continue
            inputs[name] = reply.text
            lines.append(f"# Result of {name}\n${{{name}}}")
        job = ResolveJob.model_validate(
            {
                "value": "\n\n".join(lines),
                "bindings": {"inputs": inputs},
                "inline_max_bytes": HEARD_INLINE_CHARS,
            }
        )
        return (await doors.resolve_value(job)).stored

    async def _communicate(self) -> None:
        request = self.request
        rounds = request.rounds
        if self._is_graph and "rounds" not in request.model_fields_set:
            rounds = 0  # subtasks differ: there is nothing to agree on unless it is asked for
        for number in range(1, rounds + 1):
            good = [m for m in self.members.values() if m.is_good]
            if len(self.members) < 2 or len(good) < 2:
                break
            said = [m.said() for m in self.members.values()]
            sure = [m.ended.reply.confidence for m in good if m.ended and m.ended.reply]
            if request.consensus and number > 1 and is_consensus(said, sure):
                self.notes.append(f"consensus after round {number - 1}")
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
                if m.outcome is Outcome.FAILED
                and may_retry(m.ended.error_class if m.ended else None, number)
            ]
            if not failed:
                return
            self.phase = f"retry {number}"
            await self._round(self.request.rounds + number, failed, "retry")
            for member in failed:
                member.is_recovered = member.is_good

    async def _ask_all(
        self, members: Sequence[Member], contexts: dict[str, str] | None = None
    ) -> None:
        jobs = []
        for member in members:
            text = (contexts or {}).get(member.spec.id)
            heard = None if text is None else await self._heard(text)
            if self.request.strategy == "sequential":
                await self._ask(member, heard)
            else:
                jobs.append(asyncio.create_task(self._ask(member, heard)))
        for job in jobs:
            await job

    async def _heard(self, text: str) -> Stored:
        if len(text) <= HEARD_INLINE_CHARS:
            return Stored(value=text)
        plain = text.replace("${", "$${")
        job = ResolveJob(value=plain, inline_max_bytes=HEARD_INLINE_CHARS)
        return (await doors.resolve_value(job)).stored

    async def _ask(self, member: Member, heard: Stored | None = None) -> None:
        """One answer of one member; its failure is its own."""
        ended = await member.talk.say(heard)
        member.ended = ended
        member.attempts += max(1, ended.attempts)
        member.usage += ended.usage
        has_answer = ended.reply is not None and not ended.reply.problems
        if ended.status == "cancelled":
            member.outcome = Outcome.CANCELLED
        else:
            member.outcome = Outcome.SUCCEEDED if has_answer else Outcome.FAILED

    # -- the end ----------------------------------------------------------------------------

    async def _conclude(self) -> TeamResult:
        self.phase = "judge"
        members = list(self.members.values())
        formula = judge([m.diagnostics() for m in members])
        said = [m.said() for m in members]
        self.disagreements = disagreements(said)
        self.judgement = formula
        good = [m for m in members if m.is_good]
        text: str | None = None
        if good:
            text = await self._ask_judge(formula, good)
        self.answer = await self._compose(good, text)
        needed = self.request.quorum or 1
        if len(good) < needed:
            status: RunStatus = "partial" if good else "failed"
            return self.result(status, f"{len(good)} of {len(members)} members have an answer")
        failed = [m.spec.id for m in members if not m.is_good]
        if failed and self.request.quorum is None:
            return self.result("partial", "failed: " + ", ".join(failed))
        return self.result("completed", None)

    async def _ask_judge(self, formula: Judgement, good: Sequence[Member]) -> str | None:
        """The model's view; it may lower the verdict. Gives the answer it composed, if any."""
        desk = self.desk
        model = desk.model_for("judge")
        inputs = {m.spec.id: m.ended.reply.text for m in good if m.ended and m.ended.reply}
        context: JsonValue = {
            "task": "${task}",
            "verdict_by_formula": formula.verdict,
            "members": {name: f"${{{name}}}" for name in inputs},
        }
        bound = {"task": Stored(value=self.request.task), **inputs}
        tokens = desk.reserve(sum(s.size_bytes // 2 if s else 0 for s in inputs.values()) + 2_000)
        if tokens is None:
            self.notes.append("judge: the budget leaves no room for the model; the formula stands")
            return None
        job = AskJob.model_validate(
            {
                "task": "judge",
                "role": "judge",
                "prompt": JUDGE_PROMPT,
                "context": context,
                "model": model,
                "output_schema": JUDGE_SCHEMA,
                "bindings": {"inputs": {k: v for k, v in bound.items() if v is not None}},
                "tenant": self.request.tenant,
            }
        )
        try:
            place = desk.place("judge", "judge")
            output = await on_pools(desk.site, job, place, lambda j, p: doors.ask_model(j, p, None))
        except (BodyFailed, BodyCancelled) as failed:
            desk.settle(tokens, failed.usage if isinstance(failed, BodyFailed) else Usage())
            self.notes.append(
                f"judge: the formula stands; the model's answer cannot be used: {failed}"
            )
            return None
        desk.settle(tokens, output.usage)
        found = output.output.value
        if not isinstance(found, dict):
            return None
        confidence = found.get("confidence")
        self.judgement = lowered(
            formula,
            str(found.get("verdict")),
            float(confidence) if isinstance(confidence, int | float) else None,
            str(found.get("reason", "")),
        )
        listed = found.get("disagreements")
        if isinstance(listed, list):
            self.disagreements += [str(d) for d in listed[:20]]
        answer = found.get("answer")
        return answer if isinstance(answer, str) and answer.strip() else None

    async def _compose(self, good: Sequence[Member], text: str | None) -> Stored | None:
        """The team's answer: the judge's, else the members' own, each under its name."""
        if text is not None:
            return Stored(value=text)
        texts = {m.spec.id: m.ended.reply.text for m in good if m.ended and m.ended.reply}
        inputs = {k: v for k, v in texts.items() if v is not None}
        if not inputs:
            return None
        if len(inputs) == 1:
            return next(iter(inputs.values()))
        value = "\n\n".join(f"## {name}\n${{{name}}}" for name in inputs)
        job = ResolveJob.model_validate(
            {
                "value": value,
                "bindings": {"inputs": inputs},
                "inline_max_bytes": ANSWER_INLINE_BYTES,
            }
        )
        return (await doors.resolve_value(job)).stored

    def result(self, status: RunStatus, reason: str | None) -> TeamResult:
        self.phase = status
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
        return TeamResult.model_validate(
            {
                "status": status,
                "answer": shown,
                "members": {name: self._report(m) for name, m in self.members.items()},
                "rounds": self.rounds,
                "judge": self._judge_report(),
                "usage": usage_report(self.desk.used),
                "seconds": round((workflow.now() - self._started).total_seconds(), 3),
                "notes": self.notes,
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

    def _report(self, member: Member) -> dict[str, Any]:
        ended = member.ended
        reply = ended.reply if ended else None
        text = reply.text if reply is not None else None
        shown: dict[str, Any] = {}
        if text is not None and text.is_inline:
            shown = {"output": text.value}
        elif text is not None:
            shown = {"preview": text.preview, "blob": text.blob}
        return {
            "outcome": member.outcome or Outcome.CANCELLED,
            "fields": dict(reply.fields) if reply is not None else {},
            "confidence": reply.confidence if reply is not None and member.is_good else None,
            "attempts": member.attempts,
            "recovered": member.is_recovered,
            "error": None if member.is_good or ended is None else ended.reason,
            **shown,
            "usage": usage_report(member.usage),
        }

    def progress(self) -> dict[str, Any]:
        """The answer of the query `progress`."""
        waits = self.desk.awaiting is not None
        states = {
            name: m.outcome.value if m.outcome else "running" for name, m in self.members.items()
        }
        return {
            "status": "paused" if self.desk.is_paused else "waiting" if waits else self.phase,
            "awaiting": self.desk.awaiting,
            "detail": "; ".join(f"{n}: {q}" for n, q in self.desk.questions.items())
            or self.desk.room_wait,
            "members": states,
            "rounds": [r.model_dump(mode="json") for r in self.rounds],
            "usage": usage_report(self.desk.used).model_dump(mode="json"),
            "seconds": (workflow.now() - self._started).total_seconds(),
        }

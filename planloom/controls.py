"""What people can do about a run, as methods; the same for a run on a server and a local one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from planloom.errors import Refused
from planloom.graph import Graph
from planloom.planner.contract.controls import Reply
from planloom.planner.contract.results import OpenWait, Progress, RunStatus
from planloom.planner.language.plan import Plan
from planloom.planner.language.values import JsonValue

Payload = BaseModel | dict[str, Any]


class Controls:
    """The decisions of DESIGN §4, each an update: it is checked, and answered with a reason.

    Every method raises `Refused` when the run does not take the decision, and gives the run's
    `Reply` when it does. `by` says who decided; the run records it.
    """

    id: str

    async def update(self, name: str, payload: Payload | None = None) -> Reply:
        raise NotImplementedError

    async def progress(self) -> Progress:
        raise NotImplementedError

    async def plan(self) -> Plan:
        """The plan of the newest revision."""
        raise NotImplementedError

    async def graph(self) -> Graph:
        """The plan as a picture, its tasks coloured by their states; a notebook draws it."""
        return Graph(await self.plan(), (await self.progress()).tasks)

    async def waits(self) -> list[OpenWait]:
        """Everything that the run waits for, each with its task or revision."""
        return (await self.progress()).waits

    async def approve(
        self,
        revision: int | None = None,
        *,
        task: str | None = None,
        by: str | None = None,
        note: str | None = None,
    ) -> Reply:
        """Approve the plan that waits, or with `task` one task that waits.

        Without `revision` it is the newest one. Name it in a program that has shown a plan to
        somebody: it is refused if the plan has changed since.
        """
        if task is not None:
            return await self._say("approve_task", id=task, approve=True, by=by, note=note)
        revision = await self._newest(revision)
        return await self._say("approve_plan", revision=revision, by=by, note=note)

    async def reject(
        self,
        reason: str | None = None,
        *,
        revision: int | None = None,
        task: str | None = None,
        by: str | None = None,
    ) -> Reply:
        """Reject the plan that waits, or with `task` one task that waits."""
        if task is not None:
            return await self._say("approve_task", id=task, approve=False, by=by, note=reason)
        revision = await self._newest(revision)
        return await self._say("reject_plan", revision=revision, reason=reason, by=by)

    async def answer(
        self, output: JsonValue, *, task: str | None = None, by: str | None = None
    ) -> Reply:
        """Answer a question to a person. Without `task` it is the only question that is open."""
        task = task if task is not None else await self._only_question()
        payload: dict[str, Any] = {"id": task, "output": output}
        return await self.update("complete_task", payload | ({"by": by} if by else {}))

    async def edit(
        self,
        plan: Plan | Mapping[str, Any] | None = None,
        *,
        patch: Sequence[Mapping[str, Any]] | None = None,
        revision: int | None = None,
        by: str | None = None,
    ) -> Reply:
        """Change the plan: give a whole new one, or an RFC 6902 patch of the current one."""
        if isinstance(plan, Plan):
            plan = plan.model_dump(mode="json", exclude_unset=True, by_alias=True)
        revision = await self._newest(revision)
        return await self._say("edit_plan", revision=revision, plan=plan, patch=patch, by=by)

    async def replan(self, feedback: str, *, by: str | None = None) -> Reply:
        """Ask the planner for another plan."""
        return await self._say("request_replan", feedback=feedback, by=by)

    async def pause(self, *, by: str | None = None) -> Reply:
        """Start no new tasks; running tasks finish."""
        return await self._say("pause", by=by)

    async def resume(self, *, by: str | None = None) -> Reply:
        """Continue after a pause."""
        return await self._say("resume", by=by)

    async def raise_budget(
        self,
        *,
        tokens: int | None = None,
        usd: float | None = None,
        seconds: float | str | None = None,
        tasks: int | None = None,
        parallel: int | None = None,
        by: str | None = None,
    ) -> Reply:
        """New caps. They are totals, not additions; those left out stay."""
        return await self._say(
            "raise_budget",
            tokens=tokens,
            usd=usd,
            seconds=seconds,
            tasks=tasks,
            parallel=parallel,
            by=by,
        )

    async def cancel_task(self, task: str, *, by: str | None = None) -> Reply:
        """Cancel one task."""
        return await self._say("cancel_task", id=task, by=by)

    async def _say(self, name: str, **payload: Any) -> Reply:
        return await self.update(name, {k: v for k, v in payload.items() if v is not None})

    async def _newest(self, revision: int | None) -> int:
        return revision if revision is not None else (await self.progress()).revision

    async def _only_question(self) -> str:
        now = await self.progress()
        asked = [w.task for w in now.waits if w.kind == "human" and w.task]
        if len(asked) == 1:
            return asked[0]
        if now.status in get_args(RunStatus):
            raise Refused(f'run "{self.id}" has ended', "Stale")
        if not asked:
            raise Refused(f'run "{self.id}" has no open question', "Stale")
        raise Refused(f'run "{self.id}" asks {len(asked)} questions: name one as task=…: {asked}')

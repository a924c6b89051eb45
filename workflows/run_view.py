"""What a run shows of itself: its queries, search attributes and current details."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from planloom.planner.compile.explain import mermaid
from planloom.planner.contract.requests import Reused
from planloom.planner.contract.results import Progress
from planloom.planner.language.values import Outcome
from planloom.workflows.machines.run.frontier import State
from planloom.workflows.machines.run.status import details, progress

if TYPE_CHECKING:
    from planloom.workflows.run import Run

DETAILS_EVERY_SECONDS = 1.0


class RunView:
    """Answers queries from a run's state, and tells the server of its changes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._published: tuple[Any, ...] = ()
        self._detailed = -DETAILS_EVERY_SECONDS

    def status_word(self) -> str:
        if self.run.result is not None:
            return self.run.result.status
        if self.run.engine.desk.is_open:
            return "waiting"
        if self.run.engine.frontier.is_paused and not self.run.engine.settling.is_time_up:
            return "paused"
        if self.run.engine.awaiting is not None and not self.run.engine.jobs_but_people():
            return "waiting"
        return self.run.phase

    def progress(self) -> Progress:
        records = self.run.engine.records
        elsewhere: dict[str, str] = {t: "skipped" for t in self.run.pruned if t not in records}
        for alias, kept in self.run.aliases.items():
            state = self.run.engine.frontier.state_of(kept)
            good = isinstance(state, Outcome) and state.is_good
            elsewhere[alias] = "cached" if good else str(state or State.WAITING)
        if self.run.plan is not None and not self.run.engine.tasks:
            elsewhere |= {t.id: State.WAITING.value for t in self.run.plan.tasks}
        return progress(
            status=self.status_word(),
            awaiting=None if self.run.result else self.run.engine.awaiting,
            detail=None if self.run.result else self.run.engine.awaiting_detail(),
            revision=self.run.revision,
            frontier=self.run.engine.frontier,
            settled_elsewhere=elsewhere,
            usage=self.run.usage(),
            seconds=self.run.result.seconds if self.run.result else self.run.engine.now(),
            goal=self.run.goal,
            notes=self.run.engine.notes,
        )

    def plan_document(self) -> dict[str, Any] | None:
        plan = self.run.plan
        return plan.model_dump(mode="json", exclude_unset=True, by_alias=True) if plan else None

    def graph(self) -> str:
        if self.run.plan is None:
            return "flowchart TD"
        return mermaid(self.run.plan, self.progress().tasks)

    def usage_document(self) -> dict[str, Any]:
        ledger = self.run.engine.ledger
        held, caps, settled = ledger.held, ledger.caps, ledger.settled
        return self.run.usage().model_dump(mode="json") | {
            "settled": {
                "tokens": settled.tokens,
                "usd": settled.usd_nano / 1e9,
                "tasks": settled.tasks,
            },
            "reserved": {"tokens": held.tokens, "usd": held.usd_nano / 1e9, "tasks": held.tasks},
            "caps": {
                "tokens": caps.tokens,
                "usd": None if caps.usd_nano is None else caps.usd_nano / 1e9,
                "tasks": caps.tasks,
                "seconds": self.run.engine.clock.cap,
            },
        }

    def estimate_document(self) -> dict[str, Any] | None:
        report = self.run.estimate_report()
        return report.model_dump(mode="json") if report else None

    def diff(self) -> list[str]:
        return list(self.run.revisions[-1].changes) if self.run.revisions else []

    def outputs(self) -> dict[str, Any]:
        """Finished tasks as a fork reuses them."""
        return {
            task: Reused(outcome=r.outcome, output=r.output).model_dump(
                mode="json", exclude_unset=True
            )
            for task, r in self.run.engine.records.items()
            if r.outcome is not None and r.outcome.is_good and r.output is not None
        }

    def revisions_document(self) -> list[dict[str, Any]]:
        return [
            {
                "revision": r.number,
                "why": r.why,
                "by": r.by,
                "changes": r.changes,
                "plan": r.plan.model_dump(mode="json", exclude_unset=True, by_alias=True),
            }
            for r in self.run.revisions
        ]

    def show(self) -> None:
        """Tell the Web UI where the run stands: search attributes and current details."""
        engine, word = self.run.engine, self.status_word()
        awaiting = None if self.run.result else engine.awaiting
        now = (word, self.run.revision, awaiting)
        if now != self._published:
            self._published = now
            self._upsert(word, awaiting)
        elif engine.now() - self._detailed < DETAILS_EVERY_SECONDS:
            return
        self._detailed = engine.now()
        shown = self.progress()
        graph = (
            mermaid(self.run.plan, shown.tasks) if self.run.plan and len(shown.tasks) <= 40 else ""
        )
        workflow.set_current_details(details(shown, engine.records, graph))

    def _upsert(self, word: str, awaiting: str | None) -> None:
        # An attribute the server does not know would hang the run, so only known ones are set.
        known = self.run.engine.catalog.search_attributes
        updates: list[SearchAttributeUpdate[Any]] = []
        if "PlanloomStatus" in known:
            updates.append(SearchAttributeKey.for_keyword("PlanloomStatus").value_set(word))
        if "PlanloomRevision" in known:
            updates.append(
                SearchAttributeKey.for_int("PlanloomRevision").value_set(self.run.revision)
            )
        if "PlanloomAwaiting" in known:
            key = SearchAttributeKey.for_keyword_list("PlanloomAwaiting")
            updates.append(key.value_set([awaiting] if awaiting else []))
        if "PlanloomTenant" in known and self.run.request.tenant and len(self.run.revisions) <= 1:
            key_tenant = SearchAttributeKey.for_keyword("PlanloomTenant")
            updates.append(key_tenant.value_set(self.run.request.tenant))
        if updates:
            workflow.upsert_search_attributes(updates)

"""Budget over a tree: a child run works inside a grant, and asks its parent for more.

Grants by demand, not by share: the parent's ledger stays the one owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from temporalio import workflow

from planloom.planner.contract.controls import GrantWanted, RaiseBudget
from planloom.planner.language.values import NANO
from planloom.workflows.machines.shared.budget import Amount
from planloom.workflows.shell import activities as doors

if TYPE_CHECKING:
    from planloom.workflows.engine import Engine


def key_of_child(name: str, keys: Iterable[str]) -> str | None:
    """The reservation of a child run: named like it, but for its round or its fallback."""
    fitting = [k for k in keys if name == k or name.startswith(f"{k}.")]
    return max(fitting, key=len, default=None)


class Grants:
    """What this run's children wait for, and whether it waits for its own parent."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.wanted: dict[str, GrantWanted] = {}
        """Children that have used their grant up, by the key of their reservation."""
        self.has_asked = False

    def park(self, lack: str, least: Amount) -> None:
        """Nothing that runs can give any budget back: ask the parent, a person, or end."""
        self.engine.lack = lack
        if not self.ask(least) and self.engine.on_budget == "partial":
            self.engine.stopping.stop(f"budget: {self.engine.lack}")

    def ask(self, least: Amount) -> bool:
        """Ask the parent run for more, once; False where there is none to ask."""
        lineage = self.engine.request.lineage
        if lineage.parent is None or lineage.grant is None:
            return False
        if not self.has_asked:
            self.has_asked = True
            job = asyncio.create_task(self.ask_parent(lineage.parent, least))
            job.add_done_callback(self.engine.keep_bug)
        return True

    async def ask_parent(self, parent: str, least: Amount) -> None:
        me = workflow.info().workflow_id
        wanted = GrantWanted(
            child=me,
            name=me.removeprefix(f"{parent}/"),
            tokens=least.tokens,
            usd_nano=least.usd_nano,
            tasks=least.tasks,
        )
        await doors.tell(parent, "grant_wanted", wanted)

    def take(self, wanted: GrantWanted) -> None:
        """A child run has used its grant up."""
        key = key_of_child(wanted.name, self.engine.ledger.reserved)
        if key is not None:
            self.wanted[key] = wanted
            self.engine.pump()
            self.engine.on_change()

    def grant_more(self) -> None:
        """Give waiting children what is free; with nothing left to wait for, park with them."""
        for key, wanted in list(self.wanted.items()):
            if key not in self.engine.ledger.reserved:
                del self.wanted[key]
                continue
            least = Amount(wanted.tokens, wanted.usd_nano, wanted.tasks)
            want = least + Amount(least.tokens * 3, least.usd_nano * 3, 0)
            total = self.engine.ledger.extend(key, want, least)
            if total is not None:
                del self.wanted[key]
                job = asyncio.create_task(self.send(wanted.child, total))
                job.add_done_callback(self.engine.keep_bug)
            elif set(self.engine.ledger.reserved) <= set(self.wanted):
                self.park(f'Task "{key}" {self.engine.ledger.shortfall(least)}', least)

    def raised(self) -> None:
        """More room: a parent may be asked again when it runs out."""
        self.has_asked = False

    async def send(self, child: str, total: Amount) -> None:
        caps = self.engine.ledger.caps
        raised = RaiseBudget(
            tokens=total.tokens if caps.tokens is not None else None,
            usd=total.usd_nano / NANO if caps.usd_nano is not None else None,
            # One of them is the child itself.
            tasks=total.tasks - 1 if caps.tasks is not None and total.tasks > 1 else None,
            by="parent",
        )
        await doors.tell(child, "raise_budget", raised)

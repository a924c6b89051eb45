"""A plan's graph as a picture: a notebook draws it by itself, a script saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planloom.planner.compile.drawing.svg import plan_svg
from planloom.planner.compile.explain import mermaid
from planloom.planner.language.plan import Plan


class Graph:
    """The graph of a plan; with `states` (task id to state or outcome) its tasks are coloured.

    `Graph(plan)` before a run, `await run.graph()` of a run as it stands now.
    """

    def __init__(
        self, plan: Plan | Mapping[str, Any], states: Mapping[str, str] | None = None
    ) -> None:
        self.plan = plan if isinstance(plan, Plan) else Plan.model_validate(dict(plan))
        self.states = dict(states or {})

    @property
    def svg(self) -> str:
        return plan_svg(self.plan, self.states)

    @property
    def mermaid(self) -> str:
        return mermaid(self.plan, self.states)

    def save(self, path: str | Path) -> Path:
        """Write the picture: `.svg`, or Mermaid's source for any other name."""
        path = Path(path)
        path.write_text(self.svg if path.suffix == ".svg" else self.mermaid, encoding="utf-8")
        return path

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self.svg}</div>'

    def __repr__(self) -> str:
        named = ", ".join(t.id for t in self.plan.tasks[:8])
        more = ", …" if len(self.plan.tasks) > 8 else ""
        return f"<Graph of {len(self.plan.tasks)} tasks: {named}{more}>"

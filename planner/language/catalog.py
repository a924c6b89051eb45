"""What a run may use, as its worker describes it: tools, pools, models, prices. Values only."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from pydantic import Field

from planloom.planner.language.values import JsonValue, Model

FAMILY_PREFIX = "planloom-family:"
"""How a secret of a run and its children begins."""


class ToolSpec(Model):
    """A registered tool as planner, compiler and dispatcher see it.

    `parameters` is the JSON Schema of its arguments (an object schema); `version` changes when the
    tool's code or signature does, and is part of its cache key.
    """

    name: str
    description: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    idempotent: bool = True
    side_effects: bool = False
    outside: bool = False
    """Its output comes from outside: what it says may be meant to mislead."""
    local: bool = False
    timeout_seconds: float | None = None
    cost_usd: float | None = None
    pool: str | None = None
    examples: list[str] = Field(default_factory=list)
    version: str = ""


class PoolSpec(Model):
    """One model endpoint as a workflow needs it: which models it serves, and its queue."""

    name: str
    models: list[str] = Field(default_factory=lambda: ["*"])
    task_queue: str = ""
    fallback: str | None = None
    is_metered: bool = False
    """True when the settings limit its rate or its parallelism."""
    capacity_id: str = ""
    """The id of its `CapacityWorkflow`."""
    is_reserved: bool = False
    """True when whole runs and teams need a permit of it before they start."""
    max_calls: int | None = None

    def model_for(self, model: str | None) -> str | None:
        """The model to ask for here: that one if it is served, else the first that is named."""
        if any(fnmatchcase(model or "", pattern) for pattern in self.models):
            return model
        return next((m for m in self.models if not set(m) & set("*?[")), model)


class Catalog(Model):
    """What a run may use, as its worker described it once at the start; recorded in its history.

    `models` maps each role (planner, joiner, judge, worker) to a model name, `""` when none is set.
    `prices` maps a model name to (input, output) nano-dollars per token, absent when unknown.
    """

    tools: list[ToolSpec] = Field(default_factory=list)
    tool_names: list[str] = Field(default_factory=list)
    """All registered names, for near misses; `tools` describes only those this run may use."""
    pools: list[PoolSpec] = Field(default_factory=list)
    tools_queue: str = "planloom"
    models: dict[str, str] = Field(default_factory=dict)
    prices: dict[str, tuple[int, int]] = Field(default_factory=dict)
    agents: dict[str, str] = Field(default_factory=dict)
    """Known agents: name to description."""
    teams: dict[str, str] = Field(default_factory=dict)
    disabled_agents: list[str] = Field(default_factory=list)
    disabled_teams: list[str] = Field(default_factory=list)
    """Those that are switched off in their files: known, and not to be used."""
    templates: dict[str, JsonValue] = Field(default_factory=dict)
    """The templates the request and its sub-plans name: name to plan document."""
    template_names: list[str] = Field(default_factory=list)
    search_attributes: list[str] = Field(default_factory=list)
    """Those registered on the server: an unregistered one would hang the run."""
    tool_seconds: dict[str, float] = Field(default_factory=dict)
    """Likely duration of each tool from its history, for ranking and estimates."""

    dag_retry: list[str] | None = None
    """Error classes worth another round of the run; None is the table's own."""
    tenants: dict[str, float] = Field(default_factory=dict)
    """Weights by which tenants share a pool."""
    secret: str = ""
    """Known to the run and its children: what they say to each other goes with it."""

    def pool_for(self, model: str | None) -> PoolSpec:
        """The pool that serves a model; the first one when none says so."""
        for pool in self.pools:
            if any(fnmatchcase(model or "", pattern) for pattern in pool.models):
                return pool
        return self.pools[0] if self.pools else PoolSpec(name="default")

    def pools_for(self, model: str | None) -> list[PoolSpec]:
        """The pool that serves a model, then its fallback, and so on, each once."""
        pools = [self.pool_for(model)]
        while (name := pools[-1].fallback) is not None:
            following = next((p for p in self.pools if p.name == name), None)
            if following is None or following in pools:
                break
            pools.append(following)
        return pools

    def tool(self, name: str) -> ToolSpec | None:
        return next((t for t in self.tools if t.name == name), None)

    def describes_all(
        self,
        tools: Collection[str],
        templates: Collection[str],
        agents: Collection[str],
        teams: Collection[str],
    ) -> bool:
        """Whether all of these names that the worker has are described here."""
        return (
            all(self.tool(t) is not None or t not in self.tool_names for t in tools)
            and all(t in self.templates or t not in self.template_names for t in templates)
            and (bool(self.agents) or not agents)
            and (bool(self.teams) or not teams)
        )

    def joined_with(self, more: Catalog) -> Catalog:
        """The same with what another plan's names brought."""
        tools = {t.name: t for t in (*self.tools, *more.tools)}
        return self.model_copy(
            update={
                "tools": list(tools.values()),
                "agents": self.agents | more.agents,
                "teams": self.teams | more.teams,
                "disabled_agents": more.disabled_agents or self.disabled_agents,
                "disabled_teams": more.disabled_teams or self.disabled_teams,
                "templates": self.templates | more.templates,
                "prices": self.prices | more.prices,
                "tool_seconds": self.tool_seconds | more.tool_seconds,
            }
        )

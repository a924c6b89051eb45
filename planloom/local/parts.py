"""What a local run is made of: the tools, models and values that a worker would have."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from planloom.activities.agent_turn import TurnActivities
from planloom.activities.ask import ModelActivities
from planloom.activities.definitions import DefinitionActivities, Definitions
from planloom.activities.join import JoinActivities
from planloom.activities.models.client import ModelClient
from planloom.activities.models.prices import Prices
from planloom.activities.prepare import PrepareActivities
from planloom.activities.resolve import ResolveActivities
from planloom.activities.run_group import GroupActivities
from planloom.activities.run_tool import ToolActivities
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.claims import ClaimStore
from planloom.activities.storage.memory import MemoryBackend
from planloom.activities.tools.builtin import ASK_SPEC, BUILTIN_TOOLS
from planloom.activities.tools.decorator import tools_of
from planloom.activities.tools.registry import ToolRegistry
from planloom.activities.tools.runner import ToolRunner
from planloom.activities.tools.times import ToolTimes
from planloom.activities.tools.trusted import trusted_places
from planloom.activities.write_plan import PlanActivities, Runs
from planloom.planner.contract.settings import Settings, settings_from


class LocalParts:
    """The activities of one local run, and the in-memory store of its large values."""

    def __init__(
        self,
        tools: Sequence[Callable[..., Any]] = (),
        workspace: Path = Path(),
        settings: Settings | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        environment = os.environ if environment is None else environment
        settings = (settings or settings_from(environment)).without_reservations()
        self.registry = ToolRegistry([*BUILTIN_TOOLS, *tools_of(tools)], [ASK_SPEC])
        self.registry.load_mcp(settings.mcp)
        self.blobs = BlobStore(MemoryBackend())
        self.models = ModelClient(settings, environment, Prices(settings))
        workspace = workspace.resolve()
        times = ToolTimes()
        definitions = Definitions(workspace)
        runner = ToolRunner(
            self.registry,
            self.blobs,
            workspace=workspace,
            claims=ClaimStore(self.blobs.backend.within("claims")),
            times=times,
            trusted=trusted_places(settings, environment),
        )
        self.tools = ToolActivities(runner)
        self.groups = GroupActivities(runner)
        self.asks = ModelActivities(self.models, self.blobs)
        self.joins = JoinActivities(self.models, self.blobs)
        self.values = ResolveActivities(self.blobs)
        self.turns = TurnActivities(self.models, self.registry, self.blobs)
        self.definitions = DefinitionActivities(definitions, self.blobs)
        self.prepare = PrepareActivities(
            self.registry,
            settings.model_copy(update={"workspace": str(workspace)}),
            self.models.prices,
            search_attributes=list,
            tool_seconds=times.likely,
            agents=lambda: definitions.descriptions("agent"),
            teams=lambda: definitions.descriptions("team"),
            disabled=definitions.disabled,
        )

    def planner(self, runs: Runs) -> PlanActivities:
        """The planner's activity; accepted tasks go to the run by `runs`."""
        return PlanActivities(self.models, runs, self.registry, self.blobs)

    async def close(self) -> None:
        await self.models.close()

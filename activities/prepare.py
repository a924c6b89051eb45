"""The activity `prepare_run`: what a run must know of its worker, in a few milliseconds."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, get_args

from pydantic import TypeAdapter
from temporalio import activity
from temporalio.exceptions import ApplicationError

from planloom.activities.models.heartbeats import Heartbeat
from planloom.activities.storage.blobs import BlobError, BlobStore
from planloom.activities.storage.threads import in_computing_thread, in_storage_thread
from planloom.activities.template_files import (
    TemplateFiles,
    UsedNames,
    names_used_in,
    template_folders,
)
from planloom.activities.tools.registry import ToolRegistry
from planloom.planner.compile.expand import compile_request
from planloom.planner.compile.pipeline import Compiled
from planloom.planner.contract.jobs import PrepareJob
from planloom.planner.contract.large_plans import PreparedPlan, PreparePlanJob, packed_parts
from planloom.planner.contract.prepare import prepare_job
from planloom.planner.contract.requests import Role
from planloom.planner.contract.settings import Settings
from planloom.planner.language.catalog import FAMILY_PREFIX, Catalog, PoolSpec, ToolSpec
from planloom.planner.language.plan import PLAN_FILE_MAX_BYTES
from planloom.planner.language.values import Problem, Stored
from planloom.planner.syntax.documents import read_plan

COMPILED: TypeAdapter[Compiled] = TypeAdapter(Compiled)
DESCRIPTION_MAX_CHARS = 200
ASK = "ask"


class PriceList(Protocol):
    """(input, output) nano-dollars per token of a model, None when unknown."""

    def per_token_nano(self, model: str, pool: str = "default") -> tuple[int, int] | None: ...


def _nothing() -> Mapping[str, str]:
    return {}


def _no_seconds() -> Mapping[str, float]:
    return {}


def _none_of(_: str) -> Sequence[str]:
    return ()


class PrepareActivities:
    """Answers from what the worker has loaded; the callables are asked again for every run.

    `search_attributes` are those registered on the server; `tool_seconds` the likely duration of
    each tool; `agents` and `teams` map known names to descriptions; `disabled` gives the names of
    agents or teams that are switched off; `blobs` is where large plans lie.
    """

    def __init__(
        self,
        registry: ToolRegistry,
        settings: Settings,
        prices: PriceList,
        *,
        search_attributes: Callable[[], Sequence[str]],
        tool_seconds: Callable[[], Mapping[str, float]] = _no_seconds,
        agents: Callable[[], Mapping[str, str]] = _nothing,
        teams: Callable[[], Mapping[str, str]] = _nothing,
        disabled: Callable[[str], Sequence[str]] = _none_of,
        templates: TemplateFiles | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        self._blobs = blobs
        self._registry = registry
        self._settings = settings
        self._prices = prices
        self._search_attributes = search_attributes
        self._tool_seconds = tool_seconds
        self._agents = agents
        self._teams = teams
        self._disabled = disabled
        self._templates = templates or _template_files(Path(settings.workspace))

    @activity.defn(name="prepare_run")
    async def prepare_run(self, job: PrepareJob) -> Catalog:
        """The catalog of one run: recorded in history, so only what the run can use."""
        if job.is_goal or job.templates or job.agents or job.teams:
            # Files of the workspace, which are read for the first time, may be long.
            return await in_computing_thread(self.catalog, job)
        return self.catalog(job)

    @activity.defn(name="prepare_plan")
    async def prepare_plan(self, job: PreparePlanJob) -> PreparedPlan:
        """The catalog of a run with a large plan, and the plan, compiled.

        Raises:
            ApplicationError: type `unknown`: the plan cannot be read from the blob store now.
        """
        assert self._blobs is not None
        request = job.request
        assert request.plan_blob is not None
        try:
            size = await in_storage_thread(self._blobs.backend.size, request.plan_blob)
            if size is None:
                return _refused(f"no blob {request.plan_blob} in {self._blobs.place}")
            content = await self._blobs.read_bytes(request.plan_blob)
        except BlobError as error:
            raise ApplicationError(str(error), type="unknown") from error
        async with Heartbeat():
            found = await in_computing_thread(self._compiled, job, content)
            if isinstance(found, PreparedPlan):
                return found
            catalog, text = found
            parts = await self._in_parts(text)
        return PreparedPlan(catalog=catalog, parts=parts)

    def _compiled(
        self, job: PreparePlanJob, content: bytes
    ) -> PreparedPlan | tuple[Catalog, bytes]:
        """The compiled plan as JSON; or all that is wrong with the plan."""
        if len(content) > PLAN_FILE_MAX_BYTES:
            return _refused(f"has {len(content):,} bytes; at most {PLAN_FILE_MAX_BYTES:,}")
        plan, problems = read_plan(content.decode("utf-8", "replace"), limit=PLAN_FILE_MAX_BYTES)
        if plan is None:
            return PreparedPlan(problems=problems)
        whole = job.request.model_copy(update={"plan": plan})
        catalog = self.catalog(prepare_job(whole))
        compiled = compile_request(job.request, plan, catalog, depth=job.depth, given=job.given)
        if compiled.problems:
            return PreparedPlan(problems=compiled.problems)
        return catalog, COMPILED.dump_json(compiled, exclude_unset=True, by_alias=True)

    async def _in_parts(self, text: bytes) -> list[Stored]:
        assert self._blobs is not None
        parts = [await self._blobs.store_value(p, inline_max_bytes=0) for p in packed_parts(text)]
        return [p.model_copy(update={"preview": None}) for p in parts]

    def catalog(self, job: PrepareJob) -> Catalog:
        templates = self._templates.load_with_named(job.templates)
        named = names_used_in(list(templates.values()))
        tools = self._tools(job, named)
        roles = self._roles()
        seconds = self._tool_seconds()
        names = {t.name for t in tools}
        # A plan that names none has no use for the list, and history none for its length.
        agents, teams = (
            job.is_goal or bool(listed or templates) for listed in (job.agents, job.teams)
        )
        return Catalog(
            tools=tools,
            tool_names=self._registry.names,
            pools=self._pools(),
            tools_queue=self._settings.tools_task_queue,
            models=roles,
            prices=self._known_prices([*roles.values(), *job.models, *named.models]),
            agents=_short(self._agents()) if agents else {},
            teams=_short(self._teams()) if teams else {},
            disabled_agents=list(self._disabled("agent")) if agents else [],
            disabled_teams=list(self._disabled("team")) if teams else [],
            templates=templates,
            template_names=self._templates.names(),
            search_attributes=list(self._search_attributes()),
            dag_retry=self._dag_retry(),
            tenants=dict(self._settings.tenants),
            tool_seconds={n: s for n, s in seconds.items() if n in names},
            secret=FAMILY_PREFIX + secrets.token_hex(16),
        )

    def _tools(self, job: PrepareJob, named: UsedNames) -> list[ToolSpec]:
        wanted = {*job.tools, *named.tools, ASK}
        return [
            _small(spec)
            for spec in self._registry.specs
            if (spec.name in wanted or (job.is_goal and not job.tools))
            # An ask is a model call, not a tool, whatever the allow-list says of tools.
            and (job.allow is None or spec.name in job.allow or spec.name == ASK)
        ]

    def _pools(self) -> list[PoolSpec]:
        return [
            PoolSpec(
                name=name,
                models=pool.models,
                task_queue=self._settings.llm_task_queue(name),
                fallback=pool.fallback,
                is_metered=pool.is_metered,
                capacity_id=self._settings.capacity_id(name) if pool.is_reserved else "",
                is_reserved=pool.is_reserved,
                max_calls=pool.max_calls,
            )
            for name, pool in self._settings.pools.items()
        ]

    def _dag_retry(self) -> list[str] | None:
        if not self._settings.retries:
            return None
        return [name for name, rule in self._settings.retry_table.items() if rule.dag_retry]

    def _roles(self) -> dict[str, str]:
        models, default = self._settings.models, self._settings.model
        return {
            role: models.get(role) or models.get("worker") or default or ""
            for role in get_args(Role)
        }

    def _known_prices(self, models: Sequence[str]) -> dict[str, tuple[int, int]]:
        prices: dict[str, tuple[int, int]] = {}
        for model in dict.fromkeys(m for m in models if m):
            pool = next((n for n, p in self._settings.pools.items() if p.serves(model)), "default")
            if (price := self._prices.per_token_nano(model, pool)) is not None:
                prices[model] = price
        return prices


def _template_files(workspace: Path) -> TemplateFiles:
    return TemplateFiles(template_folders(workspace), workspace)


def _refused(message: str) -> PreparedPlan:
    hint = "Put the plan there with: planloom plan store FILE (with the settings of the workers)."
    problem = Problem(path="plan_blob", code="unreadable", message=message, hint=hint)
    return PreparedPlan(problems=[problem])


def _small(spec: ToolSpec) -> ToolSpec:
    # Compiler and dispatcher need the facts; the planner's prompt is made from the registry.
    return spec.model_copy(update={"examples": [], "description": _first_line(spec.description)})


def _first_line(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= DESCRIPTION_MAX_CHARS else line[: DESCRIPTION_MAX_CHARS - 1] + "…"


def _short(descriptions: Mapping[str, str]) -> dict[str, str]:
    return {name: _first_line(text) for name, text in descriptions.items()}

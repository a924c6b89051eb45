"""Settings as pure values: flag > environment > `planloom.toml` > default (DESIGN §4).

Nothing here reads the environment or a file: `worker.py` and the command line pass both in.
Temporal's own settings are not here: `temporalio.envconfig` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.retries import RetryOverride, RetryTable, table_with
from planloom.planner.language.values import Model, Problem


class Price(Model):
    """Dollars per million tokens."""

    input_usd_per_million: Annotated[float, Field(ge=0)]
    output_usd_per_million: Annotated[float, Field(ge=0)]


class PoolSettings(Model):
    """`[pools.<name>]`: one model endpoint. The key itself stays in the worker's environment."""

    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    models: list[str] = Field(default_factory=lambda: ["*"])
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    prices: dict[str, Price] = Field(default_factory=dict)
    fallback: str | None = None
    """The pool that takes a call which this one cannot serve (key, capacity, no answer)."""
    penalty: Literal["off", "legacy", "enhanced"] = "enhanced"
    penalty_seconds: Annotated[float, Field(gt=0, le=86_400)] = 1.0
    """One step of the penalty's decay."""
    predictive: bool = False
    """Lower the parallelism also by the chance of a 429, from the last hour's."""
    on_broken: Literal["fail", "wait"] = "fail"
    """While a breaker is open (bad key, model gone): calls fail with its cause, or wait."""
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """Reservations: requests at once. Without it `parallel`."""
    max_calls: Annotated[int, Field(ge=1)] | None = None
    """Reservations: model calls at once. Without it `parallel`."""
    max_runs: Annotated[int, Field(ge=1)] | None = None
    """Reservations: holders at once."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 600.0

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("give the name of the variable that holds the key, not the key")
        return name

    def limits(self) -> PoolSettings:
        """What rules a pool's rate and room: history holds no address, for it may hold a password,
        and no name of a key.
        """
        kept = self.model_dump(exclude={"base_url", "api_key_env", "models", "prices", "fallback"})
        return PoolSettings.model_validate(kept)

    @property
    def is_metered(self) -> bool:
        return bool(self.requests_per_minute or self.tokens_per_minute or self.parallel)

    @property
    def is_reserved(self) -> bool:
        """Whether whole runs need a permit before they start."""
        return bool(self.max_requests or self.max_calls or self.max_runs)

    def serves(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)


class Settings(Model):
    """Everything a worker or the CLI is configured by, beside Temporal's own settings."""

    task_queue: str = "planloom"
    tools_queue: str | None = None
    llm_queue_prefix: str | None = None
    data_dir: str = ""
    blob_url: str | None = None
    """A folder, or object storage: `s3://bucket/prefix`, `gs://…`, `az://account/container/prefix`.
    None means `<data_dir>/blobs`."""
    workspace: str = "."
    tools: list[str] = Field(default_factory=list)
    """Tool modules to load."""
    model: str | None = None
    models: dict[Literal["planner", "joiner", "judge", "worker"], str] = Field(default_factory=dict)
    prices: dict[str, Price] = Field(default_factory=dict)
    pools: dict[str, PoolSettings] = Field(default_factory=dict)
    retries: dict[ErrorClass, RetryOverride] = Field(default_factory=dict)
    """`[retries.<class>]`: changes of the retry table in docs/capacity.md."""
    tenants: dict[str, Annotated[float, Field(ge=0.001, le=1000)]] = Field(default_factory=dict)
    """`[tenants]`: weights by which tenants share a pool; one that is not named has 1."""
    context_windows: dict[str, Annotated[int, Field(ge=256)]] = Field(default_factory=dict)
    """`[context_windows]`: tokens that a model reads and writes, by pattern of its name; the first
    that fits counts, and a model without one is not limited here."""
    max_activities: Annotated[int, Field(ge=1, le=5000)] = 200
    """Activity slots of one worker process per queue."""

    @property
    def tools_task_queue(self) -> str:
        return self.tools_queue or f"{self.task_queue}-tools"

    def llm_task_queue(self, pool: str) -> str:
        return f"{self.llm_queue_prefix or self.task_queue + '-llm'}-{pool}"

    @property
    def retry_table(self) -> RetryTable:
        return table_with(self.retries)

    def context_window(self, model: str) -> int | None:
        """Tokens that a model reads and writes in one call, where that is known."""
        fits = (w for pattern, w in self.context_windows.items() if fnmatchcase(model, pattern))
        return next(fits, None)

    def capacity_id(self, pool: str) -> str:
        """The id of a pool's `CapacityWorkflow`."""
        return f"{self.task_queue}-capacity-{pool}"

    def blobs_dir(self) -> Path:
        return Path(self.blob_url) if self.blob_url else Path(self.data_dir) / "blobs"


class SettingsError(Exception):
    """Settings that cannot be used; `problems` lists all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(p.line() for p in problems))

    @classmethod
    def of(cls, path: str, message: str) -> SettingsError:
        return cls([Problem(path=path, code="unreadable", message=message)])


_FROM_ENVIRONMENT = {
    "PLANLOOM_TASK_QUEUE": "task_queue",
    "PLANLOOM_TOOLS_QUEUE": "tools_queue",
    "PLANLOOM_LLM_QUEUE_PREFIX": "llm_queue_prefix",
    "PLANLOOM_DATA_DIR": "data_dir",
    "PLANLOOM_BLOB_URL": "blob_url",
    "PLANLOOM_WORKSPACE": "workspace",
    "PLANLOOM_MODEL": "model",
    "PLANLOOM_MAX_ACTIVITIES": "max_activities",
}


def settings_from(
    environment: Mapping[str, str],
    toml: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    default_data_dir: str = ".planloom",
) -> Settings:
    """Settings from flags over environment over the parsed `planloom.toml` over defaults.

    Without `[pools]` there is one pool, `default`, from `OPENAI_BASE_URL` and `OPENAI_API_KEY`.

    Raises:
        SettingsError: with every problem found.
    """
    merged: dict[str, Any] = {"data_dir": default_data_dir, **(toml or {})}
    for name, field in _FROM_ENVIRONMENT.items():
        if environment.get(name):
            merged[field] = environment[name]
    if environment.get("PLANLOOM_TOOLS"):
        merged["tools"] = [m.strip() for m in environment["PLANLOOM_TOOLS"].split(",") if m.strip()]
    merged |= {k: v for k, v in (flags or {}).items() if v is not None}
    if not merged.get("pools"):
        merged["pools"] = {"default": {"base_url": environment.get("OPENAI_BASE_URL") or None}}
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(
            [
                Problem(
                    path="planloom.toml: " + ".".join(str(p) for p in e["loc"]),
                    code=e["type"],
                    # Who writes a key where its variable's name belongs does not see it printed.
                    message=e["msg"]
                    + ("" if "api_key_env" in e["loc"] else f" (seen: {e['input']!r})"),
                )
                for e in error.errors()
            ]
        ) from None
    problems = [
        Problem(
            path=f"planloom.toml: pools.{name}.fallback",
            code="unknown_pool",
            message=f'no pool "{pool.fallback}"',
            hint="Pools: " + ", ".join(settings.pools),
        )
        for name, pool in settings.pools.items()
        if pool.fallback is not None and pool.fallback not in settings.pools
    ]
    if problems:
        raise SettingsError(problems)
    return settings

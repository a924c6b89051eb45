"""Settings as pure values: flag > environment > `planloom.toml` > default (DESIGN §4).

Nothing here reads the environment or a file: `worker.py` and the command line pass both in.
Temporal's own settings are not here: `temporalio.envconfig` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from planloom.planner.contract.jobs import ErrorClass
from planloom.planner.contract.mcp import McpSettings
from planloom.planner.contract.retries import RetryOverride, RetryTable, table_with
from planloom.planner.language.plain_errors import hidden, problem_of
from planloom.planner.language.values import Model, Problem


class Price(Model):
    """Dollars per million tokens."""

    input_usd_per_million: Annotated[float, Field(ge=0)]
    """US dollars for a million tokens read."""
    output_usd_per_million: Annotated[float, Field(ge=0)]
    """US dollars for a million tokens written."""


class Accepts(Model):
    """`[pools.<name>.accepts."<pattern>"]`: what is known of the models whose name fits a pattern.

    Planloom does not test what is set here, and never forgets it.
    """

    without: list[str] = Field(default_factory=list)
    """Parameters that are never sent, such as `temperature`."""
    response_format: Literal["json_schema", "json_object", "none"] | None = None
    """The strictest form of answers that the model accepts. Without it, Planloom finds out."""
    limit: Literal["max_tokens", "max_completion_tokens"] | None = None
    """The name under which the limit of an answer is sent. Without it, Planloom finds out."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """The largest limit of an answer, in tokens. Without it, Planloom finds out."""


def shown_address(url: str) -> str:
    """An address without user, password and query: each may be a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class PoolSettings(Model):
    """`[pools.<name>]`: one model endpoint. The key itself stays in the worker's environment."""

    base_url: str | None = None
    """The address of the OpenAI-compatible endpoint, usually ending in `/v1`. Without it,
    OpenAI's."""
    api_key_env: str = "OPENAI_API_KEY"
    """The variable that holds the key: a name that ends in `_API_KEY`, or one that is listed in
    `PLANLOOM_KEY_VARIABLES` in the worker's environment."""
    models: list[str] = Field(default_factory=lambda: ["*"])
    """Patterns of model names that this pool serves. The first pool that fits is used."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """The most requests a minute, over all workers. Without it, no limit."""
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    """The most tokens a minute, over all workers. Without it, no limit."""
    parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The most calls at once, over all workers. Without it, Planloom finds out."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """Prices by model name. They replace the built-in ones."""
    fallback: str | None = None
    """The pool that takes a call which this one cannot serve (key, capacity, no answer)."""
    penalty: Literal["off", "legacy", "enhanced"] = "enhanced"
    """How the endpoint's errors lower the parallelism. See the page on capacity."""
    penalty_seconds: Annotated[float, Field(gt=0, le=86_400)] = 1.0
    """Seconds in which the penalty halves."""
    predictive: bool = False
    """Whether the parallelism is also lowered by the chance of a 429, learned from the last
    hour."""
    on_broken: Literal["fail", "wait"] = "fail"
    """While a breaker is open (bad key, model gone): calls fail with its cause, or wait."""
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """Permits: requests at once. Without it, `parallel`."""
    max_calls: Annotated[int, Field(ge=1)] | None = None
    """Permits: model calls at once. Without it, `parallel`."""
    max_runs: Annotated[int, Field(ge=1)] | None = None
    """Permits: holders at once. Without it, no limit."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 600.0
    """The longest that one request may take, in seconds."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of each request. None of them may be secret: see `headers_env`."""
    headers_env: dict[str, str] = Field(default_factory=dict)
    """Headers whose values are secret, each with the name of the variable that holds its value: as
    for `api_key_env`, one that ends in `_API_KEY` or is listed in `PLANLOOM_KEY_VARIABLES`."""
    query: dict[str, str] = Field(default_factory=dict)
    """Query parameters of each request's address, such as Azure's `api-version`."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """More parameters of each request, such as `chat_template_kwargs`. A table whose name is a
    pattern of model names (`"qwen*"`) is for those models only."""
    accepts: dict[str, Accepts] = Field(default_factory=dict)
    """What models accept, by pattern of their names."""

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("give the name of the variable that holds the key, not the key")
        return name

    @field_validator("headers_env")
    @classmethod
    def _are_names(cls, names: dict[str, str]) -> dict[str, str]:
        if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names.values()):
            raise ValueError("give the names of the variables that hold the values, not the values")
        return names

    @field_validator("headers")
    @classmethod
    def _are_no_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        if wrong := [h for h in headers if re.search(r"auth|key|token|secret|cookie", h, re.I)]:
            raise ValueError(f"{', '.join(wrong)}: secret values belong to headers_env")
        return headers

    @field_validator("extra_body")
    @classmethod
    def _does_not_replace(cls, extra: dict[str, Any]) -> dict[str, Any]:
        ours = ("model", "messages", "stream", "stream_options", "tools", "tool_choice")
        nested = [v for k, v in extra.items() if _is_pattern(k) and isinstance(v, dict)]
        if wrong := [k for table in (extra, *nested) for k in table if k in ours]:
            raise ValueError(f"{', '.join(wrong)}: Planloom sets this itself")
        return extra

    def extra_for(self, model: str) -> dict[str, Any]:
        """The extra parameters of a call to this model."""
        found: dict[str, Any] = {}
        for name, value in self.extra_body.items():
            if isinstance(value, dict) and (_is_pattern(name) or name in self.models):
                found |= value if fnmatchcase(model, name) else {}
            else:
                found[name] = value
        return found

    def accepts_of(self, model: str) -> Accepts:
        """What the settings say of this model: the first pattern that fits."""
        fits = (a for pattern, a in self.accepts.items() if fnmatchcase(model, pattern))
        return next(fits, Accepts())

    def limits(self) -> PoolSettings:
        """What rules a pool's rate and room: history holds no address, for it may hold a password,
        and no name of a key.
        """
        kept = self.model_dump(include=set(_LIMITS))
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


KEY_ID_MAX_CHARS = 32


class EncryptionKey(Model):
    """`[encryption.keys.<id>]`: where a key of 32 bytes comes from (raw, base64 or hexadecimal)."""

    file: str | None = None
    """The file that holds the key."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """A program and its arguments. It prints the key."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.file is None) == (self.command is None):
            raise ValueError("give a file or a command")
        return self


class Encryption(Model):
    """`[encryption]`: payloads, blobs, claims and cached results are encrypted with AES-GCM."""

    active: str
    """The id of the key that encrypts. All keys decrypt."""
    keys: dict[str, EncryptionKey]
    """The keys, by id."""

    @model_validator(mode="after")
    def _has_its_key(self) -> Self:
        wrong = [
            i for i in self.keys if not re.fullmatch(rf"[\w.-]{{1,{KEY_ID_MAX_CHARS}}}", i, re.A)
        ]
        if wrong:
            rule = f"1 to {KEY_ID_MAX_CHARS} letters, digits, dots, hyphens and underscores"
            raise ValueError(f"{', '.join(wrong)}: the id of a key has {rule}")
        if self.active not in self.keys:
            known = ", ".join(self.keys) or "none"
            raise ValueError(f'no key "{self.active}" in [encryption.keys]; there are: {known}')
        return self


_SECRET_PLACES = {"encryption", "api_key_env", "headers_env", "headers"}
"""Where people write a secret by mistake."""
_LIMITS = (
    "requests_per_minute",
    "tokens_per_minute",
    "parallel",
    "penalty",
    "penalty_seconds",
    "predictive",
    "on_broken",
    "max_requests",
    "max_calls",
    "max_runs",
    "timeout_seconds",
)


def _is_pattern(name: str) -> bool:
    return re.search(r"[*?\[]", name) is not None


class Settings(Model):
    """The settings of workers and of the command line, apart from Temporal's own."""

    task_queue: str = "planloom"
    """The task queue of workflows, planner, joiner and tools. Also the prefix of other names."""
    tools_queue: str | None = None
    """A task queue for tools alone, when you want separate tool workers. Without it,
    `task_queue`."""
    llm_queue_prefix: str | None = None
    """The prefix of the pools' task queues. Without it, `<task_queue>-llm`."""
    data_dir: str = ""
    """The folder of the development database and, without `blob_url`, of blobs, claims and cached
    results. Without it, `.planloom`."""
    blob_url: str | None = None
    """Where large values are kept: a folder, or object storage (`s3://bucket/prefix`, `gs://…`,
    `az://account/container/prefix`). Without it, `<data_dir>/blobs`."""
    workspace: str = "."
    """The only folder that file tools may read and write."""
    tools: list[str] = Field(default_factory=list)
    """Modules to import tools from."""
    model: str | None = None
    """The model for all roles. Without it, the first name in the pools' `models`, else the first
    model that the endpoint lists."""
    models: dict[Literal["planner", "joiner", "judge", "worker"], str] = Field(default_factory=dict)
    """A model for each role. A role without one takes `worker`'s, then `model`."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """Prices by model name, for all pools."""
    pools: dict[str, PoolSettings] = Field(default_factory=dict)
    """Model endpoints, by name. Without it, one pool, `default`, from `OPENAI_BASE_URL` and
    `OPENAI_API_KEY`."""
    retries: dict[ErrorClass, RetryOverride] = Field(default_factory=dict)
    """Changes of the retry table, by error class."""
    tenants: dict[str, Annotated[float, Field(ge=0.001, le=1000)]] = Field(default_factory=dict)
    """Weights by which tenants share a pool. A tenant that is not named has 1."""
    context_windows: dict[str, Annotated[int, Field(ge=256)]] = Field(default_factory=dict)
    """How many tokens a model reads and writes in one call, by pattern of its name. The first
    pattern that fits counts; a model without one is not limited here."""
    mcp: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], McpSettings] = Field(
        default_factory=dict
    )
    """MCP servers whose tools plans may use, by name."""
    encryption: Encryption | None = None
    """Keys that encrypt payloads, blobs and cached results. Without it, nothing is encrypted."""
    max_activities: Annotated[int, Field(ge=1, le=5000)] = 200
    """How many activities one worker process runs at once, per task queue."""

    @property
    def tools_task_queue(self) -> str:
        """Where tools run: the run's own queue, so that the server may hand a tool at once to the
        worker that asked for it; another one where `PLANLOOM_TOOLS_QUEUE` names it."""
        return self.tools_queue or self.task_queue

    def llm_task_queue(self, pool: str) -> str:
        return f"{self.llm_queue_prefix or self.task_queue + '-llm'}-{pool}"

    @property
    def retry_table(self) -> RetryTable:
        return table_with(self.retries)

    def context_window(self, model: str) -> int | None:
        """Tokens that a model reads and writes in one call, where that is known."""
        fits = (w for pattern, w in self.context_windows.items() if fnmatchcase(model, pattern))
        return next(fits, None)

    def without_reservations(self) -> Settings:
        """The same with pools that need no permits: there is nobody to give them."""
        none = {"max_requests": None, "max_calls": None, "max_runs": None}
        pools = {name: pool.model_copy(update=none) for name, pool in self.pools.items()}
        return self.model_copy(update={"pools": pools})

    def capacity_id(self, pool: str) -> str:
        """The id of a pool's `CapacityWorkflow`."""
        return f"{self.task_queue}-capacity-{pool}"

    @property
    def blobs_place(self) -> str:
        """A folder, or the address of a bucket."""
        return self.blob_url or str(Path(self.data_dir) / "blobs")


class SettingsError(Exception):
    """Settings that cannot be used; `problems` lists all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(p.line() for p in problems))

    @classmethod
    def of(cls, path: str, message: str) -> SettingsError:
        return cls([Problem(path=path, code="unreadable", message=message)])


KEY_VARIABLES = "PLANLOOM_KEY_VARIABLES"
_KEY_NAME = re.compile(r"[A-Z0-9_]+_API_KEY")
_NOT_FOR_MODELS = ("TEMPORAL_API_KEY",)


def key_problem(
    pool: str, settings: PoolSettings, environment: Mapping[str, str]
) -> Problem | None:
    """Why a pool may not send a variable it names, as key or header, to its endpoint, or None.

    A settings file chooses both the address and the variable. Whoever wrote it, or brought it with
    a repository, must not be able to send any secret of the worker's environment anywhere.
    """
    allowed = [each.strip() for each in environment.get(KEY_VARIABLES, "").split(",")]
    named = {"api_key_env": settings.api_key_env}
    named |= {f"headers_env.{header}": name for header, name in settings.headers_env.items()}
    for where, name in named.items():
        if name in allowed or (_KEY_NAME.fullmatch(name) and name not in _NOT_FOR_MODELS):
            continue
        return Problem(
            path=f"planloom.toml: pools.{pool}.{where}",
            code="key_not_allowed",
            message=f"the variable {name} is not known to hold a model key, so it is not sent.",
            hint=f"Use a name that ends in _API_KEY, or set {KEY_VARIABLES}={name} for the worker.",
        )
    return None


VARIABLES = {
    "PLANLOOM_TASK_QUEUE": "task_queue",
    "PLANLOOM_TOOLS_QUEUE": "tools_queue",
    "PLANLOOM_LLM_QUEUE_PREFIX": "llm_queue_prefix",
    "PLANLOOM_DATA_DIR": "data_dir",
    "PLANLOOM_BLOB_URL": "blob_url",
    "PLANLOOM_WORKSPACE": "workspace",
    "PLANLOOM_MODEL": "model",
    "PLANLOOM_MAX_ACTIVITIES": "max_activities",
}
"""Which setting each variable sets. `PLANLOOM_TOOLS` is a list and is read apart."""


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
    for name, field in VARIABLES.items():
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
        raise SettingsError([_problem(e, environment) for e in error.errors()]) from None
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


def _problem(error: Any, environment: Mapping[str, str]) -> Problem:
    """What is wrong with one setting, by the name under which it was set."""
    place = error["loc"]
    # Who writes a key where its variable's name belongs does not see it printed.
    entry = hidden(error) if _SECRET_PLACES & set(place) else error
    set_by = [v for v, field in VARIABLES.items() if place[:1] == (field,) and environment.get(v)]
    steps = (str(step) for step in place if step != "[key]")
    path = set_by[0] if set_by else "planloom.toml: " + ".".join(steps)
    return problem_of(entry, place, path, Settings)

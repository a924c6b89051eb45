"""The composition root: settings, clients, activities and workers. Nothing imports it.

python worker.py            a worker for all queues, against TEMPORAL_ADDRESS
python worker.py --list-tools --json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import stat
import sys
import tomllib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import (
    FixedSizeSlotSupplier,
    Interceptor,
    Worker,
    WorkerTuner,
)

from planloom.activities.agent_turn import TurnActivities
from planloom.activities.ask import ModelActivities
from planloom.activities.capacity import CapacityActivities, PoolLimiters
from planloom.activities.definitions import DefinitionActivities, Definitions
from planloom.activities.join import JoinActivities
from planloom.activities.look_at_run import RunActivities
from planloom.activities.models.client import ModelClient
from planloom.activities.models.pool_slots import PoolSlots
from planloom.activities.models.prices import Prices
from planloom.activities.models.quirks import FILE as QUIRKS_FILE
from planloom.activities.prepare import PrepareActivities
from planloom.activities.resolve import ResolveActivities
from planloom.activities.run_group import GroupActivities, ToolObserver, unobserved
from planloom.activities.run_tool import ToolActivities
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.cache import ResultCache
from planloom.activities.storage.claims import ClaimStore
from planloom.activities.telemetry.health import HEALTH_ADDRESS, Health, health_server, watched
from planloom.activities.telemetry.telemetry import (
    METRICS_ADDRESS,
    setup_logging,
    setup_telemetry,
    worker_runtime,
)
from planloom.activities.tools.builtin import ASK_SPEC, BUILTIN_TOOLS
from planloom.activities.tools.registry import ToolLoadError, ToolRegistry
from planloom.activities.tools.runner import ToolRunner
from planloom.activities.tools.times import ToolTimes
from planloom.activities.tools.trusted import trusted_places
from planloom.activities.write_plan import PlanActivities
from planloom.codec import EncryptionCodec
from planloom.collecting import sign_store
from planloom.keys import KeyRing, key_ring
from planloom.planner.contract.names import SEARCH_ATTRIBUTES
from planloom.planner.contract.settings import (
    Settings,
    SettingsError,
    settings_from,
)
from planloom.planner.language.values import Problem
from planloom.store import open_blobs
from planloom.worker_answers import key_problems, unused_files, was_asked
from planloom.workflows.agent import AgentWorkflow
from planloom.workflows.capacity import CapacityWorkflow
from planloom.workflows.dag import DagWorkflow
from planloom.workflows.shell.converter import data_converter
from planloom.workflows.shell.runner import InOrderRunner
from planloom.workflows.team import TeamWorkflow

T = TypeVar("T")

log = logging.getLogger("planloom.worker")

WORKFLOW_TASK_SECONDS = 8
"""The server waits ten for the end of a workflow task."""
STICKY_TIMEOUT = timedelta(seconds=2)
"""A workflow task waits this long for a worker that died, or is busy, and is then replayed by
another; the server's default is ten seconds."""
WORKFLOWS: list[type] = [DagWorkflow, AgentWorkflow, TeamWorkflow, CapacityWorkflow]
GARBAGE_EVERY = 10_000
"""New objects between two collections of the youngest generation; Python's own is 700."""
SWITCH_SECONDS = 0.001
"""How long a thread that computes keeps the interpreter when the event loop wants it; Python's own
is 0.005. A short run beside a hundred long calculations took 1.5 s, and 2.9 s without this."""
RUNNER = InOrderRunner()
"""Workflow code is kept deterministic by reading it (tests/test_determinism.py), for every process
and at no cost; docs/decisions/0006-no-sandbox.md."""


def read_settings(environment: dict[str, str]) -> Settings:
    """Settings from the environment and `planloom.toml`.

    Raises:
        SettingsError: with every problem found.
    """
    path = Path(environment.get("PLANLOOM_CONFIG") or "planloom.toml")
    document: dict[str, Any] = {}
    if path.is_file():
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError.of(str(path), str(error)) from None
    elif environment.get("PLANLOOM_CONFIG"):
        raise SettingsError.of(str(path), "no such file (named by PLANLOOM_CONFIG)")
    return settings_from(environment, document)


def tools_from(settings: Settings) -> ToolRegistry:
    """Built-in tools, installed ones, those of PLANLOOM_TOOLS, and those of MCP servers.

    Raises:
        ToolLoadError: with every module, or MCP server, that cannot be used.
    """
    registry = ToolRegistry(BUILTIN_TOOLS, [ASK_SPEC])
    registry.load_entry_points()
    registry.load_modules(settings.tools, search=[Path.cwd()])
    registry.load_mcp(settings.mcp)
    problems = [
        Problem(
            path=f"tool {spec.name}",
            code="unknown_pool",
            message=f'no pool "{spec.pool}"',
            hint="Pools: " + ", ".join(settings.pools),
        )
        for spec in registry.specs
        if spec.pool is not None and spec.pool not in settings.pools
    ]
    if problems:  # its calls would run without the limits it asks for
        raise ToolLoadError(problems)
    return registry


@dataclass(slots=True)
class Parts:
    """Everything a worker process is made of."""

    settings: Settings
    registry: ToolRegistry
    blobs: BlobStore
    models: ModelClient
    tool_times: ToolTimes
    known_attributes: list[str]
    keys: KeyRing | None = None
    """What values are encrypted with; None: they are not."""
    limiters: PoolLimiters | None = None
    """Set by `build_workers`."""
    observe_tool: ToolObserver = unobserved
    """Entered around each tool call of a group."""


async def register_search_attributes(client: Client) -> list[str]:
    """Register what is missing where that is allowed; give back those that runs can set.

    One that has another type there is left alone: setting it would hang every run.
    """
    try:
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
    except RPCError as error:
        log.warning("search attributes are unknown (%s); runs work without them", error.message)
        return []
    usable: list[str] = []
    for name, kind in SEARCH_ATTRIBUTES.items():
        wanted = IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{_snake(kind)}")
        there = listed.custom_attributes.get(name)
        if there is None:
            problem = await _register(client, name, wanted)
        elif there != wanted:
            problem = f"the server has it as {IndexedValueType.Name(there)}"
        else:
            problem = ""
        if problem:
            log.warning("search attribute %s: %s; runs work without it", name, problem)
        else:
            usable.append(name)
    return usable


async def _register(client: Client, name: str, kind: IndexedValueType.ValueType) -> str:
    """One at a time: a server that has no room for one may have it for the others."""
    try:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes={name: kind})
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:  # another worker was faster
            return error.message
    return ""


def _snake(kind: str) -> str:
    return {"Keyword": "KEYWORD", "Int": "INT", "KeywordList": "KEYWORD_LIST"}[kind]


def build_workers(
    client: Client, parts: Parts, interceptors: Sequence[Interceptor] = ()
) -> list[Worker]:
    """One worker for workflows and tools, one per pool, one for notices to this process, and one
    for tools where they have a queue to themselves; all share the client.
    """
    settings = parts.settings
    limiters = parts.limiters = PoolLimiters(client, settings)
    parts.models.find_limiter = limiters.limiter
    capacity = CapacityActivities(client, settings)
    data = Path(settings.data_dir)
    cache = ResultCache(parts.blobs, data / "locks")
    runner = ToolRunner(
        parts.registry,
        parts.blobs,
        workspace=Path(settings.workspace).resolve(),
        cache=cache,
        claims=ClaimStore(parts.blobs.backend.within("claims")),
        times=parts.tool_times,
        trusted=trusted_places(settings, os.environ),
    )
    tools = ToolActivities(runner)
    groups = GroupActivities(runner, parts.observe_tool)
    models = ModelActivities(parts.models, parts.blobs, cache)
    plans = PlanActivities(parts.models, client, parts.registry, parts.blobs)
    runs = RunActivities(client)
    joins = JoinActivities(parts.models, parts.blobs)
    values = ResolveActivities(parts.blobs)
    turns = TurnActivities(parts.models, parts.registry, parts.blobs)
    definitions = Definitions(Path(settings.workspace).resolve())
    definition_activities = DefinitionActivities(definitions, parts.blobs)
    prepare = PrepareActivities(
        parts.registry,
        settings,
        parts.models.prices,
        search_attributes=lambda: parts.known_attributes,
        tool_seconds=parts.tool_times.likely,
        agents=lambda: definitions.descriptions("agent"),
        teams=lambda: definitions.descriptions("team"),
        disabled=definitions.disabled,
        blobs=parts.blobs,
    )
    threads = ThreadPoolExecutor(
        max_workers=max(64, settings.max_activities), thread_name_prefix="planloom-activity"
    )
    common: dict[str, Any] = {
        "interceptors": list(interceptors),
        "activity_executor": threads,
        "graceful_shutdown_timeout": timedelta(seconds=5),
        # A cancel reaches an activity as the answer to a heartbeat: beats must not be held back.
        "max_heartbeat_throttle_interval": timedelta(seconds=1),
    }
    main = Worker(
        client,
        task_queue=settings.task_queue,
        workflows=WORKFLOWS,
        activities=[
            prepare.prepare_run,
            prepare.prepare_plan,
            tools.run_tool,
            groups.run_group,
            plans.write_plan,
            runs.look_at_run,
            joins.join_outcomes,
            values.resolve_value,
            values.pack_bindings,
            values.patch_plan,
            definition_activities.load_definition,
            turns.read_output,
            capacity.set_queue_rate,
            capacity.load_pool,
            capacity.take_permit,
        ],
        workflow_runner=RUNNER,
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        max_concurrent_activities=settings.max_activities,
        max_concurrent_activity_task_polls=10,
        **common,
    )
    allow_long_tasks(main)
    tool_workers = [
        Worker(
            client,
            task_queue=settings.tools_task_queue,
            activities=[tools.run_tool, groups.run_group],
            max_concurrent_activities=settings.max_activities,
            max_concurrent_activity_task_polls=10,
            **common,
        )
        for _ in range(settings.tools_task_queue != settings.task_queue)
    ]
    pools = [
        Worker(
            client,
            task_queue=settings.llm_task_queue(name),
            activities=[models.ask_model, turns.agent_turn, tools.run_tool],
            tuner=_tuner(limiters, name, settings.max_activities),
            disable_eager_activity_execution=True,
            **common,
        )
        for name in settings.pools
    ]
    notice_worker = Worker(
        client,
        task_queue=limiters.worker_queue,
        activities=[limiters.notify_worker],
        max_concurrent_activities=10,
        max_concurrent_activity_task_polls=1,
        **common,
    )
    return [main, *tool_workers, *pools, notice_worker]


def allow_long_tasks(worker: Worker) -> None:
    """Let a workflow task take longer than the SDK's two seconds of wall clock.

    The first one of 20,000 tasks takes half a second of processor time, which is more than two
    where other programs want the processor too; it would be tried again forever. The SDK has no
    option for it (`debug_mode` takes the limit away, and the sandbox with it).
    """
    assert worker._workflow_worker is not None
    worker._workflow_worker._deadlock_timeout_seconds = WORKFLOW_TASK_SECONDS


def collect_garbage_rarely() -> None:
    """Take what is loaded by now out of the garbage collector's sight.

    Some 500,000 objects of libraries live as long as the process. Walking them again and again took
    a third of the time of all workflow tasks (`make bench`; docs/decisions/0005-garbage.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_EVERY, *gc.get_threshold()[1:])


def _tuner(limiters: PoolLimiters, pool: str, maximum: int) -> WorkerTuner:
    limiter = limiters.limiter(pool)
    assert limiter is not None
    unused = FixedSizeSlotSupplier(1)
    return WorkerTuner.create_composite(
        workflow_supplier=unused,
        activity_supplier=PoolSlots(limiter, maximum),
        local_activity_supplier=unused,
        nexus_supplier=unused,
    )


def make_private(folder: Path) -> None:
    """Make the data folder, for this user alone. An older one is left as it is, with a warning."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        log.warning(
            "%s holds the values of all runs, and other users of this machine may read it; "
            "close it with: chmod 700 %s",
            *(folder, folder),
        )


async def serve(
    settings: Settings, registry: ToolRegistry, keys: KeyRing | None, ready: Callable[[], None]
) -> None:
    """Run workers for all queues until SIGINT or SIGTERM."""
    health = Health()
    served = health_server(health, os.environ)  # first: an address that is taken ends it at once
    telemetry = setup_telemetry(os.environ)
    config: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    config.setdefault("target_host", "localhost:7233")
    client = await Client.connect(
        **config,
        data_converter=data_converter(EncryptionCodec(keys) if keys else None),
        plugins=telemetry.plugins,
        runtime=worker_runtime(os.environ),
    )
    data = Path(settings.data_dir)
    make_private(data)
    parts = Parts(
        settings,
        registry,
        open_blobs(settings, keys),
        ModelClient(settings, os.environ, Prices(settings), quirks_file=data / QUIRKS_FILE),
        ToolTimes(data / "tool_times.json"),
        await register_search_attributes(client),
        keys,
        observe_tool=telemetry.observe_tool,
    )
    await sign_store(client, parts.blobs)
    parts.models.add_observer(telemetry.model_observer())
    workers = build_workers(client, parts, telemetry.interceptors)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        # Whatever ends the worker, a failure too: what it has learned and recorded is written.
        if served is not None:
            stack.callback(served.close)  # last: it answers until all has stopped
            ask = partial(client.workflow_service.get_system_info, GetSystemInfoRequest())
            await stack.enter_async_context(watched(health, ask))
        stack.callback(telemetry.shutdown)
        stack.push_async_callback(parts.models.close)
        stack.callback(parts.tool_times.save)
        for worker in workers:
            await stack.enter_async_context(worker)
        assert parts.limiters is not None
        await parts.limiters.start()
        stack.push_async_callback(parts.limiters.close)
        collect_garbage_rarely()
        health.is_polling = True
        ready()
        await stop.wait()
        health.is_stopping = True


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run it on uvloop, where there is one (docs/decisions/0013-uvloop.md)."""
    make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):  # Windows, PyPy
        import uvloop

        make = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(main)


@contextlib.contextmanager
def printed_as_errors() -> Iterator[None]:
    """While modules are loaded, what they and their libraries print goes to standard error: who has
    asked something of this program reads its answer from standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _refuse(problems: Sequence[Problem]) -> SystemExit:
    """All that is wrong with the settings, on stderr."""
    for problem in problems:
        print(f"error: {problem.line()}", file=sys.stderr)
    return SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `planloom-worker`."""
    parser = argparse.ArgumentParser(prog="planloom-worker", description=__doc__)
    parser.add_argument("--list-tools", action="store_true", help="print the tools and stop")
    parser.add_argument("--list-definitions", action="store_true", help="print agents and teams")
    parser.add_argument(
        "--definition", nargs=2, action="append", metavar=("KIND", "FILE"), help="only this file"
    )
    parser.add_argument(
        "--catalog", metavar="JOB", help="print the catalog that a run of a plan would get"
    )
    parser.add_argument("--models", action="store_true", help="print what is known of models")
    parser.add_argument("--probe", action="store_true", help="with --models: ask them")
    parser.add_argument("--collect", metavar="JOB", help="remove what no run refers to")
    parser.add_argument("--check", action="store_true", help="print what planloom doctor asks")
    parser.add_argument("--json", action="store_true", help="with --list-tools: as JSON (default)")
    given = parser.parse_args(arguments)
    try:
        settings = read_settings(dict(os.environ))
        with printed_as_errors():
            registry = tools_from(settings)
        keys = key_ring(settings)
    except (SettingsError, ToolLoadError) as error:
        raise _refuse(error.problems) from None
    if was_asked(given, settings, registry):
        return
    setup_logging(os.environ)
    sys.setswitchinterval(SWITCH_SECONDS)
    if problems := key_problems(settings):
        raise _refuse(problems)
    for name, pool in settings.pools.items():
        if "api_key_env" in pool.model_fields_set and not os.environ.get(pool.api_key_env):
            log.warning('pool "%s" has no key: %s is not set', name, pool.api_key_env)
    for problem in unused_files(settings):
        log.warning("%s", problem.line())
    for warning in registry.warnings():
        log.warning("%s", warning)
    queues = ", ".join(dict.fromkeys((settings.task_queue, settings.tools_task_queue)))
    pools = ", ".join(settings.pools)
    address = ClientConfig.load_client_connect_config().get("target_host", "localhost:7233")

    def ready() -> None:
        print(
            f"planloom worker is polling {address}: queues {queues}, pools {pools}, "
            f"{len(registry.names)} tools",
            flush=True,
        )

    code = 0
    try:
        run_loop(serve(settings, registry, keys, ready))
    except RuntimeError as error:
        if "connect" not in str(error).lower():
            raise
        print(f"error: no Temporal server answers at {address}", file=sys.stderr)
        print("hint: start one with: planloom dev (or set TEMPORAL_ADDRESS)", file=sys.stderr)
        code = 1
    except ValueError as error:
        if not str(error).startswith((METRICS_ADDRESS, HEALTH_ADDRESS)):
            raise
        print(f"error: {error}", file=sys.stderr)
        code = 2
    # A thread of the SDK's core that ends while the interpreter does aborts the process now and
    # then; all is done and written here.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    # `python worker.py` puts the checkout's folders on the import path: a user's own `activities`
    # or `planner` would be hidden by Planloom's.
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
    main()

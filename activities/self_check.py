"""What only a worker can tell of itself for `planloom doctor`: its store, its pools, its files."""

from __future__ import annotations

import asyncio
import shutil
import stat
import time
import uuid
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import openai

from planloom.activities.http_dates import moment_of
from planloom.activities.models.connections import CONNECT_SECONDS, Connections
from planloom.activities.models.errors import ModelError, cause_of, host_of
from planloom.activities.storage.backends import Backend, short_reason
from planloom.planner.contract.findings import Finding
from planloom.planner.contract.settings import Settings, shown_address
from planloom.planner.language.values import Problem

DISK_LOW_BYTES = 2_000_000_000
DISK_FULL_BYTES = 200_000_000
SKEW_SECONDS = 30.0
"""Object stores and tokens allow minutes of clock difference; timeouts of seconds need less."""


def check_store(backend: Backend) -> Finding:
    """Whether values can be written, read, and created once, as side effects need it."""
    name = f"d0c7{uuid.uuid4().hex}"
    try:
        backend.put(name, b"doctor")
        whole = backend.get(name) == b"doctor"
        once = not backend.create(name, b"again")
        backend.delete(name)
    except Exception as error:
        return Finding(
            check="store",
            level="fail",
            message=f"{backend.place} cannot be used: {short_reason(error)}",
            hint="All workers need to read and write it: PLANLOOM_DATA_DIR or PLANLOOM_BLOB_URL.",
        )
    if not (whole and once):
        what = "does not give back what was written" if not whole else "has no conditional writes"
        return Finding(
            check="store",
            level="fail",
            message=f"{backend.place} {what}",
            hint="Side effects could happen twice; use a store with If-None-Match.",
        )
    return Finding(
        check="store", level="ok", message=f"{backend.place}: writes, reads, creates once"
    )


def check_folders(settings: Settings) -> list[Finding]:
    """The data folder, its disk, and the workspace."""
    data, workspace = Path(settings.data_dir), Path(settings.workspace)
    findings = [_private(data), _disk(data)]
    hint = "Set PLANLOOM_WORKSPACE to the folder that tools may read and write."
    if not workspace.is_dir():
        text = f"there is no folder {workspace}"
        findings.append(Finding(check="workspace", level="fail", message=text, hint=hint))
    elif workspace.resolve() in (Path("/"), Path.home()):
        text = f"{workspace.resolve()} is open to tools, and to every plan"
        findings.append(Finding(check="workspace", level="warn", message=text, hint=hint))
    else:
        findings.append(Finding(check="workspace", level="ok", message=str(workspace.resolve())))
    return findings


def _private(data: Path) -> Finding:
    if not data.is_dir():
        text = f"{data} does not exist yet; the worker makes it"
        return Finding(check="data folder", level="ok", message=text)
    if stat.S_IMODE(data.stat().st_mode) & 0o077:
        text = f"{data} holds the values of all runs, and other users may read it"
        hint = f"chmod 700 {data}"
        return Finding(check="data folder", level="warn", message=text, hint=hint)
    return Finding(check="data folder", level="ok", message=f"{data}, for its user alone")


def _disk(data: Path) -> Finding:
    there = next(p for p in (data, *data.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:,.1f} GB are free for {data}"
    hint = "Free some: a full disk stops every run that stores a large value."
    if free < DISK_FULL_BYTES:
        return Finding(check="disk", level="fail", message=text, hint=hint)
    if free < DISK_LOW_BYTES:
        return Finding(check="disk", level="warn", message=text, hint=hint)
    return Finding(check="disk", level="ok", message=text)


def check_files(problems: Sequence[Problem]) -> list[Finding]:
    """Definitions and templates that are there and not used."""
    return [Finding(check="definitions", level="warn", message=p.line()) for p in problems]


async def check_pools(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """Whether each pool's endpoint answers, takes the key and lists the model. Nothing is paid."""
    connections = Connections(settings, environment)
    try:
        found = await asyncio.gather(
            *(_check_pool(connections, settings, pool, environment) for pool in settings.pools)
        )
    finally:
        await connections.close()
    return [finding for each in found for finding in each]


async def _check_pool(
    connections: Connections, settings: Settings, pool: str, environment: Mapping[str, str]
) -> list[Finding]:
    name, url = f"pool {pool}", connections.endpoint(pool)
    try:
        client = connections.client(pool)
        answer = await client.models.with_raw_response.list(timeout=CONNECT_SECONDS)
        listed = [model.id for model in answer.parse().data or []]
    except ModelError as error:
        return [Finding(check=name, level="fail", message=str(error))]
    except openai.NotFoundError:
        return [_no_list(name, url)]
    except (openai.APIConnectionError, openai.APIStatusError) as error:
        told = connections.without_secrets(pool, cause_of(error))[:300]
        text = f"{host_of(url)}: {told}"
        return [Finding(check=name, level="fail", message=text, hint=_why(error, url, environment))]
    except Exception as error:  # an answer of any shape
        text = f"{host_of(url)} lists no models ({type(error).__name__})"
        return [Finding(check=name, level="warn", message=text, hint="planloom models --probe")]
    return [_model(connections, settings, pool, listed), *_clock(answer.headers.get("date"), url)]


def _no_list(name: str, url: str) -> Finding:
    text = f"{host_of(url)} lists no models (404)"
    if urlsplit(url).path.strip("/"):
        return Finding(check=name, level="warn", message=text, hint="planloom models --probe")
    hint = f"Most servers answer below /v1: base_url = {shown_address(url).rstrip('/')}/v1"
    return Finding(check=name, level="fail", message=text, hint=hint)


def _why(error: openai.APIError, url: str, environment: Mapping[str, str]) -> str:
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return "The endpoint refuses the key: look at the variable that api_key_env names."
    if not isinstance(error, openai.APIConnectionError):
        return ""
    proxies = [n for n in environment if n.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")]
    if proxies:
        return f"{proxies[0]} is set: name {host_of(url)} in NO_PROXY if it is reached directly."
    return "Is it up, and is base_url (or OPENAI_BASE_URL) right?"


def _model(connections: Connections, settings: Settings, pool: str, listed: list[str]) -> Finding:
    own = connections.pool(pool)
    roles = [m for m in (settings.model, *settings.models.values()) if m and own.serves(m)]
    plain = [m for m in own.models if not any(c in m for c in "*?[")]
    wanted = list(dict.fromkeys([*roles, *plain]))
    missing = [m for m in wanted if not any(fnmatchcase(each, m) for each in listed)]
    check = f"pool {pool}"
    shown = ", ".join(listed[:8]) + (", …" if len(listed) > 8 else "")
    if missing and listed:
        text = f"{host_of(connections.endpoint(pool))} does not list {', '.join(missing)}"
        return Finding(check=check, level="warn", message=text, hint=f"It lists: {shown}")
    if not wanted and not (listed or connections.is_openai(pool)):
        text = "no model is named, and the endpoint lists none"
        return Finding(check=check, level="fail", message=text, hint="Set PLANLOOM_MODEL.")
    text = f"{host_of(connections.endpoint(pool))} answers; {len(listed)} models"
    return Finding(check=check, level="ok", message=text)


def _clock(date: str | None, url: str) -> list[Finding]:
    """This machine's clock beside the endpoint's."""
    there = moment_of(date or "")
    if there is None:
        return []
    host, skew = host_of(url), time.time() - there
    if abs(skew) <= SKEW_SECONDS:
        text = f"as that of {host}, within {SKEW_SECONDS:.0f} s"
        return [Finding(check="clock", level="ok", message=text)]
    text = f"this machine is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} {host}"
    hint = "Set the clock (timedatectl set-ntp true)."
    return [Finding(check="clock", level="warn", message=text, hint=hint)]

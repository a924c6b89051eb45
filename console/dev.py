"""`planloom dev`: server, worker and Web UI beside each other; a worker that dies is restarted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from planloom.console.app import err, fail, say
from planloom.console.codec_server import codec_server_for
from planloom.console.devserver import DevServer, DevServerError
from planloom.console.mistakes import PORT_MAX, UsageError, checked_port
from planloom.console.processes import stop_process, worker_process
from planloom.console.reload import Sources
from planloom.console.runs import UI_PORT_ABOVE
from planloom.planner.contract.settings import Settings, SettingsError, shown_address

LOOK_SECONDS = 0.3
STARTED_SECONDS = 10.0
"""A worker that ends sooner never worked: its settings or tools are wrong."""
RESTART_MAX_SECONDS = 30.0


def run_dev(
    settings_file: Path,
    read_settings: Callable[[], Settings],
    *,
    port: int | None,
    ui_port: int | None,
    has_worker: bool,
    in_memory: bool,
    as_json: bool = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM. With `as_json` standard output is one object, when it is up.

    `settings_file` is the one that a person writes: when it changes, the worker starts again.

    Raises:
        UsageError: a port that there is not.
        SettingsError: the settings cannot be used.
    """
    ports = _ports(port, ui_port)
    settings = read_settings()
    server = DevServer(in_memory=in_memory, data_dir=Path(settings.data_dir), **ports)
    codec = codec_server_for(server)
    try:
        server.start()
    except DevServerError as error:
        if codec is not None:
            codec.stop()
        raise fail(str(error), error.hint, kind="no_server") from None
    worker = None
    if has_worker:
        sources = Sources(settings.tools, settings_file)
        environment = {**os.environ, "TEMPORAL_ADDRESS": server.address}
        worker = _Worker(environment, sources, read_settings, sys.stderr if as_json else None)
    try:
        warnings = missing_keys(settings, os.environ) if has_worker else []
        codec_address = codec.address if codec is not None else None
        _say_where(server, codec_address, warnings, as_json=as_json)
        signal.signal(signal.SIGTERM, _interrupt)
        if worker is not None:
            worker.start()
        space_told = ""
        while server.is_running:
            time.sleep(LOOK_SECONDS)
            if (warning := server.space_warning()) and not space_told:
                err.print(f"warning: {warning}", markup=False, soft_wrap=True)
            space_told = warning
            if worker is not None:
                worker.look_after()
        raise fail("the Temporal server ended", f"Its log: {server.log_path}")
    except KeyboardInterrupt:
        err.print("stopping")
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C leaves nothing half stopped
    finally:
        if worker is not None:
            worker.stop()
        server.stop()
        if codec is not None:
            codec.stop()


def _say_where(server: DevServer, codec: str | None, warnings: list[str], *, as_json: bool) -> None:
    if as_json:
        up = {"server": server.address, "web_ui": server.ui_url, "codec_server": codec}
        say(json.dumps({**up, "warnings": warnings}))
        return
    say(f"server  {server.address}")
    say(f"Web UI  {server.ui_url}")
    if codec is not None:
        say(f"codec server  {codec}")
    for line in warnings:
        err.print(f"warning: {line}", markup=False, soft_wrap=True)
    say("Ctrl-C stops everything.")


class _Worker:
    """The worker process; started again when it dies, at growing intervals, and when its tools or
    settings change. What it was doing is done again by the next one."""

    def __init__(
        self,
        environment: dict[str, str],
        sources: Sources,
        read_settings: Callable[[], Settings],
        out: IO[Any] | None = None,
    ) -> None:
        self._environment = environment
        self._out = out
        self._sources = sources
        self._read_settings = read_settings
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._again_at: float | None = None
        self._pause = 1.0
        self._has_worked = False

    def start(self) -> None:
        self._process, self._again_at = worker_process(self._environment, self._out), None
        self._started = time.monotonic()

    def look_after(self) -> None:
        """Start it again when it has died, or when a file that it was started from has changed.

        Raises:
            typer.Exit: it never worked at all.
        """
        now = time.monotonic()
        if changed := self._sources.changed():
            self._start_again(", ".join(path.name for path in changed[:5]))
            return
        if self._again_at is not None:
            if now >= self._again_at:
                self.start()
            return
        code = self._process.poll() if self._process is not None else 0
        if code is None:
            if now - self._started > STARTED_SECONDS:
                self._has_worked, self._pause = True, 1.0
            return
        if code > 0 and not self._has_worked:
            raise fail("the worker cannot start", "Its messages are above.", kind="no_worker")
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        text = f"warning: the worker ended ({how}); started again in {self._pause:.0f} s"
        err.print(text, markup=False, soft_wrap=True)
        self._again_at, self._has_worked = now + self._pause, True
        self._pause = min(RESTART_MAX_SECONDS, self._pause * 2)

    def _start_again(self, changed: str) -> None:
        """Start it from the files as they are now; with settings that cannot be used it goes on as
        it is. A mistake in a file is one to correct, and no reason to end."""
        try:
            self._sources.watch(self._read_settings().tools)
        except SettingsError as error:
            text = f"warning: {changed} changed, but the settings cannot be used: {error}"
            err.print(text, markup=False, soft_wrap=True)
            return
        err.print(f"{changed} changed: the worker starts again", markup=False, soft_wrap=True)
        self.stop()
        self._has_worked, self._pause = True, 1.0
        self.start()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                stop_process(self._process)


def _ports(port: int | None, ui_port: int | None) -> dict[str, Any]:
    for option, given in (("--port", port), ("--ui-port", ui_port)):
        if given is not None:
            checked_port(option, given)
    ports = {k: v for k, v in (("port", port), ("ui_port", ui_port)) if v is not None}
    if port is not None and ui_port is None:
        if port + UI_PORT_ABOVE > PORT_MAX:
            hint = f"The Web UI listens {UI_PORT_ABOVE:,} above --port; give --ui-port as well."
            raise UsageError(f"--port {port} leaves no port for the Web UI", hint=hint)
        ports["ui_port"] = port + UI_PORT_ABOVE
    return ports


def missing_keys(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """The pools whose endpoint will ask for a key that this environment does not hold."""
    return [
        f"{pool.api_key_env} is not set, so goals cannot be planned by the model at "
        f"{shown_address(pool.base_url or '') or 'the default address of OpenAI'} (pool {name}). "
        "Plans without model "
        "calls run; for a local model set OPENAI_BASE_URL."
        for name, pool in settings.pools.items()
        if not environment.get(pool.api_key_env) and not _is_local(pool.base_url)
    ]


def _is_local(url: str | None) -> bool:
    """Whether the address is of this machine or network: such servers rarely ask for a key."""
    host = urlsplit(url or "").hostname or ""
    return bool(host) and ("." not in host or host.startswith(("127.", "10.", "192.168.")))


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt

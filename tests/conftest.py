"""Fixtures of all tests. Temporal is never mocked: the server is real, one per test process."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from temporalio.client import Client

from planloom.console.devserver import DevServer
from planloom.worker import collect_garbage_rarely
from planloom.workflows.shell import runner
from planloom.workflows.shell.converter import data_converter
from tests.model_server import ModelServer
from tests.support.harness import Planloom
from tests.support.updates import AskedAgain

# A busy machine is no counter-example: an example may take as long as it needs.
hypothesis.settings.register_profile(
    "planloom", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("planloom")

if SHORT_HISTORIES := os.environ.get("PLANLOOM_TEST_EVENTS_MAX"):
    # Every run of every test continues as new after so many events.
    runner.EVENTS_MAX = int(SHORT_HISTORIES)

CLEARED_PREFIXES = ("OPENAI_", "PLANLOOM_", "TEMPORAL_", "OTEL_")


def pytest_collection_finish() -> None:
    """Seven thousand tests and their modules live to the end, and workers run beside them."""
    collect_garbage_rarely()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, empty_file: Path) -> None:
    """No key, address or profile of the developer's reaches a test."""
    for name in list(os.environ):
        if name.upper().startswith(CLEARED_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(empty_file))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost,::1")


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profiles") / "temporal.toml"
    path.touch()
    return path


@pytest.fixture(scope="session")
def temporal_server() -> Iterator[DevServer]:
    """A real development server in memory; each xdist worker has its own."""
    with DevServer(
        in_memory=True,
        headless=True,
        port=None,
        dynamic_config={"frontend.WorkflowTimeSkippingEnabled": True},
    ) as server:
        yield server


@pytest.fixture
async def client(temporal_server: DevServer) -> Client:
    """A Temporal client with the converter that workers use."""
    return await Client.connect(
        temporal_server.address, data_converter=data_converter(), interceptors=[AskedAgain()]
    )


@pytest.fixture
def task_queue() -> str:
    """The name of a queue that nobody else uses."""
    return f"queue-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def new_id() -> Callable[[], str]:
    """Makes workflow ids that nobody else uses."""
    return lambda: f"run-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """A scripted model endpoint of its own for each test."""
    with ModelServer() as server:
        yield server


@pytest.fixture
async def planloom(
    client: Client, model: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Planloom:
    """The whole system, for one test; see `Planloom`."""
    folder = tmp_path / "planloom"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Planloom(client, model, folder)

"""The worker and the endpoint of all recorded exchanges: one per test process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client

from planloom.console.devserver import DevServer
from planloom.workflows.shell.converter import data_converter
from tests.endpoints.endpoint import Endpoint
from tests.endpoints.house import House, asked_for


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(
    request: pytest.FixtureRequest,
    temporal_server: DevServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[House]:
    """Has the pools of those exchanges that this session's tests are about."""
    folder: Path = tmp_path_factory.mktemp("endpoints")
    client = await Client.connect(temporal_server.address, data_converter=data_converter())
    with Endpoint() as endpoint:
        async with House(client, endpoint, folder).open(asked_for(request.session)) as opened:
            yield opened

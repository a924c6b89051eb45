"""A worker registers what is missing, and sets nothing that would hang its runs."""

from __future__ import annotations

from temporalio.client import Client

from planloom import worker
from planloom.console.devserver import DevConfig, DevServer
from planloom.planner.contract.names import SEARCH_ATTRIBUTES


async def test_each_attribute_is_registered_by_itself_and_another_type_is_left_alone() -> None:
    # One call for all of them was refused as a whole; a name of another type was taken for ours,
    # and each run hung on BadSearchAttributes.
    full = {f"Other{n}": "KeywordList" for n in range(3)}
    config = DevConfig(search_attributes={**full, "PlanloomStatus": "Int"})
    with DevServer(config, in_memory=True, headless=True, port=None) as server:
        client = await Client.connect(server.address)
        for _ in range(2):
            usable = await worker.register_search_attributes(client)
            assert usable == ["PlanloomRevision", "PlanloomTenant"]


async def test_a_server_without_any_gets_all() -> None:
    config = DevConfig(search_attributes={})
    with DevServer(config, in_memory=True, headless=True, port=None) as server:
        client = await Client.connect(server.address)
        assert await worker.register_search_attributes(client) == list(SEARCH_ATTRIBUTES)

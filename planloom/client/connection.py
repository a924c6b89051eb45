"""A connection to the Temporal server of Planloom's runs."""

from __future__ import annotations

import atexit
import dataclasses
import os
import time
from typing import Any, Self

from temporalio.client import Client as TemporalClient
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from planloom.codec import EncryptionCodec
from planloom.errors import NoServer
from planloom.keys import key_ring
from planloom.planner.contract.settings import Settings, settings_from

ANSWER_SECONDS = 10.0
"""For a query or an update: without a worker it would block until the caller gives up."""
LEAVE_SECONDS = 0.05

# A thread of the SDK's core that still delivers a reply when Python ends aborts the whole program
# (temporalio/sdk-python#300). Measured: 10 of 40 short programs, and none of 40 after a pause.
atexit.register(time.sleep, LEAVE_SECONDS)


def _converter(settings: Settings) -> DataConverter:
    keys = key_ring(settings)
    if keys is None:
        return pydantic_data_converter
    return dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptionCodec(keys),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


class Connection:
    """What every handle needs: the Temporal client, the workers' queue, and the settings."""

    def __init__(
        self,
        temporal: TemporalClient,
        task_queue: str = "planloom",
        settings: Settings | None = None,
    ) -> None:
        self.temporal = temporal
        self.settings = settings or settings_from(os.environ)
        """Where the blobs of large plans go: the same place as the workers'."""
        self.task_queue = task_queue
        self.address = temporal.service_client.config.target_host

    @classmethod
    async def connect(cls, settings: Settings | None = None, **overrides: Any) -> Self:
        """Connect with Temporal's own environment settings and profiles, and the settings' keys.

        Raises:
            SettingsError: a key cannot be read.
            NoServer: nothing answers at the address.
        """
        config: dict[str, Any] = {**ClientConfig.load_client_connect_config(), **overrides}
        config.setdefault("target_host", "localhost:7233")
        config.setdefault("data_converter", _converter(settings or Settings()))
        try:
            temporal = await TemporalClient.connect(**config)
        except (RuntimeError, RPCError) as error:
            raise NoServer(config["target_host"], str(error).split("\n")[0][:500]) from None
        return cls(temporal, (settings or Settings()).task_queue, settings)

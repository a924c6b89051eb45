"""The store of a worker program: opened, signed by who uses it, and cleared of garbage."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError
from temporalio.api.workflowservice.v1 import GetClusterInfoRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from planloom.activities.storage.backends import short_reason
from planloom.activities.storage.blobs import BlobStore
from planloom.activities.storage.cache import ResultCache
from planloom.activities.storage.garbage import Garbage, Retained
from planloom.activities.storage.retained import UnreadableRun, add_retained
from planloom.activities.storage.threads import in_storage_thread
from planloom.activities.storage.users import StoreUser, record_user, store_users
from planloom.codec import EncryptionCodec
from planloom.keys import NoKey, NotGenuine, key_ring
from planloom.planner.contract.garbage import GarbageJob, GarbageReport
from planloom.planner.contract.settings import Settings
from planloom.store import open_blobs

log = logging.getLogger(__name__)

LATE_SECONDS = 60.0
"""A run that has just started may not be listed yet."""


class NotCollected(Exception):
    """Nothing was removed, with the reason."""


async def sign_store(client: Client, blobs: BlobStore) -> None:
    """Say in the store that this server's runs refer to it: a collection must ask them."""
    try:
        user = await _user_of(client)
        await in_storage_thread(record_user, blobs.backend, user)
    except Exception as error:  # a store that cannot be used is told by the tasks that need it
        log.warning("%s does not know this server (%s): planloom gc may remove", blobs.place, error)


async def _user_of(client: Client) -> StoreUser:
    found = await client.workflow_service.get_cluster_info(GetClusterInfoRequest())
    address = client.service_client.config.target_host
    return StoreUser(
        server=found.cluster_id or address, namespace=client.namespace, address=address
    )


async def collect_garbage(settings: Settings, job: GarbageJob) -> GarbageReport:
    """Remove what no run refers to; with a dry run, only say what.

    Raises:
        NotCollected: some run that may need a value cannot be asked.
    """
    keys = key_ring(settings)
    blobs = open_blobs(settings, keys)
    cache = ResultCache(blobs, Path(settings.data_dir) / "locks")
    config: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    config.setdefault("target_host", "localhost:7233")
    began = datetime.now(UTC) - timedelta(seconds=LATE_SECONDS)
    before = time.time() - job.older_than
    try:
        client = await Client.connect(**config)
        # In this order: what is stored while the server is asked is not seen.
        garbage = await in_storage_thread(Garbage, blobs.backend, cache, before=before)
        clients = await _clients(client, blobs, job)
        retained, codec = Retained(), EncryptionCodec(keys) if keys else None
        for since in (None, began):
            for each in clients:
                await add_retained(each, codec, retained, since=since)
    except* (RPCError, RuntimeError, UnreadableRun) as failures:
        raise NotCollected(str(_first(failures))) from None
    except* _UNREADABLE as failures:
        raise _unreadable(blobs, _first(failures)) from None
    report = GarbageReport(
        place=blobs.place,
        is_dry_run=job.is_dry_run,
        namespaces=[each.namespace for each in clients],
        runs=len(retained.runs),
    )
    try:
        return await in_storage_thread(garbage.collect, retained, report)
    except _UNREADABLE as error:
        raise _unreadable(blobs, error) from None


_UNREADABLE = (NoKey, NotGenuine, OSError, BaseError, ValueError)
"""What a store raises that does not give its values."""


def _unreadable(blobs: BlobStore, error: BaseException) -> NotCollected:
    text = f"a value in {blobs.place} cannot be read, and may name others: {short_reason(error)}"
    if isinstance(error, NoKey):
        text += ". Put the key back until this has run"
    return NotCollected(text)


async def _clients(client: Client, blobs: BlobStore, job: GarbageJob) -> list[Client]:
    """One for each namespace whose runs may refer to the store."""
    here = await _user_of(client)
    users = await in_storage_thread(store_users, blobs.backend)
    strange = [u for u in users if u.server != here.server]
    if strange and not job.forget_servers:
        named = ", ".join(sorted({f"{u.address} ({u.namespace})" for u in strange}))
        raise UnreadableRun(
            f"runs of other servers use {blobs.place} too: {named}. They cannot be asked from here"
        )
    names = {u.namespace for u in users if u.server == here.server} | {client.namespace}
    clients = []
    for name in sorted(names):
        each = Client(client.service_client, namespace=name)
        if await _is_there(each):
            clients.append(each)
    return clients


async def _is_there(client: Client) -> bool:
    """Whether the namespace exists: one that was deleted has no runs."""
    try:
        await client.count_workflows()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

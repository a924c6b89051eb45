"""Which servers and namespaces have runs whose values lie in a store, as workers write it down."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel

from planloom.activities.storage.backends import Backend


class StoreUser(BaseModel):
    """A namespace of a server."""

    server: str
    """The id of the cluster, which every address of it shares."""
    namespace: str
    address: str = ""
    """Where a worker has reached it."""


def record_user(backend: Backend, user: StoreUser) -> None:
    """Write it down, once for all workers; again after a change of the key, lest a collection need
    a key that is gone."""
    name = hashlib.sha256(f"{user.server}\n{user.namespace}".encode()).hexdigest()
    content, users = user.model_dump_json().encode(), backend.within("users")
    if not users.keep(name, len(content)):
        users.put(name, content)


def store_users(backend: Backend) -> list[StoreUser]:
    users = backend.within("users")
    contents = [users.get(entry.name) for entry in users.entries()]
    return [StoreUser.model_validate_json(content) for content in contents if content is not None]

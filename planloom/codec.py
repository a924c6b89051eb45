"""The payload codec: what clients and workers send to Temporal is encrypted by it.

Its form is that of Temporal's own samples: `encoding` is `binary/encrypted`, `encryption-key-id`
names the key, and the data is a nonce and the encrypted payload.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from planloom.keys import KeyRing, NoKey, NotGenuine
from planloom.planner.contract.names import ENCRYPTED_ENCODING, ENCRYPTION_KEY_ID


class EncryptionCodec(PayloadCodec):
    """Encrypts every payload, and decrypts those it has the key of.

    What it cannot decrypt it leaves as it is. An exception here would fail a workflow task again
    and again, and anybody who may send a signal could cause it.
    """

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(
                metadata={
                    "encoding": ENCRYPTED_ENCODING,
                    ENCRYPTION_KEY_ID: self._keys.active.encode(),
                },
                data=self._keys.encrypt(payload.SerializeToString()),
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._decrypted(payload) for payload in payloads]

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCRYPTED_ENCODING:
            return payload  # typed by hand, or written before there were keys
        id = payload.metadata.get(ENCRYPTION_KEY_ID, b"").decode("ascii", "replace")
        try:
            return Payload.FromString(self._keys.decrypt(id, payload.data))
        except (NoKey, NotGenuine, DecodeError):
            return payload

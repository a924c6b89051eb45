"""The one data converter: clients, workers, tests and the replayer must all use it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    EncodingPayloadConverter,
    PayloadCodec,
)

from planloom.planner.contract.names import ENCRYPTED_ENCODING, ENCRYPTION_KEY_ID
from planloom.planner.language.values import Locked, Unreadable


@cache
def _encodings() -> tuple[EncodingPayloadConverter, ...]:
    return tuple(PydanticPayloadConverter(ToJsonOptions(exclude_unset=True)).converters.values())


class _PayloadConverter(PydanticPayloadConverter):
    """Pydantic JSON without fields that were never set: most of a task's fields are defaults.

    What Python cannot read as JSON (500 levels deep, half a surrogate pair) arrives as
    `Unreadable` where any JSON is taken: an exception here would hang the run, not fail it.
    """

    def __init__(self) -> None:
        # The SDK makes one for each activation and each run; each would learn all types anew.
        CompositePayloadConverter.__init__(self, *_encodings())

    def from_payloads(
        self, payloads: Sequence[Payload], type_hints: list[type] | None = None
    ) -> list[Any]:
        hints: Sequence[Any] = type_hints or [None] * len(payloads)
        return [self._read(p, h) for p, h in zip(payloads, hints, strict=True)]

    def _read(self, payload: Payload, hint: Any) -> Any:
        if payload.metadata.get("encoding") == ENCRYPTED_ENCODING:  # the codec has no key for it
            id = payload.metadata.get(ENCRYPTION_KEY_ID, b"").decode("ascii", "replace")
            why = f'it is encrypted with the key "{id[:100]}", which this worker does not have'
            if hint is RawValue:  # of a signal nobody knows: it is recorded, and not read
                return RawValue(payload)
            if hint is not None and hint is not Any:
                raise RuntimeError(f"{hint}: {why}")
            return Locked(why)
        try:
            return super().from_payloads([payload], [hint])[0]
        except Exception as error:  # of any kind: who sends a payload chooses its encoding too
            if hint is not None and hint is not Any:
                raise
            return Unreadable(_why(error))


def _why(error: Exception) -> str:
    # Pydantic's whole text quotes the input; its message alone does not.
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"]
    return str(error.args[0] if error.args else type(error).__name__)[:200]


def data_converter(codec: PayloadCodec | None = None) -> DataConverter:
    """With a codec, messages and stack traces of failures go through it too."""
    return DataConverter(
        payload_converter_class=_PayloadConverter,
        payload_codec=codec,
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes
        if codec
        else DefaultFailureConverter,
    )

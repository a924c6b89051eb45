"""The one data converter: clients, workers, tests and the replayer must all use it."""

from __future__ import annotations

from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import DataConverter


class _PayloadConverter(PydanticPayloadConverter):
    """Pydantic JSON without fields that were never set: most of a task's fields are defaults."""

    def __init__(self) -> None:
        super().__init__(ToJsonOptions(exclude_unset=True))


def data_converter() -> DataConverter:
    return DataConverter(payload_converter_class=_PayloadConverter)

"""Which signals the standard variables switch on, and how captured content is written."""

from __future__ import annotations

import json

import pytest

from planloom.activities.models.chat import ChatReply, ToolCall
from planloom.activities.telemetry.telemetry import (
    CAPTURED_CHARS_MAX,
    SECOND_BUCKETS,
    TOKEN_BUCKETS,
    captured_input,
    captured_output,
    setup_telemetry,
    switches_from,
)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("environment", "traces", "metrics"),
    [
        ({}, (), ()),
        ({ENDPOINT: ""}, (), ()),
        ({ENDPOINT: URL}, ("otlp",), ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, ("otlp",), ()),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL}, (), ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",), ()),
        ({"OTEL_TRACES_EXPORTER": "none"}, (), ()),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "none"}, (), ("otlp",)),
        ({ENDPOINT: URL, "OTEL_METRICS_EXPORTER": "none"}, ("otlp",), ()),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "console"}, ("console",), ("otlp",)),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "console, OTLP"}, ("console", "otlp"), ("otlp",)),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "True"}, (), ()),
    ],
)
def test_each_signal_is_switched_by_its_own_variables(
    environment: dict[str, str], traces: tuple[str, ...], metrics: tuple[str, ...]
) -> None:
    switches = switches_from(environment)
    assert (switches.traces, switches.metrics, switches.warnings) == (traces, metrics, ())


def test_what_is_not_obeyed_is_said() -> None:
    asked = {ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    switches = switches_from(asked)
    assert (switches.traces, switches.metrics) == ((), ("otlp",))
    unknown, protocol = switches.warnings
    assert 'OTEL_TRACES_EXPORTER: no exporter "zipkin"' in unknown
    assert 'http/protobuf, not "grpc"' in protocol


def test_telemetry_that_nobody_asked_for_is_inert() -> None:
    telemetry = setup_telemetry({})
    assert not telemetry.is_on
    assert telemetry.plugins == []
    telemetry.shutdown()


def test_the_buckets_are_those_of_the_conventions() -> None:
    assert (TOKEN_BUCKETS[0], TOKEN_BUCKETS[-1], len(TOKEN_BUCKETS)) == (1, 67_108_864, 14)
    assert (SECOND_BUCKETS[0], SECOND_BUCKETS[-1], len(SECOND_BUCKETS)) == (0.01, 81.92, 14)


def test_captured_messages_have_role_and_parts() -> None:
    call = ToolCall("c1", "add", '{"n": 1}')
    reply = ChatReply(text="yes", tool_calls=(call,), finish_reason="tool_calls")
    sent = [{"role": "user", "content": "Add."}, reply.as_message()]
    sent.append({"role": "tool", "tool_call_id": "c1", "content": "2"})
    user, assistant, tool = json.loads(captured_input(sent))
    assert user == {"role": "user", "parts": [{"type": "text", "content": "Add."}]}
    called = {"type": "tool_call", "id": "c1", "name": "add", "arguments": '{"n": 1}'}
    assert assistant["parts"] == [{"type": "text", "content": "yes"}, called]
    assert tool["parts"] == [{"type": "tool_call_response", "id": "c1", "response": "2"}]
    (answer,) = json.loads(captured_output(reply))
    assert answer == assistant | {"finish_reason": "tool_calls"}


def test_a_long_message_is_cut_and_stays_json() -> None:
    text = '"' * (CAPTURED_CHARS_MAX + 1)
    (message,) = json.loads(captured_input([{"role": "user", "content": text}]))
    assert len(message["parts"][0]["content"]) == CAPTURED_CHARS_MAX

"""Which signals the standard variables switch on, and how captured content is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
HTTP = "otlp_proto_http"


@pytest.mark.parametrize(
    ("environment", "traces", "metrics"),
    [
        ({}, (), ()),
        ({ENDPOINT: ""}, (), ()),
        ({ENDPOINT: URL}, (HTTP,), (HTTP,)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, (HTTP,), ()),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL}, (), (HTTP,)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, (HTTP,), ()),
        ({"OTEL_TRACES_EXPORTER": "none"}, (), ()),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "none"}, (), (HTTP,)),
        ({ENDPOINT: URL, "OTEL_METRICS_EXPORTER": "none"}, (HTTP,), ()),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "console"}, ("console",), (HTTP,)),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "console, OTLP"}, ("console", HTTP), (HTTP,)),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "True"}, (), ()),
    ],
)
def test_each_signal_is_switched_by_its_own_variables(
    environment: dict[str, str], traces: tuple[str, ...], metrics: tuple[str, ...]
) -> None:
    switches = switches_from(environment)
    assert (switches.traces, switches.metrics, switches.warnings) == (traces, metrics, ())


def test_an_exporter_that_is_not_installed_is_told() -> None:
    asked = {
        ENDPOINT: URL,
        "OTEL_TRACES_EXPORTER": "zipkin, console",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json",
    }
    switches = switches_from(asked)
    assert (switches.traces, switches.metrics) == (("console",), ())
    unknown, protocol = switches.warnings
    assert 'OTEL_TRACES_EXPORTER: no exporter "zipkin" is installed; there are: console' in unknown
    assert 'no exporter "otlp over http/json" is installed' in protocol


def test_an_exporter_that_somebody_installed_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "kept-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kept\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[opentelemetry_traces_exporter]\nkept = kept:Kept\n"
        "[opentelemetry_metrics_exporter]\nkept = kept:Read\n"
    )
    (tmp_path / "kept.py").write_text(
        "from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader as Read\n"
        "class Kept(SpanExporter):\n"
        "    def export(self, spans):\n"
        "        for s in spans:\n"
        "            print(s.name, s.resource.attributes['service.name'])\n"
        "        return SpanExportResult.SUCCESS\n"
    )
    code = (
        "import os\n"
        "from opentelemetry import trace\n"
        "from planloom.activities.telemetry.telemetry import setup_telemetry\n"
        "telemetry = setup_telemetry(os.environ)\n"
        "trace.get_tracer('x').start_span('seen').end()\n"
        "telemetry.shutdown()\n"
    )

    def printed(**variables: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OTEL_TRACES_EXPORTER": "kept"}
        environment |= {"OTEL_METRICS_EXPORTER": "kept", **variables}
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    assert printed() == "seen planloom"
    assert printed(OTEL_RESOURCE_ATTRIBUTES="service.name=mine") == "seen mine"
    assert printed(OTEL_TRACES_SAMPLER="always_off") == ""
    assert printed(OTEL_SDK_DISABLED="true") == ""


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

"""Spans and metrics: off by default, on by OpenTelemetry's standard variables.

Names follow the GenAI semantic conventions: `chat {model}` (CLIENT), `execute_tool {tool}`,
`plan {…}`, `invoke_workflow {type}`. Spans and metrics are recorded in activities; workflow code
uses the SDK plugin's replay-safe tracer only. Content is captured only when
`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says so.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from temporalio import activity
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider
from temporalio.exceptions import ApplicationError
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from planloom.activities.models.chat import ChatReply, Message
from planloom.activities.models.client import ModelCall, Observer
from planloom.activities.telemetry.logs import JobInterceptor, log_as, setup_logging, task_of
from planloom.planner.contract.jobs import ToolJob

__all__ = ["Telemetry", "setup_logging", "setup_telemetry", "worker_runtime"]

log = logging.getLogger("planloom.telemetry")

SERVICE = "planloom"
OTLP_EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
CAPTURED_CHARS_MAX = 100_000
"""Of one message: a larger span attribute is more than collectors take."""
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
TOKEN_BUCKETS = [float(4**n) for n in range(14)]
SECOND_BUCKETS = [0.01 * 2**n for n in range(14)]
SPAN_TOOLS = {"run_tool": "execute_tool", "write_plan": "plan", "join_outcomes": "invoke_agent"}


METRICS_ADDRESS = "PLANLOOM_METRICS_ADDRESS"


def worker_runtime(environment: Mapping[str, str]) -> Runtime | None:
    """A runtime that serves Temporal's worker metrics for Prometheus, where a setting asks for it.

    Raises:
        ValueError: the address cannot be used.
    """
    address = environment.get(METRICS_ADDRESS)
    if not address:
        return None
    metrics = PrometheusConfig(bind_address=address, durations_as_seconds=True)
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=metrics))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{METRICS_ADDRESS}={address}: {error}. Write host:port.") from None


class Telemetry:
    """What a worker process records. Everything is a no-op until `is_on`."""

    def __init__(self, *, is_on: bool = False, captures: bool = False) -> None:
        self.is_on = is_on
        self.captures = captures
        self.plugins: list[Any] = []
        self.interceptors: list[Interceptor] = [JobInterceptor()]
        self._providers: list[Any] = []
        meter = metrics.get_meter(SERVICE)
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}")
        self._model_seconds = meter.create_histogram("gen_ai.client.operation.duration", "s")
        self._tool_seconds = meter.create_histogram("gen_ai.execute_tool.duration", "s")

    def model_observer(self) -> Observer:
        """For `ModelClient.add_observer`: a span and metrics a model call."""
        return self._observe_model

    @contextlib.contextmanager
    def observe_tool(self, job: ToolJob) -> Iterator[None]:
        """For `GroupActivities`: log lines, a span and metrics of one call in a group."""
        log_as(job)
        if not self.is_on:
            yield
            return
        began, error = time.perf_counter(), None
        info = activity.info()
        with _tracer().start_as_current_span(
            f"execute_tool {job.tool}",
            attributes=_attributes(info, job, job.task, 1) | _tool_names(job.tool),
            record_exception=False,
        ) as span:
            try:
                yield
            except BaseException as failure:
                error = getattr(failure, "error_class", None) or type(failure).__name__
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, error))
                raise
            finally:
                self.record_tool(job.tool, time.perf_counter() - began, error)

    @contextlib.contextmanager
    def _observe_model(self, call: ModelCall) -> Iterator[None]:
        if not self.is_on:
            yield
            return
        request = call.request
        address = urlsplit(call.endpoint)
        common: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": request.model,
            "server.address": address.hostname or "",
            "server.port": address.port or (443 if address.scheme == "https" else 80),
        }
        info = activity.info() if activity.in_activity() else None
        began = time.perf_counter()
        name = f"chat {request.model}"
        with _tracer().start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=common, record_exception=False
        ) as span:
            if request.max_tokens is not None:
                span.set_attribute("gen_ai.request.max_tokens", request.max_tokens)
            span.set_attribute("planloom.pool", call.pool)
            if info is not None:
                span.set_attributes(
                    {"planloom.run": info.workflow_id or "", "planloom.task": info.activity_id}
                )
            if self.captures:
                span.set_attribute("gen_ai.input.messages", captured_input(request.messages))
            try:
                yield
            finally:
                self._record_model(span, call, common, time.perf_counter() - began)

    def _record_model(
        self, span: Span, call: ModelCall, common: dict[str, Any], seconds: float
    ) -> None:
        labels = dict(common)
        if call.error_class is not None:
            labels["error.type"] = call.error_class
            span.set_attribute("error.type", call.error_class)
            span.set_status(Status(StatusCode.ERROR, call.error_class))
        if (reply := call.reply) is not None:
            labels["gen_ai.response.model"] = reply.model
            span.set_attributes(
                {
                    "gen_ai.response.model": reply.model,
                    "gen_ai.response.id": reply.response_id or "",
                    "gen_ai.response.finish_reasons": [reply.finish_reason or ""],
                    "gen_ai.usage.input_tokens": reply.usage.input_tokens,
                    "gen_ai.usage.output_tokens": reply.usage.output_tokens,
                    "gen_ai.usage.cache_read.input_tokens": reply.usage.cached_tokens,
                    "planloom.usd": reply.usage.usd_nano / 1e9,
                }
            )
            if self.captures:
                span.set_attribute("gen_ai.output.messages", captured_output(reply))
            for kind, count in (
                ("input", reply.usage.input_tokens),
                ("output", reply.usage.output_tokens),
            ):
                self._tokens.record(count, {**labels, "gen_ai.token.type": kind})
        self._model_seconds.record(seconds, labels)

    def record_tool(self, tool: str, seconds: float, error: str | None) -> None:
        labels = {"gen_ai.tool.name": tool} | ({"error.type": error} if error else {})
        self._tool_seconds.record(seconds, labels)

    def start(self, switches: Switches) -> None:
        """Install providers and exporters; called once a process, when telemetry is on.

        Sampler, limits, intervals, endpoints and headers are the SDK's own to read.
        """
        # What the standard variables name goes first.
        resource = Resource.create({"service.name": SERVICE})
        resource = resource.merge(OTELResourceDetector().detect())
        if switches.traces:
            # Not the SDK's own configurator: its provider is not safe under replay.
            tracers = create_tracer_provider(resource=resource)
            for name in switches.traces:
                tracers.add_span_processor(BatchSpanProcessor(_exporter("traces", name)))
            trace.set_tracer_provider(tracers)
            self._providers.append(tracers)
            self.plugins.append(OpenTelemetryPlugin(add_temporal_spans=False))
        if switches.metrics:
            readers = [_reader(_exporter("metrics", name)) for name in switches.metrics]
            meters = MeterProvider(readers, resource=resource, views=_views())
            metrics.set_meter_provider(meters)
            self._providers.append(meters)
        self.interceptors.append(_SpanInterceptor(self))

    def shutdown(self) -> None:
        """Send what is left."""
        for provider in self._providers:
            provider.shutdown()


@dataclass(frozen=True, slots=True)
class Switches:
    """Which exporters take traces and metrics; none is off. `warnings` say what was not obeyed."""

    traces: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def switches_from(environment: Mapping[str, str]) -> Switches:
    """What the standard variables ask for, each signal by itself.

    An endpoint switches its signal on, `OTEL_{TRACES,METRICS}_EXPORTER` names installed exporters,
    and `none` or `OTEL_SDK_DISABLED` switches it off.

    Source: OpenTelemetry specification, "Environment Variable Specification".
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Switches()
    traces, no_traces = _exporters_of("traces", environment)
    meters, no_metrics = _exporters_of("metrics", environment)
    return Switches(traces, meters, (*no_traces, *no_metrics))


def _exporters_of(
    signal: str, environment: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The exporters of one signal, as the SDK's entry points name them, and what is not there."""

    def value(name: str) -> str:
        return environment.get(name, "").strip()

    one, all_ = f"OTEL_EXPORTER_OTLP_{signal.upper()}", "OTEL_EXPORTER_OTLP"
    has_endpoint = value(f"{one}_ENDPOINT") or value(f"{all_}_ENDPOINT")
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    asked = (value(variable) or ("otlp" if has_endpoint else "none")).lower().split(",")
    names = [name.strip() for name in asked if name.strip()]
    if "none" in names:
        return (), ()
    protocol = value(f"{one}_PROTOCOL") or value(f"{all_}_PROTOCOL") or "http/protobuf"
    otlp = OTLP_EXPORTERS.get(protocol, f"otlp over {protocol}")
    names = [otlp if name == "otlp" else name for name in names]
    installed = entry_points(group=_group(signal)).names
    warnings = [
        f'{variable}: no exporter "{name}" is installed; there are: {", ".join(sorted(installed))}.'
        for name in names
        if name not in installed
    ]
    return tuple(dict.fromkeys(n for n in names if n in installed)), tuple(warnings)


def _group(signal: str) -> str:
    return f"opentelemetry_{signal}_exporter"


def _exporter(signal: str, name: str) -> Any:
    (entry,) = entry_points(group=_group(signal), name=name)
    # The worker's standard output carries its one line; all else goes to standard error.
    return entry.load()(**({"out": sys.stderr} if name == "console" else {}))


def _reader(exporter: Any) -> MetricReader:
    """Some exporters are asked for their metrics, and are readers themselves."""
    if isinstance(exporter, MetricReader):
        return exporter
    return PeriodicExportingMetricReader(exporter)


def setup_telemetry(environment: Mapping[str, str]) -> Telemetry:
    """Telemetry as the standard variables ask for it; the same object, inert, when they do not."""
    switches = switches_from(environment)
    for warning in switches.warnings:
        log.warning("%s", warning)
    is_on = bool(switches.traces or switches.metrics)
    captures = environment.get(CAPTURE, "NO_CONTENT").strip().upper() in (
        "SPAN_ONLY",
        "SPAN_AND_EVENT",
        "TRUE",
    )
    telemetry = Telemetry(is_on=is_on, captures=captures)
    if is_on:
        telemetry.start(switches)
    return telemetry


def captured_input(messages: Sequence[Message]) -> str:
    """A conversation in the form of the conventions: role and parts, as JSON."""
    return json.dumps([{"role": m.get("role"), "parts": _parts(m)} for m in messages])


def captured_output(reply: ChatReply) -> str:
    """An answer in the form of the conventions."""
    reason = reply.finish_reason or "unknown"
    message = {"role": "assistant", "parts": _parts(reply.as_message()), "finish_reason": reason}
    return json.dumps([message])


def _parts(message: Message) -> list[dict[str, Any]]:
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content)
    if message.get("role") == "tool":
        called = message.get("tool_call_id")
        return [{"type": "tool_call_response", "id": called, "response": _clip(text)}]
    parts: list[dict[str, Any]] = []
    if content:
        parts.append({"type": "text", "content": _clip(text)})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        part = {"type": "tool_call", "id": call["id"], "name": function["name"]}
        parts.append(part | {"arguments": _clip(function["arguments"])})
    return parts


def _clip(text: str) -> str:
    # Cut inside a part, so that the whole stays JSON.
    return text if len(text) <= CAPTURED_CHARS_MAX else text[: CAPTURED_CHARS_MAX - 1] + "…"


def _views() -> list[View]:
    tokens = ExplicitBucketHistogramAggregation(TOKEN_BUCKETS)
    seconds = ExplicitBucketHistogramAggregation(SECOND_BUCKETS)
    return [
        View(instrument_name="gen_ai.client.token.usage", aggregation=tokens),
        View(instrument_name="gen_ai.*.duration", aggregation=seconds),
    ]


def _tracer() -> trace.Tracer:
    return trace.get_tracer(SERVICE)


class _SpanInterceptor(Interceptor):
    """A span around each activity that the conventions have a name for."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _SpanInbound(next, self._telemetry)


class _SpanInbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, telemetry: Telemetry) -> None:
        super().__init__(next)
        self._telemetry = telemetry

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        operation = SPAN_TOOLS.get(info.activity_type)
        if operation is None or not input.args:
            return await super().execute_activity(input)
        job = input.args[0]
        what = _subject(info.activity_type, job)
        began, error = time.perf_counter(), None
        attributes = _attributes(info, job, task_of(info, job), info.attempt)
        attributes["gen_ai.operation.name"] = operation
        if operation == "execute_tool":
            attributes |= _tool_names(what)
        else:
            attributes["gen_ai.agent.name"] = what
        with _tracer().start_as_current_span(
            f"{operation} {what}", attributes=attributes, record_exception=False
        ) as span:
            try:
                return await super().execute_activity(input)
            except BaseException as failure:
                error = failure.type if isinstance(failure, ApplicationError) else None
                error = error or type(failure).__name__
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, error))
                raise
            finally:
                if operation == "execute_tool":
                    self._telemetry.record_tool(what, time.perf_counter() - began, error)


def _attributes(info: activity.Info, job: object, task: str, attempt: int) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "execute_tool",
        "planloom.run": info.workflow_id or "",
        "planloom.task": task,
        "planloom.attempt": attempt,
    }
    if revision := getattr(job, "revision", 0):
        attributes["planloom.revision"] = revision
    return attributes


def _tool_names(tool: str) -> dict[str, str | int]:
    return {"gen_ai.tool.name": tool, "gen_ai.tool.type": "function"}


def _subject(activity_type: str, job: Any) -> str:
    if activity_type == "run_tool":
        return str(getattr(job, "tool", "tool"))
    return "planner" if activity_type == "write_plan" else "joiner"

"""Spans, metrics and logs: off by default, on by OpenTelemetry's standard variables.

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
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from temporalio import activity
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from activities.model_client import ModelCall, Observer

SERVICE = "planloom"
SIGNALS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
TOKEN_BUCKETS = [float(4**n) for n in range(14)]
SECOND_BUCKETS = [0.01 * 2**n for n in range(14)]
SPAN_TOOLS = {"run_tool": "execute_tool", "write_plan": "plan", "join_outcomes": "invoke_agent"}


class Telemetry:
    """What a worker process records. Everything is a no-op until `is_on`."""

    def __init__(self, *, is_on: bool = False, captures: bool = False) -> None:
        self.is_on = is_on
        self.captures = captures
        self.plugins: list[Any] = []
        self.interceptors: list[Interceptor] = []
        self._providers: list[Any] = []
        meter = metrics.get_meter(SERVICE)
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}")
        self._model_seconds = meter.create_histogram("gen_ai.client.operation.duration", "s")
        self._tool_seconds = meter.create_histogram("gen_ai.execute_tool.duration", "s")

    def model_observer(self) -> Observer:
        """For `ModelClient.add_observer`: a span and metrics a model call."""
        return self._observe_model

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
        began = time.perf_counter()
        name = f"chat {request.model}"
        with _tracer().start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=common, record_exception=False
        ) as span:
            if request.max_tokens is not None:
                span.set_attribute("gen_ai.request.max_tokens", request.max_tokens)
            span.set_attribute("planloom.pool", call.pool)
            if self.captures:
                span.set_attribute("gen_ai.input.messages", json.dumps(request.messages)[:100_000])
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
                span.set_attribute("gen_ai.output.messages", reply.text[:100_000])
            for kind, count in (
                ("input", reply.usage.input_tokens),
                ("output", reply.usage.output_tokens),
            ):
                self._tokens.record(count, {**labels, "gen_ai.token.type": kind})
        self._model_seconds.record(seconds, labels)

    def record_tool(self, tool: str, seconds: float, error: str | None) -> None:
        labels = {"gen_ai.tool.name": tool} | ({"error.type": error} if error else {})
        self._tool_seconds.record(seconds, labels)

    def start(self, environment: Mapping[str, str]) -> None:
        """Install providers and exporters; called once a process, when telemetry is on."""
        resource = Resource.create({"service.name": environment.get("OTEL_SERVICE_NAME", SERVICE)})
        tracers = create_tracer_provider(resource=resource)
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
        self._providers.append(tracers)
        if environment.get("OTEL_METRICS_EXPORTER", "otlp") != "none":
            reader = PeriodicExportingMetricReader(OTLPMetricExporter())
            meters = MeterProvider([reader], resource=resource, views=_views())
            metrics.set_meter_provider(meters)
            self._providers.append(meters)
        self.plugins.append(OpenTelemetryPlugin(add_temporal_spans=False))
        self.interceptors.append(_SpanInterceptor(self))

    def shutdown(self) -> None:
        """Send what is left."""
        for provider in self._providers:
            provider.shutdown()


def setup_telemetry(environment: Mapping[str, str]) -> Telemetry:
    """Telemetry as the standard variables ask for it; the same object, inert, when they do not."""
    wanted = any(environment.get(name) for name in SIGNALS) or environment.get(
        "OTEL_TRACES_EXPORTER", ""
    ) not in ("", "none")
    is_on = wanted and environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
    captures = environment.get(CAPTURE, "NO_CONTENT").upper() in (
        "SPAN_ONLY",
        "SPAN_AND_EVENT",
        "TRUE",
    )
    telemetry = Telemetry(is_on=is_on, captures=captures)
    if is_on:
        telemetry.start(environment)
    return telemetry


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
        attributes = {
            "gen_ai.operation.name": operation,
            "planloom.run": info.workflow_id or "",
            "planloom.task": getattr(job, "task", None) or info.activity_id,
            "planloom.attempt": info.attempt,
        }
        if operation == "execute_tool":
            attributes |= {"gen_ai.tool.name": what, "gen_ai.tool.type": "function"}
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


def _subject(activity_type: str, job: Any) -> str:
    if activity_type == "run_tool":
        return str(getattr(job, "tool", "tool"))
    return "planner" if activity_type == "write_plan" else "joiner"


class _Fields(logging.Filter):
    """Adds run, task and attempt to every record that an activity writes."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.run = record.task = ""
        if activity.in_activity():
            info = activity.info()
            record.run, record.task = info.workflow_id or "", info.activity_id
        elif isinstance(found := getattr(record, "temporal_workflow", None), Mapping):
            record.run = found.get("workflow_id", "")
        return True


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "run": getattr(record, "run", ""),
            "task": getattr(record, "task", ""),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps({k: v for k, v in fields.items() if v}, ensure_ascii=False)


def setup_logging(environment: Mapping[str, str], names: Sequence[str] = ()) -> None:
    """Logs to stderr with run and task: text, or JSON lines with `PLANLOOM_LOG=json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Fields())
    if environment.get("PLANLOOM_LOG") == "json":
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(
            logging.Formatter("%(levelname)s %(name)s %(run)s %(task)s %(message)s")
        )
    level = environment.get("PLANLOOM_LOG_LEVEL", "WARNING").upper()
    logging.basicConfig(
        level=level if level in logging.getLevelNamesMapping() else "WARNING",
        handlers=[handler],
        force=True,
    )

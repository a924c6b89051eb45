"""Temporal's worker metrics for Prometheus, and the dashboard that reads them."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

from tests.support.harness import Planloom
from tests.support.waiting import until

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana.json"


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def _served(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _queries() -> str:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return "\n".join(target["expr"] for panel in panels for target in panel["targets"])


async def test_every_worker_metric_of_the_dashboard_is_served(planloom: Planloom) -> None:
    port = free_port()
    planloom.model.script("", "words")
    async with planloom.worker_process(PLANLOOM_METRICS_ADDRESS=f"127.0.0.1:{port}"):
        result = await planloom.run({"plan": {"tasks": [{"id": "q", "ask": "hello"}]}})
        assert result["status"] == "completed"
        await planloom.failure(await planloom.start({"plan": {"tasks": []}}))
        names = set(re.findall(r"\btemporal_\w+", _queries()))
        assert len(names) > 5
        # A metric appears once its first value was recorded.
        await until(lambda: all(re.search(rf"(?m)^{n}\b", _served(port)) for n in names))
        served = _served(port)
    for label in ("workflow_type", "task_queue", "activity_type", "worker_type"):
        assert f'{label}="' in served


def test_every_metric_of_ours_in_the_dashboard_is_recorded() -> None:
    source = (DASHBOARD.parents[1] / "activities/telemetry/telemetry.py").read_text("utf-8")
    recorded = {
        name.replace(".", "_") + ("_seconds" if unit == "s" else "")
        for name, unit in re.findall(r'create_histogram\("([\w.]+)", "([^"]+)"\)', source)
    }
    used = {
        re.sub(r"_(sum|count|bucket)$", "", name)
        for name in re.findall(r"\bgen_ai_\w+(?=[\[{])", _queries())
    }
    assert used == recorded

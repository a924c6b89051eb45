"""Temporal's worker metrics for Prometheus, and the dashboard that reads them."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

from tests.support.harness import Planloom

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana.json"


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def _queries() -> str:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return "\n".join(target["expr"] for panel in panels for target in panel["targets"])


async def test_every_worker_metric_of_the_dashboard_is_served(planloom: Planloom) -> None:
    port = _free_port()
    planloom.model.script("", "words")
    async with planloom.worker_process(PLANLOOM_METRICS_ADDRESS=f"127.0.0.1:{port}"):
        result = await planloom.run({"plan": {"tasks": [{"id": "q", "ask": "hello"}]}})
        assert result["status"] == "completed"
        await planloom.failure(await planloom.start({"plan": {"tasks": []}}))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            served = answer.read().decode()
    names = set(re.findall(r"\btemporal_\w+", _queries()))
    assert len(names) > 5
    assert {name for name in names if not re.search(rf"^{name}\b", served, re.MULTILINE)} == set()
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

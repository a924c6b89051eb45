"""When a worker is live and when it is ready, and how it is asked."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from planloom.activities.telemetry.health import (
    STUCK_SECONDS,
    UNREACHED_SECONDS,
    Health,
    HealthServer,
    health_server,
)


def asked(port: int, page: str) -> tuple[int, list[str]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=10) as answer:
            return answer.status, json.loads(answer.read())["reasons"]
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())["reasons"]


def test_a_worker_is_ready_when_it_polls_and_the_server_answers() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    assert health.not_live() == []
    assert len(health.not_ready()) == 2
    health.is_polling = True
    health.reached()
    assert health.not_ready() == []
    now[0] = UNREACHED_SECONDS + 1
    health.turned()
    assert health.not_ready() == ["the Temporal server has not answered for 21 s"]
    assert health.not_live() == []  # a restart would not bring the server back
    health.reached()
    health.is_stopping = True
    assert health.not_ready() == ["it is stopping"]


def test_a_worker_whose_event_loop_stands_still_is_not_live() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    now[0] = STUCK_SECONDS + 1
    assert "has not turned" in health.not_live()[0]
    health.turned()
    assert health.not_live() == []


def test_probes_are_answered_over_http() -> None:
    health = Health()
    server = HealthServer(health, "127.0.0.1", 0)
    try:
        assert asked(server.port, "/live") == (200, [])
        assert asked(server.port, "/ready?x=1")[0] == 503
        assert asked(server.port, "/other")[0] == 404
        health.is_polling = True
        health.reached()
        assert asked(server.port, "/ready") == (200, [])
    finally:
        server.close()


def test_it_is_off_unless_it_is_asked_for_and_a_wrong_address_is_told() -> None:
    assert health_server(Health(), {}) is None
    for address in ("9465", "127.0.0.1:", "127.0.0.1:99999", "nobody.invalid:80", "a:b:c"):
        with pytest.raises(ValueError, match=r"PLANLOOM_HEALTH_ADDRESS=.*Write host:port"):
            health_server(Health(), {"PLANLOOM_HEALTH_ADDRESS": address})

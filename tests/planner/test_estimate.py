"""Estimates of one task: what it declares, and what its own limit lets it cost."""

from __future__ import annotations

from typing import Any

import pytest

from planloom.planner.compile.estimate import estimate_task
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Task
from planloom.planner.language.values import NANO


def ask(**fields: Any) -> Task:
    return Task.model_validate(
        {"id": "a", "ask": {"prompt": "x" * 400, "max_tokens": 8_000}} | fields
    )


def test_an_estimate_declared_too_low_leaves_worst_at_what_max_tokens_allows() -> None:
    catalog = Catalog(prices={"m": (100, 400)})
    found = estimate_task(ask(estimate={"tokens": 50, "usd": 0.000001}), catalog, "m")
    assert found.basis == "declared"
    assert found.tokens[:2] == (25, 50)
    assert found.tokens[2] >= 8_000
    assert found.usd_nano is not None
    assert found.usd_nano[2] >= 8_000 * 400


def test_an_estimate_declared_high_stays() -> None:
    found = estimate_task(ask(estimate={"tokens": 50_000, "usd": 2.0}), Catalog(), "m")
    assert found.tokens == (25_000, 50_000, 100_000)
    assert found.usd_nano == (1 * NANO, 2 * NANO, 4 * NANO)


@pytest.mark.parametrize("body", [{"ask": "hello"}, {"ask": None, "tool": "look"}])
def test_without_a_limit_of_its_own_a_declared_estimate_is_taken(body: dict[str, Any]) -> None:
    found = estimate_task(ask(estimate={"tokens": 50}, **body), Catalog(), "m")
    assert found.tokens == (25, 50, 100)

"""Which reservation a child run's wish for more belongs to."""

from __future__ import annotations

import pytest

from planloom.workflows.machines.shared.account import key_of_child


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sub10", "sub10"),  # not sub1's, whose name it begins with
        ("sub1", "sub1"),
        ("sub1.fallback", "sub1"),
        ("sub1.v2.r2", "sub1"),
        ("m[1]", "m[1]"),
        ("a.b.fallback", "a.b"),
        ("other", None),
    ],
)
def test_a_child_draws_on_its_own_reservation(name: str, key: str | None) -> None:
    assert key_of_child(name, ["sub1", "sub10", "m[1]", "m[10]", "a", "a.b"]) == key

"""What is installed with Planloom: locks hold all of it, once, under licences that may be used.

Known weaknesses are asked for by `make audit`, which needs a network.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[1]
RUNTIME = "requirements.lock"
LOCKS = [RUNTIME, "requirements-dev.lock"]
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|Unlicense|Zlib)\b",
    re.I,
)
RECIPROCAL = re.compile(r"\b(A?GPL|GNU (Affero )?General|SSPL|Commons Clause|Proprietary)", re.I)


@cache
def pins(lock: str) -> list[tuple[str, str]]:
    text = (CHECKOUT / lock).read_text(encoding="utf-8")
    found = re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^\s;\\]+)", text)
    return [(canonicalize_name(name), version) for name, version in found]


def installed(lock: str) -> list[Distribution]:
    """Those of the lock that belong on this system."""
    found = []
    for name, _ in pins(lock):
        try:
            found.append(distribution(name))
        except PackageNotFoundError:
            continue  # of another system, or Python
    return found


def licences_of(each: Distribution) -> str:
    classifiers = each.metadata.get_all("Classifier") or []
    words = [c for c in classifiers if c.startswith("License ::")]
    told = [each.metadata.get("License-Expression"), each.metadata.get("License")]
    return " ".join([*words, *((text or "")[:200] for text in told)])


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_each_package_once(lock: str) -> None:
    counts = Counter(name for name, _ in pins(lock))
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_installed_is_what_the_lock_says(lock: str) -> None:
    wanted = dict(pins(lock))
    there = installed(lock)
    assert len(there) > len(wanted) * 0.9
    for each in there:
        name = canonicalize_name(each.metadata["Name"])
        assert each.version == wanted[name], name


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_all_that_its_packages_need(lock: str) -> None:
    """Without it, what is missing would be installed unpinned and unchecked."""
    pinned = {name for name, _ in pins(lock)}
    missing = [
        f"{each.metadata['Name']} needs {need.name}"
        for each in installed(lock)
        for need in map(Requirement, each.requires or [])
        if (need.marker is None or need.marker.evaluate({"extra": ""}))
        and canonicalize_name(need.name) not in pinned
    ]
    assert missing == []


def test_the_licences_of_what_is_shipped_let_you_ship_it() -> None:
    licences = {each.metadata["Name"]: licences_of(each) for each in installed(RUNTIME)}
    assert {n: text for n, text in licences.items() if RECIPROCAL.search(text)} == {}
    assert {n: text for n, text in licences.items() if not PERMISSIVE.search(text)} == {}

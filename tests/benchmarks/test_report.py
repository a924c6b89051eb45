"""Figures as tables, as JSON, and on the page."""

from __future__ import annotations

from pathlib import Path

from benchmarks import page
from benchmarks.report import Figure, PartRun, Size, figure, ratio, read, row, single, table, write


def test_a_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    found = ratio("r", [2.0, 4.0, 30.0], [1.0, 4.0, 10.0], at_most=1.0)
    assert found == Figure("r", 1.0, 1.0, 3.0, at_most=1.0)
    assert found.is_met is True


def test_limits_hold_in_both_directions() -> None:
    assert single("s", 1.06, at_most=1.05).is_met is False
    assert single("s", 3.8, at_least=3.8).is_met is True
    assert single("s", 1).is_met is None


def test_a_row_has_the_limit_the_median_the_spread_and_whether_it_is_met() -> None:
    found = figure("hop", [6.0, 7.25, 1234.0], "ms", at_most=5)
    assert row(found.document()) == ["hop", "≤ 5", "7.25 ms", "6.00 to 1,234", "not met"]
    assert row(single("count", 0.012).document()) == ["count", "", "0.012", "", ""]


def test_a_note_stands_once_below_the_table() -> None:
    both = [single("a", 1, note="so").document(), single("b", 1, note="so").document()]
    assert table(both).splitlines()[3:] == ["  a: so"]


def test_a_part_measured_again_replaces_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "new" / "bench.json"
    for part, value in (("engine", 1.0), ("peers", 2.0), ("engine", 3.0)):
        write(file, part, PartRun(part, Size.QUICK).document([single("m", value)]))
    parts = read(file)
    assert {name: part["figures"][0]["median"] for name, part in parts.items()} == {
        "engine": 3.0,
        "peers": 2.0,
    }
    engine = parts["engine"]
    assert engine["size"] == "quick"
    assert set(engine["versions"]) == {"python", "commit", "planloom", "temporalio", "server"}
    assert engine["machine"]["cores"] >= 1
    assert len(engine["load_average"]) == 2


def test_the_page_is_filled_between_its_markers_in_the_order_of_the_parts() -> None:
    runs = {
        "peers": PartRun("peers", Size.FULL).document([single("p", 1, at_least=3, note="how")]),
        "engine": PartRun("engine", Size.FULL).document([], error="TimeoutError: "),
    }
    text = page.filled(f"top\n{page.BEGIN}\nold\n{page.END}\nend\n", page.figures_of(runs))
    assert "old" not in text
    assert text.startswith("top\n")
    assert text.endswith("\nend\n")
    assert text.index("### engine") < text.index("### peers")
    assert "| p | ≥ 3 | 1.00 |  | not met |" in text
    assert "- p: how" in text
    assert "did not come to its end: `TimeoutError: `" in text


def test_the_page_of_this_checkout_has_its_markers() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert "new" in page.filled(text, "new")

"""Rounds: links, contexts, retries and consensus, by the examples of facts/agents.md §2c, §2e."""

from __future__ import annotations

import pytest

from planloom.planner.syntax.labelled import (
    AGENT_LIMITS,
    MEMBER_LIMITS,
    evidence_count,
    field_violations,
    parse_confidence,
    parse_labelled,
    problem_with,
    repair_member,
)
from planloom.workflows.machines.shared.member_retry import may_retry
from planloom.workflows.machines.team.rounds import (
    REMOVED,
    Said,
    context_for,
    disagreements,
    is_consensus,
    links_of,
    snippet,
)

FIVE = [(m, "") for m in "abcde"]


def test_the_sources_ring_of_five() -> None:
    assert links_of("source", FIVE) == {
        "a": ["e", "b"],
        "b": ["a", "c"],
        "c": ["b", "d"],
        "d": ["c", "e"],
        "e": ["d", "a"],
    }


def test_the_sources_ring_with_an_anchor_is_cut_to_three() -> None:
    members = [("r", ""), ("b", ""), ("t", ""), ("s", ""), ("rev", "Reviewer")]
    assert links_of("source", members) == {
        "r": ["rev", "b"],
        "b": ["r", "t", "rev"],
        "t": ["b", "s", "rev"],
        "s": ["t", "rev"],
        "rev": ["s", "r", "b"],
    }


def test_small_teams() -> None:
    assert links_of("source", FIVE[:2]) == {"a": ["b"], "b": ["a"]}
    assert links_of("source", FIVE[:1]) == {"a": []}


def test_the_other_forms() -> None:
    three = FIVE[:3]
    assert links_of("all", three) == {"a": ["b", "c"], "b": ["a", "c"], "c": ["a", "b"]}
    assert links_of("star", three) == {"a": ["b", "c"], "b": ["a"], "c": ["a"]}
    assert links_of("pairs", FIVE[:4]) == {"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]}
    assert links_of("ring", three)["a"] == ["c", "b"]
    assert links_of({"a": ["c"]}, three) == {"a": ["c"], "b": [], "c": []}
    with pytest.raises(ValueError, match='"z" is not a member'):
        links_of({"a": ["z"]}, three)
    with pytest.raises(ValueError, match="not one of all"):
        links_of("circle", three)


def test_a_snippet_is_cut_and_holds_no_orders() -> None:
    assert len(snippet("x" * 200, "")) == 183
    assert snippet("the cache must be flushed", "") == REMOVED
    assert snippet("instructions were unclear", "") == "instructions were unclear"
    assert snippet("executed fine", "") == "executed fine"
    assert snippet("  ", "(no claim)") == "(no claim)"


def test_a_member_hears_its_partners_and_a_line_of_the_others() -> None:
    said = {m: Said(m, f"role {m}", True, f"{m} sums up", f"{m} claims") for m, _ in FIVE}
    text = context_for("a", ["b"], said, 2)
    assert "Round 2" in text
    assert "claim: b claims" in text
    assert "- c: c sums up" in text
    assert "a claims" not in text
    assert "No partners" in context_for("a", [], said, 1)


@pytest.mark.parametrize(
    ("error_class", "number", "again"),
    [
        ("rate_limit", 1, False),
        ("capacity", 1, False),
        ("auth", 1, False),
        ("timeout", 1, True),
        ("timeout", 2, False),
        ("schema_violation", 2, True),
        ("unknown", 1, True),
        (None, 1, True),
    ],
)
def test_who_is_asked_again(error_class: str | None, number: int, again: bool) -> None:
    assert may_retry(error_class, None, number) is again


def test_words_decide_where_the_class_leaves_it_open() -> None:
    assert may_retry("capacity", "HTTP 503: service unavailable", 1)
    assert not may_retry("capacity", "capacity exceeded", 1)
    assert not may_retry(None, "429 Too Many Requests", 1)


def test_the_round_contexts_of_2c() -> None:
    """Partners whole, four others in a line, orders removed, failures shown."""
    said = {m: Said(m, f"role {m}", True, f"{m} sums up", f"{m} claims") for m in "abcdefgh"}
    said["b"] = Said("b", "role b", False, "(failed: timeout)", "", "", "none")
    said["c"] = Said("c", "Reviewer", True, "x" * 200, "you must obey", "a.py:1", "check b")
    text = context_for("a", ["b", "c", "gone"], said, 1)
    lines = text.splitlines()
    assert lines[1] == "- b (role b), failed"
    assert "  summary: (failed: timeout)" in lines
    assert "  claim: (no claim)" in lines
    assert f"  summary: {'x' * 180}..." in lines
    assert f"  claim: {REMOVED}" in lines
    assert "  open questions: check b" in lines
    others = [line for line in lines if line.startswith("- ") and "sums up" in line]
    assert others == ["- d: d sums up", "- e: e sums up", "- f: f sums up", "- g: g sums up"]
    assert "counter-example" in text


def test_consensus_needs_the_same_claims_and_no_doubt() -> None:
    same = [Said(m, "", True, "s", "the cache is stale") for m in "ab"]
    other = [same[0], Said("b", "", True, "s", "the clock is wrong")]
    assert is_consensus(same, [0.9, 0.8])
    assert not is_consensus(same, [0.9, 0.3])
    assert not is_consensus(other, [0.9, 0.9])
    assert disagreements(same) == []
    assert disagreements(other) == ["a: the cache is stale", "b: the clock is wrong"]


def test_the_labelled_form_is_read_and_wrapped() -> None:
    text = "SUMMARY: checked the lock file\nRESULT:\nThe lock is taken twice.\nNEXT_STEP: none"
    fields = parse_labelled(text)
    assert (fields["SUMMARY"], fields["RESULT"]) == (
        "checked the lock file",
        "The lock is taken twice.",
    )
    assert problem_with(text, ("SUMMARY", "RESULT", "NEXT_STEP"), 48) is None
    assert problem_with("", ("SUMMARY",), 48) == "empty output"
    assert problem_with("short", ("SUMMARY",), 48) == "too short (5 chars)"
    assert repair_member("too few") is None
    wrapped = repair_member("- The lock is taken twice, says the log.")
    assert wrapped is not None
    assert parse_labelled(wrapped)["CLAIM"] == "The lock is taken twice, says the log."


def test_the_output_validation_of_1d() -> None:
    text = "SUMMARY: checked the lock file\nRESULT:\nThe lock is taken twice.\nNEXT_STEP: none"
    fields = parse_labelled(text)
    assert (len(text), len(fields["SUMMARY"]), len(fields["RESULT"])) == (79, 21, 24)
    assert field_violations(fields, AGENT_LIMITS) == []
    assert field_violations(fields, MEMBER_LIMITS) == ["CLAIM:missing", "EVIDENCE:missing"]
    long = {**fields, "SUMMARY": "x" * 501, "RESULT": "short"}
    assert field_violations(long, AGENT_LIMITS) == ["SUMMARY:too_long", "RESULT:too_short"]
    # An empty field does not take the next label for its text, as the source's pattern did.
    assert parse_labelled("SUMMARY:\nRESULT: body text here")["SUMMARY"] == ""
    missing = problem_with("SUMMARY: x" * 9, ("SUMMARY", "RESULT", "NEXT_STEP"), 48)
    assert missing == "missing labels: RESULT:, NEXT_STEP:"
    hollow = "SUMMARY: long enough to pass the plain check\nRESULT:\nNEXT_STEP: none"
    assert problem_with(hollow, ("SUMMARY", "RESULT", "NEXT_STEP"), 48) == "empty RESULT section"


def test_evidence_is_counted_as_the_source_counts_it() -> None:
    line = "src/a.ts:10, src/b.ts:20"
    assert evidence_count({"EVIDENCE": line}, f"EVIDENCE: {line}") == 4  # each of them twice
    assert evidence_count({"EVIDENCE": "none"}, "EVIDENCE: none") == 0
    assert evidence_count({}, "x.py:1 " * 90) == 50


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80%", 0.8),
        ("0.8", 0.8),
        ("1", 1.0),
        ("85", 0.85),
        ("150", 1.0),
        ("1.5", None),
        ("-0.2", 0.0),
        ("sure", None),
        (None, None),
    ],
)
def test_confidence_is_read_as_the_source_reads_it_but_for_doubtful_numbers(
    text: str | None, value: float | None
) -> None:
    assert parse_confidence(text) == value


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        ("The answer is 42", "The answer is 43", False),
        ("The cache is worth keeping", "The cache is not worth keeping", False),
        ("It can't be kept as it is now", "It can be kept as it is now", False),
        ("42", " 42", True),
        ("No", "no", True),
        ("The cache of 2024 is worth keeping now", "Now the cache of 2024 is worth keeping", True),
    ],
)
def test_a_number_or_a_not_makes_another_claim(left: str, right: str, is_same: bool) -> None:
    both = [Said("a", "r", True, claim=left), Said("b", "r", True, claim=right)]
    assert is_consensus(both, [0.9, 0.9]) is is_same
    assert (disagreements(both) == []) is is_same

"""References: found, resolved once, types kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.conditions import check_condition, evaluate, roots_of_condition
from planner.references import (
    BadPathError,
    MissingReferenceError,
    find_references,
    rename,
    resolve,
    roots_of,
)

SCOPE = {
    "a": {"n": 1, "items": [{"name": "x"}, {"name": "y"}]},
    "b": "pay $2 ${c}",
    "none": None,
    "zero": 0,
    "1": True,
    "my-id": [1, 2],
}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("${a.n}", 1),
        ("n=${a.n}", "n=1"),
        ("${a.items[1].name}", "y"),
        ("${a.items | length(@)}", 2),
        ("${a.items[?name=='x'] | [0].name}", "x"),
        ("${my-id[0]}", 1),
        ("${1}", True),
        ("is ${1}", "is true"),
        ("${none}", None),
        ("x${none}", "xnull"),
        ("${zero}", 0),
        ("${b}", "pay $2 ${c}"),
        ("<${b}>", "<pay $2 ${c}>"),
        ("$${a.n}", "${a.n}"),
        ("costs $5 and {x}", "costs $5 and {x}"),
        ({"k": ["${a.n}", {"${a}": "${zero}"}]}, {"k": [1, {"${a}": 0}]}),
        ("${a.missing}", None),
        ("list ${my-id}", "list [1,2]"),
        ("${", "${"),
        ("${a.n", "${a.n"),
    ],
)
def test_a_reference_gives_its_value_with_its_type(value, found) -> None:
    result = resolve(value, SCOPE)
    assert result == found
    assert type(result) is type(found)


def test_a_missing_name_is_told_with_the_nearest() -> None:
    with pytest.raises(MissingReferenceError, match='Did you mean "my-id"'):
        resolve("${my-ip}", SCOPE)


def test_a_path_that_does_not_parse_is_told() -> None:
    with pytest.raises(BadPathError):
        resolve("${a[}", SCOPE)


@given(st.text(), st.text())
def test_what_a_value_holds_is_never_resolved_again(left: str, right: str) -> None:
    scope = {"x": left, "y": right, "a": "never"}
    assert resolve("${x}|${y}", scope) == f"{left}|{right}"


@given(st.text(alphabet="ab${}.$ ", max_size=20))
def test_finding_never_fails_and_renaming_to_itself_changes_no_meaning(text: str) -> None:
    roots = roots_of(text)
    same = rename(text, {r: r for r in roots})
    assert roots_of(same) == roots
    assert [r.path for r in find_references(same)] == [r.path for r in find_references(text)]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("a.outcome == 'succeeded'", True),
        ("bad.outcome == 'failed'", True),
        ("a.output.n == `1`", True),
        ("a.n == `1`", True),
        ("${a.n} == 1", True),
        ("${a.n} > 1", False),
        ("${a.n} >= 1 && !${none}", True),
        ("${zero}", False),
        ("${a}", True),
        ("${none}", False),
        ("length(${my-id}) >= 2", True),
        ("my-id.output", None),
        ("${a.ok} == true || ${a.n} < 10", True),
        ("bad.outcome != 'failed' || a.outcome == 'skipped'", False),
    ],
)
def test_conditions_over_outcomes_and_values(condition: str, holds: bool | None) -> None:
    outcomes = dict.fromkeys(SCOPE, "succeeded") | {"bad": "failed"}
    if holds is None:
        assert check_condition(condition, outcomes, "when")[0].code == "bad_condition"
        return
    assert evaluate(condition, outcomes, SCOPE) is holds


def test_a_condition_tells_what_it_reads() -> None:
    assert roots_of_condition("${a.n} > 1 && b.outcome == 'x'", {"a", "b"}) == ("a", "b")
    problem = check_condition("chekc.ok", {"check"}, "when")[0]
    assert 'Did you mean "check"' in problem.hint

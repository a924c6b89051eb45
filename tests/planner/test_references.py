"""References: found, resolved once, types kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.language.conditions import (
    ConditionError,
    check_condition,
    evaluate,
    rename_in_condition,
    roots_of_condition,
)
from planloom.planner.language.references import (
    BadPathError,
    MissingReferenceError,
    check_path,
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
    "a.b": {"c": 7},
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
        ("x${none}", "x(none has no value)"),
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
        ("${a.n ${a.n}", "${a.n 1"),
        ('${"a.b".c}', 7),
        ("${a.items[?name=='}'] | length(@)}", 0),
        ("${a.n}" * 500, "1" * 500),
        ("${x " * 50 + "${a.n}", "${x " * 50 + "1"),
    ],
)
def test_a_reference_gives_its_value_with_its_type(value, found) -> None:
    result = resolve(value, SCOPE)
    assert result == found
    assert type(result) is type(found)


def test_a_missing_name_is_told_with_the_nearest() -> None:
    with pytest.raises(MissingReferenceError, match='Did you mean "my-id"'):
        resolve("${my-ip}", SCOPE)


@pytest.mark.parametrize(
    "text", ["${a[}", "${a n}", "${a:-x}", "${a|lenght(@)}", "${a" + "|@" * 200 + "}", "${a.}"]
)
def test_a_path_that_cannot_be_evaluated_is_told_before_and_during_a_run(text: str) -> None:
    (reference,) = find_references(text)
    assert [p.code for p in check_path(reference, "args.x")] == ["bad_path"]
    with pytest.raises(BadPathError):
        resolve(text, SCOPE)


@pytest.mark.parametrize("unit", ["${", "${a", "${a'\\'", "${a'${a\"", "${a{"])
def test_a_text_full_of_references_that_never_close_is_read_at_once(unit: str) -> None:
    import time

    began = time.process_time()
    assert resolve(unit * 30_000, {}) == unit * 30_000
    assert time.process_time() - began < 1  # it took minutes when each looked for its end


def test_a_function_that_does_not_fit_never_shows_the_value() -> None:
    secret = ["sk-very-secret"]
    with pytest.raises(BadPathError, match="sum\\(\\) needs array-number, found str") as path:
        resolve("${a|sum(@)}", {"a": secret})
    with pytest.raises(ConditionError) as condition:
        evaluate("sum(${a}) > 3", {"a": "succeeded"}, {"a": secret})
    assert "secret" not in f"{path.value} {condition.value}"


def test_a_value_that_jmespath_chokes_on_is_a_bad_path() -> None:
    for text in ("${a | contains('x', `1`)}", "${b[::0]}"):
        with pytest.raises(BadPathError):
            resolve(text, {"a": 1, "b": [1, 2]})


def test_renaming_quotes_a_name_that_needs_it() -> None:
    assert rename("${b.x} and ${b}", {"b": "a.b"}) == '${"a.b".x} and ${"a.b"}'


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
        ("my-id.outcome == 'succeeded' && my-id.output", True),
        ("1.outcome == 'succeeded'", True),
        ("10 > ${a.n}", True),
        ("${a.n} > -5 && ${a.n} < 1e3", True),
        ("a.items[?name == 'x'] | length(@) == 1", True),
        ("max_by(${a.items}, &name).name == 'y'", True),
        ("${a.items[?name != '}'] | [1].name} == 'y'", True),
        ("my id", None),
        ("", None),
        ("a.ok and a.n", None),
        ("lenght(a.items) > 1", None),
        ("(" * 1900 + "a.ok" + ")" * 1900, None),
        ("!" * 3000 + "a.ok", None),
        ("a.ok && " * 1000 + "a.ok", None),
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


def test_names_inside_an_expression_are_read_from_their_item() -> None:
    condition = "sort_by(a.items, &score)[?ok].id | length(@) > `2`"
    assert roots_of_condition(condition) == ("a",)
    assert check_condition(condition, {"a"}, "when") == []


@pytest.mark.parametrize(
    ("condition", "code", "hint"),
    [
        ("'${a.x}' == 'y'", "quoted_reference", "without the quotes"),
        ('a.outcome == "succeeded"', "missing_reference", "single quotes"),
        ("a.ok and b.ok", "bad_condition", "&& for and"),
        ("a.n in [1, 2]", "bad_condition", "contains"),
    ],
)
def test_habits_from_other_languages_are_answered(condition: str, code: str, hint: str) -> None:
    (problem,) = check_condition(condition, {"a", "b"}, "when")
    assert problem.code == code
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("condition", "renamed"),
    [
        ("b.ok && !b.bad", "a.ok && !a.bad"),
        ("b.b == 'b' && c.b", "a.b == 'b' && c.b"),
        ("${b.b} > 3 || b[0].b", "${a.b} > 3 || a[0].b"),
        ("\"b\".outcome == 'b.c'", "a.outcome == 'b.c'"),
        ("length(b)>1", "length(a)>1"),
        ("b.items[?b > `1`] | b", "a.items[?b > `1`] | b"),
        ("(x | b) && b", "(x | b) && a"),
        ("sort_by(b, &b)", "sort_by(a, &b)"),
        ("x.{b: b}", "x.{b: b}"),
        ("b-b.ok", "b-b.ok"),
    ],
)
def test_renaming_in_a_condition_touches_only_tasks(condition: str, renamed: str) -> None:
    assert rename_in_condition(condition, {"b": "a"}) == renamed
    assert rename_in_condition(condition, {}) == condition


@given(st.text(alphabet="ab.'\"`[]()?&|!<=>1 -${}@*", max_size=30))
def test_no_text_breaks_a_condition(text: str) -> None:
    problems = check_condition(text, {"a", "b"}, "when")
    assert rename_in_condition(text, {}) == text
    try:
        evaluate(text, {"a": "succeeded"}, {"a": {"b": 1}})
    except ConditionError:
        return
    assert all(p.code != "bad_condition" for p in problems)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("${length(rows)}", 3),
        ("${ length( rows ) }", 3),
        ("${length(rows)} rows", "3 rows"),
        ("${join(', ', names)}", "a, b"),
        ("${length(o.x)}", 2),
        ("${sort(rows)[0]}", 1),
        ("${sort_by(rows, &@)[-1]}", 3),
        ('${length("a.b")}', 1),
        ("${length(rows[?@ > `1`])}", 2),
        ("${length}", 7),
    ],
)
def test_functions_may_stand_around_the_name(text: str, found: Any) -> None:
    scope: dict[str, Any] = {
        "rows": [3, 1, 2],
        "names": ["a", "b"],
        "o": {"x": [1, 2]},
        "a.b": [5],
        "length": 7,
    }
    assert resolve(text, scope) == found


def test_a_function_that_there_is_not_is_named() -> None:
    with pytest.raises(BadPathError, match='no function "nofunc"'):
        resolve("${nofunc(rows)}", {"rows": []})

"""What an expression may do and build is bounded, wherever one is evaluated."""

from __future__ import annotations

import json
import time
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.planner.language.conditions import evaluate
from planloom.planner.language.expressions import (
    IN_ACTIVITY,
    IN_WORKFLOW,
    BadPathError,
    Bounds,
    Meter,
    TooMuchWorkError,
    compiled_expression,
    compiled_path,
)
from planloom.planner.language.references import NothingFoundError, builds, resolve

ROWS = [{"n": n, "name": f"row {n}", "tags": ["x", "y"]} for n in range(100)]
WIDE = list(range(1000))

GROWING = {
    "lists that double": "${a" + " | [@,@]" * 80 + "}",
    "lists that double, with an end that counts": "${a" + " | [@,@]" * 80 + " | to_string(@)}",
    "objects that double": "${a" + " | {x:@,y:@}" * 60 + "}",
    "flattened lists that double": "${rows" + " | [@,@][]" * 60 + "}",
    "merged objects": "${o" + " | merge({x:@},{y:@})" * 30 + "}",
    "text that doubles": "${s" + " | join('',[@,@])" * 45 + "}",
    "text of a doubled list": "${a" + " | [@,@]" * 30 + " | to_string(@) | length(@)}",
    "maps in maps": "${wide | map(&[@,@,@,@,@,@,@,@,@,@], @)" + " | map(&[@,@,@,@], @)" * 20 + "}",
    "nested projections": "${wide" + " | [*].[@,@]" * 40 + "}",
    "sorted lists that double": "${wide" + " | sort([@,@][])" * 40 + "}",
    "sort_by over lists that double": "${wide" + " | sort_by([@,@][], &@)" * 30 + "}",
    "reversed lists that double": "${wide" + " | reverse([@,@][])" * 40 + "}",
    "values of objects that double": "${wide" + " | values({x:@,y:@})" * 40 + "}",
    "filters over lists that double": "${wide" + " | [@,@][] | [?@ > `-1`]" * 20 + "}",
    "slices that double": "${wide" + " | [[:],[:]][]" * 50 + "}",
    "one large part many times": "${big | [" + ",".join(["@"] * 400) + "]}",
    "equal lists that double": "${a | [@"
    + "|[@,@]" * 60
    + ",@"
    + "|[@,@]" * 60
    + "] | [0] == [1]}",
    "a doubled list looked for in a list": "${a | contains([@"
    + "|[@,@]" * 60
    + "], @"
    + "|[@,@]" * 60
    + ")}",
}
SCOPE: dict[str, Any] = {
    "a": {"n": 1},
    "o": {"k": 1},
    "s": "abcdefgh",
    "rows": ROWS,
    "wide": WIDE,
    "big": [{"text": "x" * 1000}] * 400,
}


IN_ACTIVITIES = (
    "lists that double",
    "text that doubles",
    "maps in maps",
    "sorted lists that double",
)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        *((text, IN_WORKFLOW) for text in GROWING.values()),
        *((GROWING[name], IN_ACTIVITY) for name in IN_ACTIVITIES),
    ],
    ids=[*GROWING, *(f"{name}, in an activity" for name in IN_ACTIVITIES)],
)
def test_an_expression_that_grows_without_end_is_refused_by_name(text: str, bounds: Bounds) -> None:
    began = time.process_time()
    refusal, found = "", None
    try:
        found = resolve(text, SCOPE, Meter(bounds))
    except BadPathError as error:
        refusal = str(error)
    # Within the bounds after all: then so is the document.
    assert text[:40] in refusal or len(json.dumps(found)) <= 2 * bounds.size_bytes
    assert time.process_time() - began < (1 if bounds is IN_WORKFLOW else 20)


@pytest.mark.parametrize("text", GROWING.values(), ids=GROWING)
def test_what_doubles_is_never_within_the_bounds_of_workflow_code(text: str) -> None:
    with pytest.raises(TooMuchWorkError, match=r"^\"\$\{"):
        resolve(text, SCOPE)


def test_a_condition_that_doubles_is_refused_by_name() -> None:
    condition = "a.output" + " | [@,@]" * 80 + " | to_string(@) == 'x'"
    began = time.process_time()
    with pytest.raises(TooMuchWorkError, match=r"a\.output \| .* builds more than"):
        evaluate(condition, {"a": "succeeded"}, {"a": 1})
    assert time.process_time() - began < 1


def test_many_references_share_the_bounds_of_one_value() -> None:
    each = "${wide | [*].[@,@] | length(@)}"
    assert resolve(each, SCOPE) == 1000
    with pytest.raises(TooMuchWorkError):
        resolve([each] * 100, SCOPE)


@pytest.mark.parametrize("text", ["${big}", "size: ${big}", "${big[0:400]}"])
def test_a_large_value_referred_to_many_times_is_bounded(text: str) -> None:
    assert resolve([text], SCOPE)
    with pytest.raises(TooMuchWorkError, match="big"):
        resolve([text] * 1000, SCOPE)


def test_a_large_value_is_handed_on_whole_however_large_it_is() -> None:
    large = [{"text": "x" * 100, "n": n} for n in range(200_000)]
    assert resolve("${rows}", {"rows": large}) is large
    assert resolve("${o.rows}", {"o": {"rows": large}}) is large


def test_ordinary_work_on_large_values_is_within_the_bounds_of_an_activity() -> None:
    large = [{"text": "some words", "n": n} for n in range(100_000)]
    meter = Meter(IN_ACTIVITY)
    found = resolve("${rows[?n > `10`].n | max(@)}", {"rows": large}, meter)
    assert found == 99_999
    assert len(
        resolve("${rows | sort_by(@, &n)[*].text}", {"rows": large}, Meter(IN_ACTIVITY))
    ) == (100_000)


EXPRESSIONS = [
    "@",
    "a.b[0]",
    "a.*",
    "a.b[*].c",
    "a.b[?c > `1`]",
    "a.b[].c",
    "{x: a, y: [a.b, a.b]}",
    "length(a.b)",
    "a.b | sort_by(@, &c)",
    "map(&c, a.b)",
    "a.b == a.b",
    "a.b != `[]`",
    "contains(a.t, 'x')",
    "contains(a.b, a.b[0])",
    "reverse(a.t)",
    "join('-', a.s)",
    "to_string(a)",
    "to_number(a.t)",
    "merge(a, {t: `1`})",
    "keys(a)",
    "values(a)",
    "not_null(a.z, a.t)",
    "a.b[1:]",
    "a.z || a.t",
    "a.t && a.b",
    "!a.z",
    "max_by(a.b, &c).c",
    "sum(a.b[*].c)",
    "avg(a.b[*].c)",
    "type(a)",
    "a.b[-1]",
]
VALUES = st.fixed_dictionaries(
    {
        "a": st.fixed_dictionaries(
            {
                "b": st.lists(st.fixed_dictionaries({"c": st.integers(-5, 5)}), max_size=4),
                "t": st.sampled_from(["", "x", "12", "xyz"]),
                "s": st.lists(st.sampled_from(["p", "q"]), max_size=3),
            }
        )
    }
)


@given(st.sampled_from(EXPRESSIONS), VALUES)
def test_within_the_bounds_an_expression_gives_what_jmespath_gives(text: str, value: Any) -> None:
    try:
        expected = jmespath.search(text, value)
    except Exception:  # whatever JMESPath does not take, this does not take
        with pytest.raises(BadPathError):
            compiled_expression(text).search(value, Meter())
    else:
        assert compiled_expression(text).search(value, Meter()) == expected


def test_the_same_work_ends_at_the_same_step_every_time() -> None:
    counts = set()
    for _ in range(3):
        meter = Meter(IN_WORKFLOW)
        with pytest.raises(TooMuchWorkError):
            resolve(GROWING["nested projections"], SCOPE, meter)
        counts.add((meter.steps, meter.nodes, meter.size_bytes))
    assert len(counts) == 1


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_a_text_that_json_has_no_number_for_is_no_number(text: str) -> None:
    assert resolve("${t | to_number(@)}", {"t": text}) is None


@pytest.mark.parametrize(
    "text",
    [
        "Is ${a.population} large?",
        "${a.n} of ${a.total}",
        "first: ${rows[1000].name}",
        "named: ${rows[?n == `1000`] | [0].name}",
    ],
)
def test_a_path_that_finds_nothing_is_not_null_in_the_middle_of_a_text(text: str) -> None:
    with pytest.raises(NothingFoundError, match=r"finds nothing.*default"):
        resolve(text, SCOPE)
    with pytest.raises(NothingFoundError):
        resolve({"args": [text]}, SCOPE)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Is ${a.population || 'it'} large?", "Is it large?"),
        ("${a.population}", None),
        ("${a.population || `7`} people", "7 people"),
        ("Total: ${none} euros", "Total: (none has no value) euros"),
        ("Total: ${none.price} euros", "Total: (none has no value) euros"),
        ("Is ${a.population | to_string(@)} it?", "Is null it?"),
        ("empty: ${a.e}.", "empty: ."),
        ("zero: ${a.z}", "zero: 0"),
    ],
)
def test_a_default_or_a_value_that_is_missing_as_a_whole_is_told_in_the_text(
    text: str, found: object
) -> None:
    assert resolve(text, {"a": {"n": 1, "e": "", "z": 0}, "none": None}) == found


def test_only_what_computes_is_resolved_outside_the_event_loop() -> None:
    assert not builds(["${a}", "x ${a.b[0]}", {"k": "${a.b || c}"}, 1])
    assert builds({"k": ["${a[*].b}"]})
    assert builds("n: ${a | length(@)}")


@pytest.mark.parametrize(
    "path", ["[?s == t]", "[?starts_with(s, t)]", "[*].contains([s, s], t)", "[?ends_with(s, t)]"]
)
def test_comparing_long_texts_is_work(path: str) -> None:
    """Two texts of ten megabytes, compared half a million times, took a thread for minutes."""
    rows = "[" + ",".join(["@"] * 100) + "]"
    texts = {"s": "a" * 1_000_000, "t": "a" * 999_999 + "b"}
    meter = Meter(IN_ACTIVITY)
    compiled_path(f"| {rows} | {path}").search(texts, meter)
    assert meter.steps > 100_000


@pytest.mark.parametrize("path", ["sort(@)", "max(@)", "min(@)", "sort_by(@, &@)", "max_by(@, &@)"])
def test_ordering_long_texts_is_work(path: str) -> None:
    """Ten texts of a megabyte that differ at their ends, sorted 150,000 times, are minutes too."""
    texts = ["a" * 1_000_000 + str(n) for n in range(10)]
    meter = Meter(IN_ACTIVITY)
    compiled_path(f"| {path}").search(texts, meter)
    assert meter.steps > 100_000


@pytest.mark.parametrize(
    "literal",
    ["`NaN`", "`[-Infinity]`", "`1e999`", '`"\\ud800"`', '`{"\\udfff": 1}`', '{"\\ud800": @}'],
)
def test_what_no_json_can_hold_is_no_literal(literal: str) -> None:
    """In ASCII until JMESPath reads it: cleaning the plan's text does not see it."""
    with pytest.raises(BadPathError, match="no JSON can hold"):
        resolve("${a | " + literal + "}", SCOPE)
    with pytest.raises(BadPathError, match="no JSON can hold"):
        compiled_expression(literal)


def test_a_literal_is_nested_no_deeper_than_an_expression() -> None:
    with pytest.raises(BadPathError, match="nested deeper than 100 levels"):
        resolve("${a | `" + "[" * 300 + "]" * 300 + "`}", SCOPE)
    assert resolve("${a | `[[1]]`}", SCOPE) == [[1]]


def test_a_number_longer_than_readers_of_json_take_is_none() -> None:
    text = "${t | join('', [@, @, @]) | to_number(@) | sum([" + ",".join(["@"] * 100) + "])}"
    assert resolve(text, {"t": "9" * 1_433}) is None
    assert resolve(text, {"t": "9"}) == 99_900

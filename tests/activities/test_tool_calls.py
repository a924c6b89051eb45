"""Tool calls are put together from whatever pieces an endpoint sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planloom.activities.models.tool_calls import CALLS_MAX, CallAssembler


def piece(name: str | None = None, args: str | None = None, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": args}, **more}


def read(*deltas: list[Any]) -> list[tuple[str, str]]:
    assembler = CallAssembler()
    for delta in deltas:
        assembler.add_delta(delta)
    return [(c.name, c.arguments) for c in assembler.calls()]


def test_fields_that_go_back_with_a_call_can_be_encoded() -> None:
    """Found by a million fuzzed inputs: half a character in one, and no history could hold it."""
    assembler = CallAssembler()
    sign = {"google": {"thought_signature": "\ud83d", "\udc00": ["\ud83d\ude00"]}}
    assembler.add_delta([piece("f", "{}", index=0, id="a", extra_content=sign)])
    (call,) = assembler.calls()
    assert call.extra == {
        "extra_content": {"google": {"thought_signature": "\ufffd", "\ufffd": ["\U0001f600"]}}
    }


TWO = [("f", '{"x":1}'), ("g", '{"y":2}')]


@pytest.mark.parametrize(
    "deltas",
    [
        # The protocol: an index each.
        [
            [piece("f", "", index=0, id="a")],
            [piece(args='{"x":1}', index=0)],
            [piece("g", "", index=1, id="b")],
            [piece(args='{"y":2}', index=1)],
        ],
        # All with the index 0 (ollama/ollama#15457), whole or in pieces.
        [[piece("f", '{"x":1}', index=0, id="a")], [piece("g", '{"y":2}', index=0, id="b")]],
        [
            [piece("f", "", index=0, id="a")],
            [piece(args='{"x":1}', index=0)],
            [piece("g", "", index=0, id="b")],
            [piece(args='{"y":2}', index=0)],
        ],
        # None has an index (ollama/ollama#7881), or an id either.
        [[piece("f", '{"x":1}', id="a")], [piece("g", '{"y":2}', id="b")]],
        [[piece("f", '{"x":1}')], [piece("g", '{"y":2}')]],
        [[piece("f", '{"x"')], [piece(args=":1}")], [piece("g", '{"y"')], [piece(args=":2}")]],
        [[piece("f", '{"x":1}'), piece("g", '{"y":2}')]],
        # Ids, but the same for both.
        [[piece("f", '{"x":1}', id="a")], [piece("g", '{"y":2}', id="a")]],
        # Id and name with each piece.
        [
            [piece("f", '{"x"', index=0, id="a")],
            [piece("f", ":1}", index=0, id="a")],
            [piece("g", '{"y"', index=1, id="b")],
            [piece("g", ":2}", index=1, id="b")],
        ],
        # Taking turns (QwenLM/Qwen-Agent#943).
        [
            [piece("f", "", index=0, id="a"), piece("g", "", index=1, id="b")],
            [piece(args='{"y"', index=1), piece(args='{"x"', index=0)],
            [piece(args=":1}", index=0), piece(args=":2}", index=1)],
        ],
        # The index as text; null and words in the list.
        [
            [piece("f", '{"x"', index="0", id="a"), None, "word"],
            [piece("g", '{"y"', index="1", id="b")],
            [piece(args=":1}", index="0")],
            [piece(args=":2}", index="1")],
        ],
    ],
)
def test_two_calls_are_two_calls(deltas: list[list[Any]]) -> None:
    assert read(*deltas) == TWO


@pytest.mark.parametrize(
    "deltas",
    [
        # The name in two pieces.
        [
            [piece("wri", index=0, id="a")],
            [piece("te", index=0)],
            [piece(args='{"x":1}', index=0)],
        ],
        # The last event brings the whole call once more.
        [
            [piece("write", '{"x":1}', index=0, id="a")],
            [piece("write", '{"x":1}', index=0, id="a")],
        ],
        # Each event brings all that was written so far.
        [[piece("write", '{"x', index=0, id="a")], [piece(args='{"x":1}', index=0, id="a")]],
    ],
)
def test_one_call_is_one_call(deltas: list[list[Any]]) -> None:
    assert read(*deltas) == [("write", '{"x":1}')]


def test_the_same_call_twice_is_two_calls() -> None:
    assert read([piece("f", '{"x":1}')], [piece("f", '{"x":1}')]) == [TWO[0], TWO[0]]


def test_an_id_that_comes_late_belongs_to_its_call() -> None:
    assembler = CallAssembler()
    assembler.add_delta([piece("f", '{"x"', index=0)])
    assembler.add_delta([piece(None, ":1}", index=0, id="late")])
    (call,) = assembler.calls()
    assert (call.id, call.arguments) == ("late", '{"x":1}')


def test_every_call_has_an_id_of_its_own() -> None:
    assembler = CallAssembler()
    assembler.add_whole([piece("f", "{}", id="a"), piece("g", "{}", id="a"), piece("h", "{}")])
    ids = [c.id for c in assembler.calls()]
    assert len(set(ids)) == 3
    assert ids[0] == "a"
    assert all(len(i) == 9 and i.isalnum() for i in ids[1:])  # as Mistral wants them


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        (None, []),
        ("f", []),
        ([None], []),
        ({"id": "a", "function": {"name": "f", "arguments": "{}"}}, [("f", "{}")]),
        ([{"id": "a", "function": "f"}], [("f", "")]),
        ([{"name": "f", "arguments": {"x": 1}}], [("f", '{"x": 1}')]),
        ([{"function": {"name": "f", "arguments": {"x": 1}}}], [("f", '{"x": 1}')]),
        ([{"function": {"name": "f", "arguments": None}}], [("f", "")]),
        ([{"function": None}], []),
    ],
)
def test_calls_of_a_whole_body_in_other_forms(calls: object, found: list[Any]) -> None:
    assembler = CallAssembler()
    assembler.add_whole(calls)
    assert [(c.name, c.arguments) for c in assembler.calls()] == found


def test_what_came_with_a_call_is_kept_with_it() -> None:
    assembler = CallAssembler()
    assembler.add_whole([piece("f", "{}", id="a", extra_content={"google": {"s": "SIG"}})])
    assert assembler.calls()[0].extra == {"extra_content": {"google": {"s": "SIG"}}}


ARGUMENTS = st.dictionaries(st.text(max_size=3), st.integers(), max_size=3).map(json.dumps)


@given(st.lists(st.tuples(st.sampled_from("fgh"), ARGUMENTS), max_size=5), st.data())
def test_calls_in_any_pieces_of_the_protocol_are_the_calls(
    calls: list[tuple[str, str]], data: st.DataObject
) -> None:
    assembler = CallAssembler()
    for n, (name, _arguments) in enumerate(calls):
        assembler.add_delta([piece(name, "", index=n, id=f"id{n}")])
    lefts = {n: arguments for n, (_, arguments) in enumerate(calls)}
    while any(lefts.values()):
        n = data.draw(st.sampled_from([n for n, left in lefts.items() if left]))
        size = data.draw(st.integers(1, len(lefts[n])))
        assembler.add_delta([piece(None, lefts[n][:size], index=n)])
        lefts[n] = lefts[n][size:]
    assert [(c.name, c.arguments) for c in assembler.calls()] == calls


def test_endless_calls_and_pieces_are_bounded() -> None:
    assembler = CallAssembler()
    for n in range(20_000):
        assembler.add_delta([piece("f", "{}", id=str(n))])
    for _ in range(100_000):
        assembler.add_delta([piece("f", '{"x')])
    assert len(assembler.calls()) == CALLS_MAX


def test_a_call_beside_a_field_nested_without_end_is_not_lost() -> None:
    deep: Any = "x"
    for _ in range(600):
        deep = [deep]
    assembler = CallAssembler()
    assembler.add_whole([piece("f", "{}", id="a", extra_content=deep)])
    (call,) = assembler.calls()
    assert (call.name, call.extra) == ("f", {})

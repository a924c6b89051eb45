"""A team that cannot work is told all of it at once, before anybody is asked."""

from __future__ import annotations

from planloom.planner.compile.team_check import team_problems
from planloom.planner.language.definitions import Subtask, TeamSpec
from planloom.planner.language.team_links import check_links
from planloom.planner.language.values import Problem
from tests.support.linear import assert_linear, repeated


def problems(team: dict[str, object], quorum: int | None = None, *subtasks: Subtask) -> list[str]:
    spec = TeamSpec.model_validate(team)
    found = team_problems(
        spec,
        quorum=quorum,
        subtasks=list(subtasks),
        check_links=lambda active: check_links(spec.links, [m.id for m in active]),
    )
    return [p.line() for p in found]


def test_all_problems_come_at_once() -> None:
    members = [
        {"id": "a1", "depends_on": ["zed", "b2"]},
        {"id": "b2", "depends_on": ["a1"]},
        {"id": "b2"},
        {"id": "c3", "depends_on": ["c3"]},
    ]
    part = Subtask(id="s", task="x", member="a1x", depends_on=["t"])
    said = "\n".join(problems({"members": members, "links": {"a1": ["nobody"]}}, 9, part))
    for word in (
        "two members have the same id",
        "quorum 9 of 4",
        '"nobody" is not a member',
        '"a1" depends on "zed"',
        "the members wait for each other: c3 → c3",
        'no member "a1x". Did you mean "a1"?',
        '"s" depends on "t"',
    ):
        assert word in said, (word, said)


def test_a_cycle_is_shown_with_its_path() -> None:
    members = [{"id": x, "depends_on": [y]} for x, y in (("a", "b"), ("b", "c"), ("c", "a"))]
    assert any("→" in p and "wait for each other" in p for p in problems({"members": members}))


def test_a_good_team_has_none_and_one_without_members_is_told_so() -> None:
    assert problems({"members": [{"id": "a"}, {"id": "b", "depends_on": ["a"]}]}, 2) == []
    assert problems({"members": [{"id": "a", "enabled": False}]}) == [
        "team.members: no member is enabled"
    ]


def test_thousands_of_subtasks_are_checked_in_linear_time() -> None:
    """Found: 15,000 of them took 3 s of workflow code, and wrong ones minutes."""
    team = TeamSpec.model_validate({"members": [{"id": "a"}]})

    def check(subtasks: list[Subtask]) -> list[Problem]:
        return team_problems(team, quorum=None, subtasks=subtasks, check_links=lambda _: None)

    def right(text: str) -> object:
        count = len(text)
        return check([Subtask(id=f"s{n}", task="t", member="a") for n in range(count)])

    def wrong(text: str) -> object:
        count = len(text)
        return check([Subtask(id=f"s{n}", task="t", depends_on=[f"z{n}"]) for n in range(count)])

    assert_linear(right, repeated("x"), 4_000)
    assert_linear(wrong, repeated("x"), 4_000)
    assert right("x" * 10) == []
    assert len(check([Subtask(id=f"s{n}", task="t", member="b") for n in range(4_000)])) == 100

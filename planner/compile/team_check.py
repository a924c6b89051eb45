"""What is wrong with a team before anybody is asked: all of it at once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from itertools import islice

from planloom.planner.language.definitions import MemberSpec, Subtask, TeamSpec
from planloom.planner.language.values import Problem

PROBLEMS_MAX = 100
"""Of one kind: workflow code looks for them, and each is compared with all names."""
NAMES_COMPARED_MAX = 200


def team_problems(
    team: TeamSpec,
    *,
    quorum: int | None,
    subtasks: Sequence[Subtask] | None,
    check_links: Callable[[Sequence[MemberSpec]], object],
) -> list[Problem]:
    """Everything that keeps a team from working. `check_links` raises `ValueError` for bad ones."""
    active = [m for m in team.members if m.enabled]
    ids = [m.id for m in active]
    problems = [_twice("team.members", "members", name) for name in _repeated(ids)]
    if not active:
        where, message = "team.members", "no member is enabled"
        return [Problem(path=where, code="no_active_members", message=message)]
    if quorum is not None and quorum > len(active):
        message = f"quorum {quorum} of {len(active)} members cannot be met"
        problems.append(Problem(path="quorum", code="quorum", message=message))
    try:
        check_links(active)
    except ValueError as error:
        problems.append(Problem(path="team.links", code="bad_links", message=str(error)))
    waits = {m.id: m.depends_on for m in active}
    problems += _graph_problems(waits, "team.members", "members", "Members")
    return problems + _subtask_problems(subtasks or [], ids)


def _subtask_problems(subtasks: Sequence[Subtask], members: Sequence[str]) -> list[Problem]:
    problems = [_twice("subtasks", "subtasks", n) for n in _repeated([s.id for s in subtasks])]
    unknown = (
        _unknown(f"subtasks.{part.id}.member", named, members, "Members")
        for part in subtasks
        if (named := part.member or part.id) not in members
    )
    problems += islice(unknown, PROBLEMS_MAX)
    waits = {s.id: s.depends_on for s in subtasks}
    return problems + _graph_problems(waits, "subtasks", "subtasks", "Subtasks")


def _graph_problems(
    waits: Mapping[str, Sequence[str]], where: str, what: str, title: str
) -> list[Problem]:
    """Dependencies on nobody, and cycles with their path."""
    names = list(islice(waits, NAMES_COMPARED_MAX))
    unknown = (
        _unknown(f"{where}.{name}.depends_on", other, names, title).model_copy(
            update={"message": f'"{name}" depends on "{other}", which is not one'}
        )
        for name, needed in waits.items()
        for other in needed
        if other not in waits
    )
    problems = list(islice(unknown, PROBLEMS_MAX))
    graph = {name: [o for o in needed if o in waits] for name, needed in waits.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        path = " → ".join(reversed(error.args[1]))
        message = f"the {what} wait for each other: {path}"
        problems.append(Problem(path=where, code="cycle", message=message))
    return problems


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _twice(where: str, what: str, name: str) -> Problem:
    return Problem(
        path=f"{where}.{name}", code="duplicate_id", message=f"two {what} have the same id"
    )


def _unknown(where: str, name: str, names: Sequence[str], title: str) -> Problem:
    near = get_close_matches(name, names, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else f"{title}: " + ", ".join(names)
    return Problem(path=where, code="unknown_member", message=f'no member "{name}"', hint=hint)

"""Bugs planted one at a time, each of which the simulator must find.

`python -m tests.simulation.planted NAME` imports the machines with the bug in them, runs cases
until one breaks a rule, and tells which. Without a name it lists the bugs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

MACHINES = Path(__file__).resolve().parents[2] / "workflows" / "machines"
RUNS = 5_000


@dataclass(frozen=True, slots=True)
class Bug:
    """One change of one file: `good` is what stands there, `bad` what is planted."""

    name: str
    file: str
    good: str
    bad: str


BUGS = [
    Bug(
        "readers-of-a-dropped-task-are-forgotten",
        "run/frontier.py",
        "            del self.entries[task]\n            self.open -= 1\n",
        "            del self.entries[task]\n            self.open -= 1\n"
        "            self.dependents.pop(task, None)\n",
    ),
    Bug(
        "a-held-task-keeps-its-slot",
        "run/frontier.py",
        '            raise InvalidTransition(task, entry.state, "hold")\n'
        "        self._release(entry)\n",
        '            raise InvalidTransition(task, entry.state, "hold")\n',
    ),
    Bug(
        "a-reservation-stays-after-it-was-settled",
        "shared/budget.py",
        "        held = self.reserved.pop(key)\n        self.held -= held\n        usd",
        "        held = self.reserved.pop(key)\n        usd",
    ),
    Bug(
        "more-is-reserved-than-is-free",
        "shared/budget.py",
        "        granted = want.clipped_to(self.free)\n        if not granted.covers(want if",
        "        granted = want\n        if not granted.covers(want if",
    ),
    Bug(
        "the-key-of-a-side-effect-holds-the-round",
        "run/bodies.py",
        'key=f"{run.identity.run_key}/{act_of(run, unit)}"',
        'key=f"{run.identity.run_key}/{activity_id(run, unit)}"',
    ),
    Bug(
        "a-side-effect-gets-another-round",
        "run/bodies.py",
        "    if any(_acts_once(run, body) for body in tried):\n        return False\n",
        "",
    ),
    Bug(
        "a-branch-with-side-effects-runs-ahead",
        "run/tasks.py",
        "spec is not None and not spec.side_effects and task.fallback_body is None",
        "spec is not None and task.fallback_body is None",
    ),
    Bug(
        "a-rejected-revision-is-run",
        "run/course.py",
        'if verdict is not None and verdict.decision == "rejected":',
        'if verdict is not None and verdict.decision == "rejected" and run.revision == 1:',
    ),
    Bug(
        "an-edit-is-not-asked-for-like-a-replan",
        "run/edits.py",
        "elif needs_approval(run.request.approval.mode, is_first=False, major=major):",
        "elif False:",
    ),
    Bug(
        "a-refused-task-counts-as-written",
        "run/planning.py",
        "        if problems:\n            goal.book.refuse(problems)\n",
        "        if problems:\n            earlier[task.id] = None\n"
        "            goal.book.refuse(problems)\n            continue\n",
    ),
    Bug(
        "what-a-failed-body-used-is-lost-when-its-fallback-runs",
        "run/units.py",
        "    run.records[work.unit.task].usage += failed.usage\n"
        "    account.settle(run.account, key, failed.usage, _counted",
        "    account.settle(run.account, key, failed.usage, _counted",
    ),
    Bug(
        "what-the-joiner-used-belongs-to-nobody",
        "run/planning.py",
        "    run.outside += usage\n",
        '    if not key.startswith("joiner"):\n        run.outside += usage\n',
    ),
    Bug(
        "more-time-ends-a-pause",
        "run/timing.py",
        "run.frontier.is_paused = run.is_paused or run.is_time_up",
        "run.frontier.is_paused = run.is_time_up",
    ),
    Bug(
        "a-refused-edit-is-not-answered",
        "run/edits.py",
        "    step.do(Refuse(edit.token, refusal.message, refusal.type, details))\n",
        "    del details\n",
    ),
    Bug(
        "a-continued-run-has-no-timers",
        "run/machine.py",
        "    for key, (at, summary) in run.timers.items():\n"
        "        step.do(SetTimer(key, at, summary))\n",
        "",
    ),
    Bug(
        "a-run-continues-while-an-edit-is-looked-up",
        "run/machine.py",
        "return not run.edits and all(",
        "return all(key in run.edits or ",
    ),
    Bug(
        "adopted-children-are-not-looked-at",
        "run/machine.py",
        "    if adopted:\n        at = step.now + CHILD_LOOK_SECONDS\n",
        "    if False:\n        at = step.now + CHILD_LOOK_SECONDS\n",
    ),
    Bug(
        "items-of-a-cancelled-map-start-still",
        "run/stopping.py",
        "        run.frontier.abandon_units(task)\n    works = works_of(run, task)\n",
        "        pass\n    works = works_of(run, task)\n",
    ),
    Bug(
        "a-cancelled-condition-goes-on",
        "run/units.py",
        "    elif run.works[key].is_cancelled:\n        end_cancelled(run, step, key)\n"
        "    elif found:\n",
        "    elif found:\n",
    ),
    Bug(
        "a-child-is-not-told-that-it-has-more-time",
        "run/timing.py",
        '        step.do(Tell(id, "deadline_moved", {"at": deadline}))\n',
        "",
    ),
    Bug(
        "a-child-that-has-more-still-wants-it",
        "shared/account.py",
        "        if total is not None:\n            del account.wanting[key]\n",
        "        if total is not None:\n",
    ),
    Bug(
        "an-early-answer-is-not-checked",
        "run/people.py",
        "        problem = schema_problem(run, key, answer)\n        if problem is None:\n",
        "        problem = schema_problem(run, key, answer)\n        if True:\n",
    ),
    Bug(
        "the-next-task-waits-for-the-next-event",
        "run/starting.py",
        "            run.frontier.start(unit)\n            start_unit(run, step, unit, granted,",
        "            run.frontier.start(unit)\n            if len(run.works) > 1:\n"
        "                start_unit(run, step, unit, granted, is_ahead=is_ahead)\n"
        "                return\n            start_unit(run, step, unit, granted,",
    ),
    Bug(
        "a-cancelled-run-does-not-wait-for-its-joiner",
        "run/course.py",
        "run.planning is not None or run.joining is not None:\n        return False\n"
        "    sweep(run, step)\n",
        "run.planning is not None:\n        return False\n    sweep(run, step)\n",
    ),
]


def plant(bug: Bug) -> None:
    """From now on the bug's module is imported with it."""
    path = str(MACHINES / bug.file)
    source = Path(path).read_text(encoding="utf-8")
    assert source.count(bug.good) == 1, f"{bug.name}: {bug.file} has changed"
    planted = source.replace(bug.good, bug.bad)
    get_code: Callable[..., Any] = SourceFileLoader.get_code

    def get_planted(self: SourceFileLoader, name: str) -> Any:
        if Path(self.path).resolve() == Path(path):
            return compile(planted, path, "exec", dont_inherit=True)
        return get_code(self, name)

    SourceFileLoader.get_code = get_planted  # type: ignore[method-assign]


def main() -> int:
    """Exit code 0: the bug was found; 1: it was not."""
    if len(sys.argv) < 2:
        print(*(b.name for b in BUGS), sep="\n")
        return 0
    (bug,) = [b for b in BUGS if b.name == sys.argv[1]]
    plant(bug)
    from tests.simulation.cases import random_case
    from tests.simulation.runner import Found, run_case

    runs = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
    for seed in range(1, runs + 1):
        found = run_case(random_case(seed))
        if isinstance(found, Found):
            print(f"found by seed {seed}: {found.message[:300]}")
            return 0
    print(f"not found in {runs} runs")
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Bugs that are planted one at a time, each of which the simulator must find.

When a machine changes where a bug is planted, give the bug the new text; when what it breaks is
gone, take another bug in its place.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """One change of one file: `good` stands there, `bad` is planted."""

    name: str
    file: str
    good: str
    bad: str


IN_RUNS = [
    Bug(
        "a-first-cap-reaches-no-child",
        "workflows/machines/run/controls.py",
        "        step.do(*account.cap_child(run.account, before, key, id, own_tasks))\n",
        "",
    ),
    Bug(
        "another-round-runs-what-left-the-plan",
        "workflows/machines/run/course.py",
        "    planned = {t.id for t in plan.tasks} if plan is not None else set(run.tasks)\n",
        "    planned = set(run.tasks)\n",
    ),
    Bug(
        "readers-of-a-dropped-task-are-forgotten",
        "planner/walk/frontier.py",
        "            del self.entries[task]\n            self.open -= 1\n",
        "            del self.entries[task]\n            self.open -= 1\n"
        "            self.dependents.pop(task, None)\n",
    ),
    Bug(
        "a-held-task-keeps-its-slot",
        "planner/walk/frontier.py",
        '            raise InvalidTransition(task, entry.state, "hold")\n'
        "        self._release(entry)\n",
        '            raise InvalidTransition(task, entry.state, "hold")\n',
    ),
    Bug(
        "a-reservation-stays-after-it-was-settled",
        "workflows/machines/shared/budget.py",
        "        held = self.reserved.pop(key)\n        self.held -= held\n        usd",
        "        held = self.reserved.pop(key)\n        usd",
    ),
    Bug(
        "more-is-reserved-than-is-free",
        "workflows/machines/shared/budget.py",
        "        granted = want.clipped_to(self.free)\n        if not granted.covers(want if",
        "        granted = want\n        if not granted.covers(want if",
    ),
    Bug(
        "the-key-of-a-side-effect-holds-the-round",
        "workflows/machines/run/bodies.py",
        'key=f"{run.identity.run_key}/{act_of(run, unit)}"',
        'key=f"{run.identity.run_key}/{activity_id(run, unit)}"',
    ),
    Bug(
        "a-side-effect-gets-another-round",
        "workflows/machines/run/bodies.py",
        "    if any(_acts_once(run, b) for b in tried):\n        return False\n",
        "",
    ),
    Bug(
        "a-branch-with-side-effects-runs-ahead",
        "workflows/machines/run/tasks.py",
        "spec is not None and not spec.side_effects and task.fallback_body is None",
        "spec is not None and task.fallback_body is None",
    ),
    Bug(
        "a-rejected-revision-is-run",
        "workflows/machines/run/course.py",
        'if verdict is not None and verdict.decision == "rejected":',
        'if verdict is not None and verdict.decision == "rejected" and run.revision == 1:',
    ),
    Bug(
        "an-edit-is-not-asked-for-like-a-replan",
        "workflows/machines/run/edits.py",
        "elif needs_approval(run.request.approval.mode, is_first=False, major=major):",
        "elif False:",
    ),
    Bug(
        "a-refused-task-counts-as-written",
        "workflows/machines/run/planning.py",
        "        if problems:\n            goal.book.refuse(problems)\n",
        "        if problems:\n            earlier[task.id] = None\n"
        "            goal.book.refuse(problems)\n            continue\n",
    ),
    Bug(
        "what-a-failed-body-used-is-lost-when-its-fallback-runs",
        "workflows/machines/run/units.py",
        "    run.records[work.unit.task].usage += failed.usage\n"
        "    account.settle(run.account, key, failed.usage, _counted",
        "    account.settle(run.account, key, failed.usage, _counted",
    ),
    Bug(
        "what-the-joiner-used-belongs-to-nobody",
        "workflows/machines/run/planning.py",
        "    run.outside += usage\n",
        '    if not key.startswith("joiner"):\n        run.outside += usage\n',
    ),
    Bug(
        "more-time-ends-a-pause",
        "workflows/machines/run/timing.py",
        "run.frontier.is_paused = run.is_paused or run.is_time_up",
        "run.frontier.is_paused = run.is_time_up",
    ),
    Bug(
        "a-refused-edit-is-not-answered",
        "workflows/machines/run/edits.py",
        "    step.do(Refuse(edit.token, refusal.message, refusal.type, details))\n",
        "    del details\n",
    ),
    Bug(
        "a-continued-run-has-no-timers",
        "workflows/machines/run/machine.py",
        "    for key, (at, summary) in run.timers.items():\n"
        "        step.do(SetTimer(key, at, summary))\n",
        "",
    ),
    Bug(
        "a-run-continues-while-an-edit-is-looked-up",
        "workflows/machines/run/machine.py",
        "return not run.edits and all(",
        "return all(key in run.edits or ",
    ),
    Bug(
        "adopted-children-are-not-looked-at",
        "workflows/machines/run/machine.py",
        "    if adopted:\n        at = step.now + CHILD_LOOK_SECONDS\n",
        "    if False:\n        at = step.now + CHILD_LOOK_SECONDS\n",
    ),
    Bug(
        "items-of-a-cancelled-map-start-still",
        "workflows/machines/run/stopping.py",
        "        run.frontier.abandon_units(task)\n    works = works_of(run, task)\n",
        "        pass\n    works = works_of(run, task)\n",
    ),
    Bug(
        "a-cancelled-condition-goes-on",
        "workflows/machines/run/units.py",
        "    elif run.works[key].is_cancelled:\n        end_cancelled(run, step, key)\n"
        "    elif found:\n",
        "    elif found:\n",
    ),
    Bug(
        "a-child-is-not-told-that-it-has-more-time",
        "workflows/machines/run/timing.py",
        '        step.do(Tell(id, "deadline_moved", {"at": deadline}))\n',
        "",
    ),
    Bug(
        "a-child-that-has-more-still-wants-it",
        "workflows/machines/shared/account.py",
        "        if total is not None:\n            del account.wanting[key]\n",
        "        if total is not None:\n",
    ),
    Bug(
        "an-early-answer-is-not-checked",
        "workflows/machines/run/people.py",
        "        problem = schema_problem(run, key, answer)\n        if problem is None:\n",
        "        problem = schema_problem(run, key, answer)\n        if True:\n",
    ),
    Bug(
        "the-next-task-waits-for-the-next-event",
        "workflows/machines/run/starting.py",
        "            run.frontier.start(unit)\n            start_unit(run, step, unit, granted,",
        "            run.frontier.start(unit)\n            if len(run.works) > 1:\n"
        "                start_unit(run, step, unit, granted, is_ahead=is_ahead)\n"
        "                return\n            start_unit(run, step, unit, granted,",
    ),
    Bug(
        "a-cancelled-run-does-not-wait-for-its-joiner",
        "workflows/machines/run/course.py",
        "run.planning is not None or run.joining is not None:\n        return False\n"
        "    sweep(run, step)\n",
        "run.planning is not None:\n        return False\n    sweep(run, step)\n",
    ),
    Bug(
        "a-question-that-cannot-be-made-uses-up-an-attempt",
        "workflows/machines/run/units.py",
        "unit_failed(run, step, key, replace(found, attempts=0))",
        "unit_failed(run, step, key, found)",
    ),
    Bug(
        "a-task-that-cannot-begin-is-counted",
        "workflows/machines/run/units.py",
        "    if not work.has_begun:\n        return 0\n",
        "",
    ),
    Bug(
        "a-lost-speculation-is-no-task",
        "workflows/machines/run/units.py",
        "None, reason=reason, usage=usage, tasks=1)",
        "None, reason=reason, usage=usage, tasks=0)",
    ),
]
IN_AGENTS_AND_TEAMS = [
    Bug(
        "a-paused-agent-calls-on",
        "workflows/machines/agent/state.py",
        "return not (self.is_paused or self.is_long or self.is_cancelled)",
        "return not (self.is_long or self.is_cancelled)",
    ),
    Bug(
        "a-second-question-takes-the-place-of-the-first",
        "workflows/machines/shared/questions.py",
        "    if asker in questions.open:\n        questions.waiting",
        "    if False:\n        questions.waiting",
    ),
    Bug(
        "answers-that-came-early-are-taken-backwards",
        "workflows/machines/shared/questions.py",
        "answer = answers.pop(0)",
        "answer = answers.pop()",
    ),
    Bug(
        "the-key-of-a-tool-call-lacks-its-turn",
        "workflows/machines/agent/calls.py",
        'key=f"{host.identity.run_key}/{talk.name}.{talk.turn}/{what.part}"',
        'key=f"{host.identity.run_key}/{talk.name}/{what.part}"',
    ),
    Bug(
        "calls-have-the-ids-that-the-model-gave-them",
        "workflows/machines/agent/calls.py",
        'found.append(plain if plain not in found else f"{n}-")',
        "found.append(id)",
    ),
    Bug(
        "what-a-failed-turn-used-is-not-its-member-s",
        "workflows/machines/agent/talk.py",
        "    ended.usage += failure.usage\n",
        "",
    ),
    Bug(
        "an-agent-repairs-its-answer-again-and-again",
        "workflows/machines/agent/talk.py",
        "if talk.repairs == REPAIRS_MAX:",
        "if talk.repairs == REPAIRS_MAX + 1:",
    ),
    Bug(
        "the-room-of-an-agent-is-never-given-back",
        "workflows/machines/agent/host.py",
        "        step.do(permit.release(host.permit, host.identity.workflow_id))\n",
        "",
    ),
    Bug(
        "a-continued-agent-does-not-renew-its-permit",
        "workflows/machines/agent/host.py",
        "        timer = permit.renew_at(host.renew_at - permit.TTL_SECONDS / 3)\n"
        "        step.do(timer)\n",
        "        pass\n",
    ),
    Bug(
        "what-came-early-for-the-plan-of-a-team-is-lost",
        "workflows/machines/team/plan.py",
        "        early.append(ControlTaken(kept.name, payload, kept.token))\n",
        "        del payload\n",
    ),
    Bug(
        "the-plan-of-a-team-has-a-ledger-of-its-own",
        "workflows/machines/team/plan.py",
        "    run.account = team.account\n",
        "",
    ),
    Bug(
        "a-cancelled-team-does-not-wait-for-its-calls",
        "workflows/machines/team/machine.py",
        "    if team.pending:\n        return\n    speaking.stop_speaking",
        "    speaking.stop_speaking",
    ),
    Bug(
        "a-member-that-was-refused-for-good-is-asked-again",
        "workflows/machines/shared/member_retry.py",
        "if error_class in NOT_RETRIED or (",
        "if error_class in NOT_RETRIED[:1] or (",
    ),
]
BUGS = [*IN_RUNS, *IN_AGENTS_AND_TEAMS]

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
    Bug(
        "a-pause-reaches-no-child",
        "workflows/machines/run/controls.py",
        '        step.do(Tell(id, "pause" if on else "resume"))\n',
        "        pass\n",
    ),
    Bug(
        "a-child-that-begins-in-a-pause-is-not-paused",
        "workflows/machines/run/units.py",
        "    if run.is_paused:\n        step.do(Tell(",
        "    if False:\n        step.do(Tell(",
    ),
    Bug(
        "more-time-leaves-the-timer-where-it-was",
        "workflows/machines/shared/account.py",
        "    if wanted == account.timer_at:\n",
        "    if account.timer_at is not None:\n",
    ),
    Bug(
        "tasks-start-although-the-time-is-over",
        "workflows/machines/run/starting.py",
        "    if account.time_lack(run.account, step.now) is not None:\n",
        "    if False:\n",
    ),
    Bug(
        "a-child-with-a-time-limit-has-no-timer",
        "workflows/machines/run/units.py",
        "    if command.timeout is not None:\n",
        "    if False:\n",
    ),
    Bug(
        "a-question-may-stay-open-for-ever",
        "workflows/machines/run/people.py",
        '    if timeout is not None:\n        set_timer(run, step, f"answer:',
        '    if False:\n        set_timer(run, step, f"answer:',
    ),
    Bug(
        "the-timer-of-a-question-outlives-it",
        "workflows/machines/run/people.py",
        '    drop_timer(run, step, f"answer:{key}")\n',
        "",
    ),
    Bug(
        "the-timer-of-a-child-outlives-it",
        "workflows/machines/run/units.py",
        '    drop_timer(run, step, f"child:{key}")\n',
        "",
    ),
    Bug(
        "a-task-that-needs-a-yes-waits-for-ever",
        "workflows/machines/run/people.py",
        '    if policy.timeout is not None and policy.on_timeout != "park":\n        at =',
        "    if False:\n        at =",
    ),
    Bug(
        "an-approval-has-no-time-limit",
        "workflows/machines/run/approving.py",
        "    elif (timeout := run.request.approval.timeout) is not None:\n",
        "    elif (timeout := None) is not None:\n",
    ),
    Bug(
        "an-edited-plan-has-only-the-time-that-is-left-of-the-one-before",
        "workflows/machines/run/edits.py",
        "        approving.open_approval(run, step, major)\n",
        "        run.approval.open(run.revision, major)\n        run.approval_since = step.now\n",
    ),
    Bug(
        "adopted-children-are-looked-at-once",
        "workflows/machines/run/machine.py",
        '        timers.set_timer(run, step, "children", at, "look at adopted children")\n',
        "        pass\n",
    ),
    Bug(
        "a-question-to-a-model-has-no-time-limit",
        "workflows/machines/run/bodies.py",
        "        timeout=task.timeout,\n    )\n",
        "    )\n",
    ),
    Bug(
        "a-tool-keeps-to-its-own-time-limit-and-not-to-the-task-s",
        "workflows/machines/run/bodies.py",
        "timeout=task.timeout or (spec.timeout_seconds if spec else None)",
        "timeout=spec.timeout_seconds if spec else None",
    ),
    Bug(
        "a-child-run-has-no-time-limit",
        "workflows/machines/run/children.py",
        "        timeout=task.timeout,\n",
        "",
    ),
]
IN_AGENTS_AND_TEAMS = [
    Bug(
        "a-paused-child-asks-for-more-and-more",
        "workflows/machines/agent/host.py",
        "    if host.may_call:  # what",
        "    if True:  # what",
    ),
    Bug(
        "a-team-drops-the-timer-of-its-plan",
        "workflows/machines/team/machine.py",
        "if ended(team) is None and not plan.is_running(team):",
        "if ended(team) is None:",
    ),
    Bug(
        "a-time-out-is-tried-in-every-round",
        "workflows/machines/shared/member_retry.py",
        "return round_number == 1 if is_late else True",
        "return True",
    ),
    Bug(
        "a-paused-team-begins-its-plan-unpaused",
        "workflows/machines/team/plan.py",
        "    if team.is_paused:\n        forward(",
        "    if False:\n        forward(",
    ),
    Bug(
        "an-agent-does-not-hear-that-its-time-has-moved",
        "workflows/machines/agent/machine.py",
        "            state.account.deadline = deadline\n",
        "            del deadline\n",
    ),
    Bug(
        "a-team-does-not-hear-that-its-time-has-moved",
        "workflows/machines/team/machine.py",
        "            team.account.deadline = event.deadline\n            _forward",
        "            _forward",
    ),
    Bug(
        "the-plan-of-a-team-does-not-hear-that-its-time-has-moved",
        "workflows/machines/team/machine.py",
        "team.account.deadline = event.deadline\n            _forward(team, event, step)\n",
        "team.account.deadline = event.deadline\n",
    ),
    Bug(
        "a-turn-has-no-time-limit",
        "workflows/machines/agent/talk.py",
        "host.urgency, pools, persona.timeout)\n",
        "host.urgency, pools)\n",
    ),
    Bug(
        "a-member-keeps-no-time-limit",
        "workflows/machines/team/members.py",
        "        timeout=request.timeout,\n",
        "",
    ),
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

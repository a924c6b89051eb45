"""Members of groups that leave them: cancelled, dropped from the plan, or settled by their inputs.

The activity of the group does not hear of it. So its ends of them, and of all that it ran after
them, are not looked at: they would rest on something that the run knows otherwise.
"""

from __future__ import annotations

from planloom.planner.language.values import TaskId
from planloom.planner.walk.frontier import Unit
from planloom.workflows.machines.run.bodies import key_of
from planloom.workflows.machines.run.state import RunState
from planloom.workflows.machines.shared import account
from planloom.workflows.machines.shared.commands import Cancel
from planloom.workflows.machines.shared.machine import Step


def group_of(run: RunState, unit: Unit) -> str:
    """The key of the group that a unit runs in or follows; empty when there is none."""
    work = run.works.get(key_of(unit))
    if work is not None:
        return work.group
    entry = run.frontier.entries.get(unit.task)
    return entry.group if entry is not None and unit.index is None else ""


def forget_member(run: RunState, key: str, group: str) -> None:
    """A member has ended, or ends otherwise than in its group."""
    found = run.groups.get(group)
    if found is not None:
        found.members.pop(key, None)


def leave_group(run: RunState, step: Step, unit: Unit) -> None:
    """A member ends otherwise than in its group: those behind it leave the group too."""
    group = group_of(run, unit)
    if not group:
        return
    for follower in _behind(run, unit.task, group):
        release_follower(run, follower, group)
        run.frontier.give_back(Unit(follower))
    key = key_of(unit)
    if key not in run.works:
        account.refund(run.account, key)
    forget_member(run, key, group)
    found = run.groups.get(group)
    if found is not None and not found.members and group in run.pending:
        step.do(Cancel(group))


def settled_follower(run: RunState, task: TaskId) -> None:
    """The inputs of a task have decided how it ends; it may have been in a group."""
    if task in run.account.ledger.reserved:
        account.refund(run.account, task)
        for group in run.groups:
            forget_member(run, task, group)


def release_follower(run: RunState, task: TaskId, group: str) -> None:
    """A task that has not started leaves its group: what was set aside for it is given back."""
    forget_member(run, task, group)
    account.refund(run.account, task)


def _behind(run: RunState, task: TaskId, group: str) -> list[TaskId]:
    """Followers of a group that stand behind one of its members, however far."""
    found: dict[TaskId, None] = {}
    queue = [task]
    for one in queue:  # grows while it is walked
        for dependent in run.frontier.dependents.get(one, ()):
            entry = run.frontier.entries.get(dependent)
            is_its = entry is not None and entry.group == group and dependent not in run.works
            if is_its and dependent not in found:
                found[dependent] = None
                queue.append(dependent)
    return list(found)

"""The activity `run_group`: cheap tasks and items of maps, walked in their own order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from temporalio import activity

from planloom.activities.models.heartbeats import Heartbeat, before_timeout
from planloom.activities.storage.blobs import BlobError
from planloom.activities.storage.threads import in_computing_thread
from planloom.activities.tools.call import ToolCallError
from planloom.activities.tools.runner import ToolRunner
from planloom.planner.contract.groups import GroupJob, GroupReply, UnitEnd, UnitFailed
from planloom.planner.contract.jobs import ResolveJob, TaskOutput, ToolJob
from planloom.planner.language.conditions import evaluate, roots_of_condition
from planloom.planner.language.expressions import IN_ACTIVITY, Meter
from planloom.planner.language.values import TaskId
from planloom.planner.walk.group import GroupWalk, begin_walk

STARTING_SECONDS = 1.0
"""After that nothing more is started: the tasks are not as quick as they were said to be, and what
has ended is waited for."""
PATIENCE_SECONDS = 3.0
"""After that what still runs is called off here, and continues in separate activities."""
REPLY_MAX_BYTES = 512_000
"""Outputs of one group, all together; what is left goes into the next."""
END_BYTES = 200
"""What an end takes beside its output."""

ToolObserver = Callable[[ToolJob], AbstractContextManager[None]]


def unobserved(_: ToolJob) -> AbstractContextManager[None]:
    """Watch nothing."""
    return nullcontext()


class GroupActivities:
    """What a worker registers for groups. `observe` is entered around each tool call; the task of
    the job that it is given is named as an activity would be, `rows[3]` for an item."""

    def __init__(self, runner: ToolRunner, observe: ToolObserver = unobserved) -> None:
        self._runner = runner
        self._observe = observe

    @activity.defn(name="run_group")
    async def run_group(self, job: GroupJob) -> GroupReply:
        """Run all tasks that can be run here; never fails for what one of them does."""
        info = activity.info()
        walk = begin_walk(job, reply_before(info.heartbeat_details))
        group = _Group(walk, self._runner, self._observe, info.workflow_id or "")
        async with Heartbeat(latest=lambda: group.reply().model_dump(exclude_unset=True)):
            await group.run()
        return group.reply()


def reply_before(details: Sequence[Any]) -> GroupReply | None:
    """What an earlier attempt saw end, from its last heartbeat. Its clock was another."""
    try:
        found = GroupReply.model_validate(details[0]) if details else None
    except ValidationError:  # written by another version of this code
        return None
    if found is None:
        return None
    ends = [e.model_copy(update={"began": 0.0, "ended": 0.0}) for e in found.ends]
    return GroupReply(ends=ends)


@dataclass(slots=True)
class _Group:
    walk: GroupWalk
    runner: ToolRunner
    observe: ToolObserver
    run_id: str
    began: float = field(default_factory=time.monotonic)
    running: dict[asyncio.Task[UnitEnd], tuple[TaskId, float]] = field(default_factory=dict)
    size: int = 0

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.began, 6)

    def reply(self) -> GroupReply:
        return GroupReply(ends=list(self.walk.ends), seconds=self.seconds)

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            for task in self.running:
                task.cancel()

    async def _run(self) -> None:
        while True:
            self._start()
            if not self.running:
                return
            left = PATIENCE_SECONDS - self.seconds
            done, _ = await asyncio.wait(
                self.running, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                del self.running[task]
                self._end(task.result())
            if not done and left <= 0:
                self._call_off()

    def _start(self) -> None:
        if self.seconds > STARTING_SECONDS or self.size > REPLY_MAX_BYTES:
            self.walk.is_stopped = True
        while (name := self.walk.next_start()) is not None:
            began = self.seconds
            task = asyncio.create_task(self._unit(name, began))
            self.running[task] = (name, began)

    def _end(self, end: UnitEnd) -> None:
        self.walk.end(end)
        output = end.output.output if end.output is not None else None
        self.size += END_BYTES + (output.size_bytes if output and output.is_inline else 0)

    def _call_off(self) -> None:
        """What takes so long is no work for a group."""
        self.walk.is_stopped = True
        for task, (name, began) in self.running.items():
            task.cancel()
            member = self.walk.members[name]
            times = {"began": began, "ended": self.seconds}
            self._end(UnitEnd(task=member.task.id, index=member.index, alone_in=0.0, **times))
        self.running.clear()

    async def _unit(self, name: TaskId, began: float) -> UnitEnd:
        member = self.walk.members[name]
        found = await self._outcome_of(name)
        return UnitEnd(
            task=member.task.id,
            **({} if member.index is None else {"index": member.index}),
            **found,
            began=began,
            ended=self.seconds,
        )

    async def _outcome_of(self, name: TaskId) -> dict[str, Any]:
        """The fields of the end of a task or item."""
        task = self.walk.members[name].task
        condition = self.walk.condition_of(name)
        if condition is not None:
            try:
                if not await self._holds(condition):
                    return {}
            except ValueError as error:
                return {"failed": _unreadable(error)}
            except BlobError:
                return {"alone_in": 0.0}  # it is tried again there
        job = self.walk.job_of(name)
        deadline = None if task.timeout is None else before_timeout(task.timeout)
        try:
            with self.observe(job.model_copy(update={"task": name})):
                return {"output": await self._call(job, deadline)}
        except ToolCallError as failure:
            return self._failed(name, failure)

    async def _call(self, job: ToolJob, deadline: float | None) -> TaskOutput:
        return await self.runner.call(job, run_id=self.run_id, deadline_seconds=deadline)

    def _failed(self, name: TaskId, failure: ToolCallError) -> dict[str, Any]:
        failed = UnitFailed(
            message=failure.message, error_class=failure.error_class, usage=failure.usage
        )
        if not failure.retry or not self.walk.may_retry(name):
            return {"failed": failed}
        wait = failure.retry_after
        pause = self.walk.pause_of(name) if wait is None else max(wait, 0.0)
        return {"failed": failed, "alone_in": pause}

    async def _holds(self, job: ResolveJob) -> bool:
        names = roots_of_condition(str(job.value))
        outputs = dict(await self.runner.blobs.scope(job.bindings, names))
        meter = Meter(IN_ACTIVITY)
        # In a thread: bounded, but up to seconds, and the others go on meanwhile.
        return await in_computing_thread(
            evaluate, str(job.value), job.outcomes, outputs, None, meter
        )


def _unreadable(error: ValueError) -> UnitFailed:
    return UnitFailed(message=f"when: {error}", error_class="tool", has_begun=False)

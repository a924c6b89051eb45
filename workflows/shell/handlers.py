"""Signals and updates of one name, from one table: a decorator that adds them to a workflow class.

Every handler takes any payloads: what is surplus, missing or cannot be decoded is refused with a
reason (update) or recorded (signal), and never fails the workflow task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from planloom.planner.contract.names import INVALID_REQUEST
from planloom.planner.language.values import Problem
from planloom.workflows.machines.shared.events import ControlTaken, SignalIgnored
from planloom.workflows.machines.shared.messages import (
    Control,
    Notice,
    Question,
    read_payload,
)
from planloom.workflows.shell.children import REPORT, ChildEnded
from planloom.workflows.shell.family import ENDED, as_said, opened
from planloom.workflows.shell.shell import Shell, live_state

W = TypeVar("W", bound="type[HasShell]")


class HasShell(Protocol):
    """A workflow class that is driven by a shell; None when its request was refused."""

    shell: Shell[Any] | None


def _lines(name: str, problems: Sequence[Problem]) -> str:
    return f"{name}: " + "; ".join(p.line() for p in problems)


def with_controls(
    controls: Sequence[Control],
    notices: Sequence[Notice] = (),
    questions: Sequence[Question] = (),
) -> Callable[[W], W]:
    """Add a signal, an update and its validator for each control; a signal for each notice, an
    update for each question; and what every workflow takes: reports of children, unknown signals.

    It stands below `@workflow.defn`, which collects what is added here.
    """

    def add(cls: W) -> W:
        for control in controls:
            setattr(cls, f"{control.name}_signal", _signal(control))
            update = _update(control)
            setattr(cls, control.name, update)
        for notice in notices:
            setattr(cls, notice.name, _notice(notice))
        for question in questions:
            setattr(cls, question.name, _question(question))
        cls.child_ended = _child_ended()  # type: ignore[attr-defined]
        cls.report_to_parent = _report()  # type: ignore[attr-defined]
        cls.unknown_signal = _unknown()  # type: ignore[attr-defined]
        return cls

    return add


def _signal(control: Control) -> Any:
    async def handle(self: HasShell, *payloads: Any) -> None:
        if self.shell is None:
            return
        sent, secret = opened(payloads)
        found = read_payload(control.model, sent)
        if isinstance(found, list):
            self.shell.apply(SignalIgnored(_lines(control.name, found)))
        else:
            self.shell.apply(ControlTaken(control.name, found), secret)

    _name(handle, f"{control.name}_signal")
    return workflow.signal(name=control.name, description=control.description)(handle)


def _update(control: Control) -> Any:
    async def handle(self: HasShell, *payloads: Any) -> Any:
        shell = _live(self)
        found = read_payload(control.model, payloads)
        if isinstance(found, list):  # the validator has refused it already
            raise _invalid(control.name, found)
        token = shell.next_token()
        shell.apply(ControlTaken(control.name, found, token))
        return await shell.answer(token)

    def validate(self: HasShell, *payloads: Any) -> None:
        shell = _live(self)
        found = read_payload(control.model, payloads)
        if isinstance(found, list):
            raise _invalid(control.name, found)
        said = as_said(found)
        refusal = shell.machine.check(shell.state, control.name, said, workflow.time())
        if refusal is not None:
            raise ApplicationError(refusal.message, type=refusal.type, non_retryable=True)

    _name(handle, control.name)
    _name(validate, f"check_{control.name}")
    update = workflow.update(name=control.name, description=control.description)(handle)
    update.validator(validate)
    return update


def _notice(notice: Notice) -> Any:
    async def handle(self: HasShell, *payloads: Any) -> None:
        if self.shell is None:
            return
        sent, secret = opened(payloads)
        found = read_payload(notice.model, sent)
        if isinstance(found, list):
            self.shell.apply(SignalIgnored(_lines(notice.name, found)))
        else:
            self.shell.apply(notice.event(found), secret)

    _name(handle, notice.name)
    return workflow.signal(name=notice.name, description=notice.description)(handle)


def _question(question: Question) -> Any:
    async def handle(self: HasShell, *payloads: Any) -> Any:
        shell = _live(self)
        found = read_payload(question.model, payloads)
        if isinstance(found, list):
            raise _invalid(question.name, found)
        token = shell.next_token()
        shell.apply(question.event(found, token))
        return await shell.answer(token)

    _name(handle, question.name)
    return workflow.update(name=question.name, description=question.description)(handle)


def _child_ended() -> Any:
    async def child_ended(self: HasShell, *payloads: Any) -> None:
        if self.shell is None:
            return
        sent, secret = opened(payloads)
        found = read_payload(ChildEnded, sent)
        if isinstance(found, ChildEnded):
            self.shell.child_ended(found, secret)
        elif isinstance(found, list):
            self.shell.apply(SignalIgnored(_lines(ENDED, found)))

    _name(child_ended, ENDED)
    words = "A child that was asked to report has ended"
    return workflow.signal(name=ENDED, description=words)(child_ended)


def _report() -> Any:
    async def report_to_parent(self: HasShell, *_: Any) -> None:
        if self.shell is not None:
            self.shell.reports = True

    _name(report_to_parent, REPORT)
    words = "The parent has continued as new: tell it the result by signal"
    return workflow.signal(name=REPORT, description=words)(report_to_parent)


def _unknown() -> Any:
    async def unknown_signal(self: HasShell, name: str, _: Sequence[RawValue]) -> None:
        if self.shell is not None:
            self.shell.apply(SignalIgnored(f"there is no signal {name[:100]}"))

    _name(unknown_signal, "unknown_signal")
    return workflow.signal(dynamic=True)(unknown_signal)


def _name(handler: Callable[..., Any], name: str) -> None:
    handler.__name__ = name
    handler.__qualname__ = name
    # The SDK takes a first parameter for `self` only where it has no annotation.
    handler.__annotations__.pop("self", None)


def _live(self: HasShell) -> Shell[Any]:
    live_state(self.shell)
    assert self.shell is not None
    return self.shell


def _invalid(name: str, problems: Sequence[Problem]) -> ApplicationError:
    return ApplicationError(
        _lines(name, problems),
        [p.model_dump() for p in problems],
        type=INVALID_REQUEST,
        non_retryable=True,
    )


__all__ = ["HasShell", "with_controls"]

"""Tasks that are read but not given out yet, because it is not clear that they belong to the plan.

A call without a name may be an example, a call with side effects may be one that the model decides
against. Both wait until the plan ends without prose behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.syntax.calls.reading import Reading
from planloom.planner.syntax.calls.scan import CallText, Form
from planloom.planner.syntax.calls.text import ID_OPTION
from planloom.planner.syntax.parsed_plan import has_side_effects, read_places


@dataclass(frozen=True, slots=True)
class Held:
    """One waiting task, with the call that it was read from."""

    planned: PlannedTask
    call: CallText
    has_side_effects: bool

    @property
    def name(self) -> str:
        return str(self.planned.task.id)

    @property
    def form(self) -> Form:
        """A call that names itself with `_id` is as good as one with a name before it."""
        return "named" if ID_OPTION in self.call.arguments else self.call.form

    @property
    def reads(self) -> set[str]:
        document = self.planned.task.model_dump(mode="json", exclude_unset=True)
        return {root for _, root in read_places(document)}


class HeldTasks:
    """The waiting tasks in the order of their lines. `holds_all`: no task is given out."""

    def __init__(self, tools: Mapping[str, ToolSpec]) -> None:
        self._tools = tools
        self._held: list[Held] = []
        self.holds_all = False
        self.forms: set[Form] = set()
        """How the tasks are written that belong to the plan."""

    @property
    def names(self) -> set[str]:
        return {held.name for held in self._held}

    def take(self, planned: PlannedTask, call: CallText) -> bool:
        """Whether the task has to wait, as does one that reads a waiting task; it is kept then."""
        held = Held(planned, call, has_side_effects(planned.task, self._tools))
        if held.form != "bare" and not held.has_side_effects:
            self.forms.add(held.form)
        is_unsure = self.holds_all or held.has_side_effects or held.form == "bare"
        waits = is_unsure or bool(self._held and held.reads & self.names)
        if waits:
            self._held.append(held)
        return waits

    def prose_follows(self, reading: Reading) -> list[CallText]:
        """Words came behind the waiting calls. Returned are those without a name: examples.

        Of a named call with side effects nobody can tell: it is a problem. The rest go on waiting.
        """
        examples = [held for held in self._held if held.form == "bare"]
        unsure = [h for h in self._held if h.has_side_effects and h.form != "bare"]
        reading.without(held.name for held in examples)
        for held in unsure:
            _report_unsure(held, "other text follows it", reading)
        reading.end.tasks -= len(unsure)
        self._drop([*examples, *unsure])
        return [held.call for held in examples]

    def refuse(self, planned: PlannedTask, call: CallText, why: str, reading: Reading) -> bool:
        """Whether a task acts on the world, of which something says that it is not to be run."""
        held = Held(planned, call, has_side_effects(planned.task, self._tools))
        if held.has_side_effects:
            _report_unsure(held, why, reading)
            reading.end.tasks -= 1
        return held.has_side_effects

    def comment_follows(self, line: int, why: str, reading: Reading) -> None:
        """A comment that speaks against the call that ends on this line."""
        for held in self._held[-1:]:
            ends = held.call.line + held.call.text.count("\n")
            if ends == line and held.has_side_effects:
                _report_unsure(held, why, reading)
                reading.end.tasks -= 1
                self._drop([held])

    def release(self, reading: Reading) -> list[PlannedTask]:
        """The plan has ended: the tasks that belong to it, each behind what it reads."""
        released: list[PlannedTask] = []
        for held in self._held:
            failed = sorted(held.reads & reading.failed)
            if held.has_side_effects and held.form == "bare":
                _report_unsure(held, "it has no name", reading)
            elif held.has_side_effects and held.form == "numbered" and "named" in self.forms:
                _report_unsure(held, "the other tasks have names, and it has a number", reading)
            elif failed:
                message = f'line {held.call.line}: it reads "{failed[0]}", which was not accepted'
                where, hint = f"tasks.{held.name}", f"Fix {failed[0]} first."
                reading.report(held.call.line, where, "input_not_accepted", message, hint)
                reading.failed.add(held.name)
            else:
                if held.form == "bare":
                    named = f"a call without a name; it is called {held.name}"
                    reading.warn(f"line {held.call.line}: {named}")
                self.forms.add(held.form)
                released.append(held.planned)
        reading.end.tasks -= len(self._held) - len(released)
        self._held.clear()
        return released

    def drop_all(self, reading: Reading) -> None:
        """The text broke off: what waited was not given out, and is written again."""
        reading.end.tasks -= len(self._held)
        reading.failed |= self.names
        self._held.clear()

    def _drop(self, dropped: Iterable[Held]) -> None:
        names = {held.name for held in dropped}
        self._held = [held for held in self._held if held.name not in names]


def _report_unsure(held: Held, why: str, reading: Reading) -> None:
    line, name = held.call.line, held.name
    tool = held.planned.task.tool or held.call.tool
    message = f"line {line}: {tool} acts on the world, and {why}: is it part of the plan?"
    hint = f"If it is, write name = {tool}(…). Write plan lines only, without prose around them."
    reading.report(line, f"tasks.{name}", "unsure", message, hint)
    reading.failed.add(name)

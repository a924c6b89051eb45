"""The planner's syntax `calls`: a streamed text becomes tasks, one at a time.

`a = search(query="…")` lines, ended by `join(…)`; LLMCompiler's own text (`1. search("…")`, `$1`)
is read by the same parser. Nothing is evaluated: Python's grammar gives literals and names.

What the model only talks about is not a task: thoughts, calls inside sentences, calls without a
name among prose. A line that is written like a task and cannot be read is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from planloom.planner.contract.jobs import PlannedTask
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.clean_text import TextCleaner
from planloom.planner.language.plan import PLANNED_TASKS_MAX
from planloom.planner.syntax.calls.blocks import (
    BLOCK_HINT,
    Surroundings,
    assigns_behind_label,
    speaks_against,
)
from planloom.planner.syntax.calls.body import POSITIONAL, BodyReader
from planloom.planner.syntax.calls.ending import read_join, read_stop
from planloom.planner.syntax.calls.held import HeldTasks
from planloom.planner.syntax.calls.loose import is_sentence, loose_calls, tool_mention
from planloom.planner.syntax.calls.numbered import JOINS
from planloom.planner.syntax.calls.reading import LAST_LINE, Reading
from planloom.planner.syntax.calls.scan import CallScanner, CallText, Prose, ScannedText
from planloom.planner.syntax.calls.tasks import TaskReader
from planloom.planner.syntax.calls.text import OPTIONS, call_text
from planloom.planner.syntax.parsed_plan import (
    PLAN_TEXT_MAX_CHARS,
    Meant,
    ParsedEnd,
    as_written,
    is_preface,
    read_places,
    too_long,
)

_LABEL = re.compile(r"(?:[-*•][ \t]+)?(?:(\d+)[.):]|\$?(\w+)[ \t]*=)")
_NOISE = re.compile(r"[\s`.,;:*)\]}]*\Z")
_SUFFIX_WORD = re.compile(r"[\w.\[\]'\"]+")
_SHOWN_MAX_CHARS = 80
_KEYWORDS = ("if", "elif", "while", "for", "with", "switch", "match", "except", "catch", "function")
_HINT = "Write name = tool(param=value), one call a line, with literals and names of earlier tasks."


class CallsParser:
    """Text in, tasks out, as they complete; `close` tells the rest.

    `earlier` are ids that may be referred to beside this text's own: finished tasks of an earlier
    revision, or those accepted from an earlier attempt. As a mapping it gives their calls too (by
    `call_text`, perhaps cut short): then a line that uses such an id for another call is a problem,
    while the same line again, as after a cut, is left out.
    `agents`, `teams` and `template_names` are the names that those bodies may use; None: any.
    `kept` are tasks of the plan before that have not ended: they may be read, or written again.
    `meant` reads a tool's arguments by its parameters.
    """

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        earlier: Sequence[str] | Mapping[str, str] = (),
        first_line: int = 1,
        *,
        agents: Collection[str] | None = None,
        teams: Collection[str] | None = None,
        template_names: Collection[str] | None = None,
        kept: Collection[str] = (),
        meant: Meant = as_written,
    ) -> None:
        self._tools = {t.name: t for t in tools}
        bodies = BodyReader(self._tools, agents, teams, template_names, meant)
        self._tasks = TaskReader(bodies)
        self._mention = tool_mention([*self._tools, *POSITIONAL, "join"])
        self._scanner = CallScanner(first_line)
        self._cleaner = TextCleaner()
        self._reading = Reading.of(earlier, kept)
        self._started: dict[str, str] = {}
        """Tasks that were given out, with their calls: they stay, whatever follows."""
        self._chars = 0
        self._begin_plan()

    def _begin_plan(self) -> None:
        """The text begins here, or again behind a thought."""
        self._held = HeldTasks(self._tools)
        self._thought = ""
        self._prose: list[Prose] = []
        self._examples: list[CallText] = []
        """Calls inside sentences, and calls without a name among prose."""
        self._join_in_sentence: CallText | None = None
        self._around = Surroundings()
        self._second_join: CallText | None = None
        self._has_tasks = False
        self._has_join = False
        self._ignored = 0

    # -- text in ----------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the plan has ended, and what may still come cannot change it.

        After a text that began with prose a thought's end may still follow.
        """
        return (self._has_join and not self._held.holds_all) or self._is_full

    @property
    def _is_full(self) -> bool:
        return self._chars > PLAN_TEXT_MAX_CHARS

    def feed(self, text: str) -> list[PlannedTask]:
        """The tasks that this part of text completes."""
        if self._is_full:
            return []
        before, self._chars = self._chars, self._chars + len(text)
        text = self._cleaner.feed(text[: PLAN_TEXT_MAX_CHARS - before])
        return self._take(self._scanner.feed(text))

    def close(self, is_cut_off: bool = False) -> ParsedEnd:
        """No more text comes; `is_cut_off`: the model hit its length limit."""
        last = self._scanner.feed(self._cleaner.close())
        last += self._scanner.close()
        late = self._take(last)
        reading, end = self._reading, self._reading.end
        if not self._has_join and self._join_in_sentence is not None and not is_cut_off:
            self._end_plan(replace(self._join_in_sentence, tail=""))
        is_broken = is_cut_off or self._is_full
        self._report_open(last, is_cut_off)
        if self._is_full and not self._has_join:
            reading.problems.append((LAST_LINE, too_long()))
        if is_broken and not self._has_join:
            self._held.drop_all(reading)
        elif self._second_join is not None:
            line = self._second_join.line
            message = f"line {line}: a second plan ends here: which of them is to run?"
            reading.report(
                line, "plan", "two_plans", message, "Write only the plan that is to run."
            )
            self._held.drop_all(reading)
        else:
            late += self._release()
        end.late = late
        self._report_examples()
        reading.settle_references()
        end.problems = [p for _, p in sorted(reading.problems, key=lambda entry: entry[0])]
        self._report_prose()
        if reading.warnings_left_out:
            end.warnings.append(f"{reading.warnings_left_out} more warnings")
        return end

    def _take(self, scanned: list[ScannedText]) -> list[PlannedTask]:
        tasks: list[PlannedTask] = []
        for part in scanned:
            if isinstance(part, Prose):
                tasks += self._read_prose(part)
            elif self._has_join:
                self._ignore(part)
            elif (header := _as_header(part)) is not None:
                tasks += self._read_prose(header)
            elif (block := self._around.block_over(part)) is not None:
                self._report_in_block(part, block)
            else:
                tasks += self._read_call(part)
        return tasks

    def _ignore(self, call: CallText) -> None:
        """A call behind the plan's end; a whole plan there makes it unclear which one is meant."""
        self._ignored += 1
        if self._is_join(call) and call.is_closed and not call.tail and self._held.holds_all:
            self._second_join = self._second_join or call

    # -- prose ------------------------------------------------------------------------------

    def _read_prose(self, prose: Prose) -> list[PlannedTask]:
        match prose.kind:
            case "thought":
                self._thought = prose.text
            case "comment":
                self._reading.warn(f"line {prose.line}: comment dropped")
                self._read_comment(prose)
            case "thought_end" if not self.is_over:
                self._reading = self._reading.after_thought(self._started)
                self._begin_plan()
            case "text" if not self._has_join and not _NOISE.match(prose.text):
                self._around.read(prose)
                return self._read_line(prose)
            case _:
                pass
        return []

    def _read_line(self, prose: Prose) -> list[PlannedTask]:
        """A line that the scanner found no call in: perhaps one in another form."""
        calls = loose_calls(prose.text, self._mention)
        if assigns_behind_label(prose.text) and self._mention.search(prose.text):
            calls = "unreadable"
        if calls == "prose":
            self._pass_prose(prose)
            return []
        if calls == "unreadable":
            shown = prose.text[:_SHOWN_MAX_CHARS]
            message = f'line {prose.line}: "{shown}" is written like a task and cannot be read'
            self._reading.report(prose.line, "plan", "unreadable_line", message, _HINT)
            return []
        tasks: list[PlannedTask] = []
        for call in calls:
            label = f"{call.label}. " if call.is_numbered else ""
            scanner = CallScanner(prose.line)
            for part in [*scanner.feed(label + call.text), *scanner.close()]:
                if isinstance(part, CallText):
                    tasks += self._read_call(replace(part, label=call.label))
        return tasks

    def _read_comment(self, comment: Prose) -> None:
        """A comment behind a call speaks of that call, one alone on its line of what follows."""
        if comment.is_mid_line:
            if speaks_against(comment.text):
                why = "its comment speaks against it"
                self._held.comment_follows(comment.line, why, self._reading)
        else:
            self._around.read(comment)

    def _pass_prose(self, prose: Prose) -> None:
        if not self._has_tasks and not self._held.holds_all:
            self._held.holds_all = not is_preface([p.text for p in (*self._prose, prose)])
        self._prose.append(prose)
        self._examples += self._held.prose_follows(self._reading)

    # -- calls ------------------------------------------------------------------------------

    def _read_call(self, call: CallText) -> list[PlannedTask]:
        is_join = self._is_join(call)
        is_stop = call.tool == "stop_when" and call.tool not in self._tools
        is_callable = call.tool in self._tools or call.tool in POSITIONAL
        is_known = is_join or is_stop or is_callable
        if not is_known and (call.label is None or (call.tail and call.is_numbered)):
            self._read_unknown(call)
            return []
        if call.shares_line:
            self._reading.warn(f"line {call.line}: two calls on one line")
        if not call.is_closed:
            self._report_unclosed(call)
        elif call.tail:
            self._read_tail(call, is_join=is_join)
        elif is_join:
            return self._end_plan(call)
        elif is_stop:
            read_stop(call, self._tasks, self._reading)
        else:
            return self._read_task(call)
        return []

    def _is_join(self, call: CallText) -> bool:
        named = call.tool.lower() in JOINS and call.tool not in self._tools
        return named or call.tool == "join"

    def _read_task(self, call: CallText) -> list[PlannedTask]:
        reading = self._reading
        if reading.end.tasks >= PLANNED_TASKS_MAX:
            if not any(p.code == "too_many" for _, p in reading.problems):
                message = f"more than {PLANNED_TASKS_MAX:,} tasks: the rest is left out"
                reading.report(call.line, "plan", "too_many", message)
            return []
        planned = self._tasks.read(call, self._thought, reading)
        self._thought = ""
        if planned is None:
            return []
        reading.accept(planned)
        doubt = None if call.form == "bare" else self._around.doubt_about(call)
        if doubt is not None and self._held.refuse(planned, call, doubt, reading):
            return []
        self._has_tasks = True
        return [] if self._held.take(planned, call) else self._give([planned])

    def _read_unknown(self, call: CallText) -> None:
        """Words with a bracket behind them, or a function around a tool: `print(look("x"))`."""
        is_function = call.is_closed and call.text.startswith(f"{call.tool}(") and not call.tail
        if is_function and self._mention.search(call.arguments):
            self._report_not_read(call)
        else:
            self._pass_prose(Prose("text", f"{call.text} {call.tail}", call.line))

    def _read_tail(self, call: CallText, *, is_join: bool) -> None:
        """More follows a call on its line: a part of its output, or the rest of a sentence."""
        if call.has_suffix and call.label is not None and not is_join:
            place = _SUFFIX_WORD.match(call.tail)
            name, shown = call.label, call.label + (place[0] if place else "")
            message = f'line {call.line}: what follows the call of "{name}" is not read'
            hint = f"Write {shown} where you use it."
            self._reading.report(call.line, f"tasks.{name}", "syntax", message, hint)
            self._reading.failed.add(name)
            self._reading.lines.setdefault(name, call.line)
        elif is_join:
            self._join_in_sentence = call
        elif not call.has_suffix and is_sentence(f"{call.text} {call.tail}", self._mention):
            self._held.holds_all = self._held.holds_all or not self._has_tasks
            self._examples += [*self._held.prose_follows(self._reading), call]
        else:
            self._report_not_read(call)

    def _report_not_read(self, call: CallText) -> None:
        name, tail = call.label or call.tool, call.tail[:_SHOWN_MAX_CHARS]
        message = f'line {call.line}: "{tail}" follows the call of {call.tool} on its line'
        if not tail:
            message = f"line {call.line}: {call.tool}(…) is not a tool, and a tool is called in it"
        self._reading.report(call.line, f"tasks.{name}", "unreadable_line", message, _HINT)
        self._reading.failed.add(name)
        self._reading.lines.setdefault(name, call.line)

    def _report_in_block(self, call: CallText, block: Prose) -> None:
        name = call.label or call.tool
        message = f'line {call.line}: the call stands under "{block.text[:_SHOWN_MAX_CHARS]}"'
        self._reading.report(call.line, f"tasks.{name}", "statement", message, BLOCK_HINT)
        self._reading.failed.add(name)
        self._reading.lines.setdefault(name, call.line)

    def _report_unclosed(self, call: CallText) -> None:
        name = call.label or call.tool
        message = f"line {call.line}: the bracket of {call.tool}( is not closed"
        self._reading.report(call.line, f"tasks.{name}", "unclosed", message)
        self._reading.failed.add(name)
        self._reading.lines.setdefault(name, call.line)

    # -- the end ----------------------------------------------------------------------------

    def _end_plan(self, join: CallText) -> list[PlannedTask]:
        read_join(join, self._reading)
        self._has_join = True
        # A thought's end may follow a text that began with prose: then nothing of it counts.
        return [] if self._held.holds_all else self._release()

    def _release(self) -> list[PlannedTask]:
        return self._give(self._held.release(self._reading))

    def _give(self, tasks: list[PlannedTask]) -> list[PlannedTask]:
        self._started |= {str(t.task.id): call_text(t.task) for t in tasks}
        return tasks

    def _report_open(self, last: list[ScannedText], is_cut_off: bool) -> None:
        """What the end of the text has left unfinished."""
        call = self._scanner.open_call
        if self._has_join:
            return
        if call is not None and not is_cut_off:
            self._report_unclosed(call)
        elif call is not None:
            name = call.label or call.tool
            message = f"cut off inside task {name} (line {call.line})"
            self._reading.report(call.line, f"tasks.{name}", "cut_off", message)
            self._reading.failed.add(name)
        elif is_cut_off:
            self._report_cut(last)

    def _report_cut(self, last: list[ScannedText]) -> None:
        """Cut off outside any bracket: perhaps in what was to become a call."""
        part = last[-1] if last else None
        label = _LABEL.match(part.text) if isinstance(part, Prose) else None
        if isinstance(part, Prose) and label and part in self._prose:
            self._prose.remove(part)
            name = label[1] or label[2]
            message = f"cut off inside task {name} (line {part.line})"
            self._reading.report(part.line, f"tasks.{name}", "cut_off", message)
        else:
            message = "the answer was cut off before its join line"
            self._reading.report(LAST_LINE, "plan", "cut_off", message)

    def _report_examples(self) -> None:
        """Calls in sentences are left out, unless they are written just as the plan's tasks are."""
        forms = self._held.forms
        for call in self._examples:
            if call.form in forms or not (forms or self._reading.end.has_answer):
                self._report_not_read(replace(call, tail=call.tail or "prose"))
            else:
                self._prose.append(Prose("text", f"{call.text} {call.tail}", call.line))

    def _report_prose(self) -> None:
        end = self._reading.end
        is_empty = not end.tasks and not end.is_complete and not self._reading.lines
        if is_empty and not end.problems:
            beginning = self._prose[0].text[:_SHOWN_MAX_CHARS] if self._prose else ""
            message = "no tasks in the answer" + (f': it begins "{beginning}"' if beginning else "")
            hint = 'Write lines such as a = search(query="…"), then join(a).'
            self._reading.report(LAST_LINE, "plan", "no_tasks", message, hint)
            end.problems.append(self._reading.problems[-1][1])
        elif len(self._prose) == 1:
            end.warnings.append(f"line {self._prose[0].line} is not a call and was left out")
        elif self._prose:
            end.warnings.append(f"{len(self._prose)} lines that are not calls were left out")
        if self._ignored:
            end.warnings.append(f"calls after join were left out: {self._ignored}")


def _as_header(call: CallText) -> Prose | None:
    """`if (a):`, `while(a) {`: words of programs in front of a bracket, which are no tools."""
    if call.label is not None or call.tool not in _KEYWORDS:
        return None
    return Prose("text", f"{call.text} {call.tail}".rstrip(), call.line, call.indent)


__all__ = ["OPTIONS", "CallsParser", "ParsedEnd", "call_text", "read_places"]

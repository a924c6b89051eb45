"""Messages of the planner, in both syntaxes: tools, goal, what is done, what to fix. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from planloom.planner.contract.jobs import FinishedTask, PlanJob, PlannedTask
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.values import JsonValue
from planloom.planner.prompts.text import as_text, clip_text, fenced, load_prompt
from planloom.planner.syntax.calls.parser import call_text

PLANNER_CONTEXT_MAX_CHARS = 20_000
FINISHED_PREVIEW_MAX_CHARS = 300
FINISHED_SHOWN_MAX = 300
PROMPT_LINE_MAX_CHARS = 200
EXAMPLES_PER_TOOL = 2
PLANNER_PROBLEMS_MAX = 50

CALLS = load_prompt("planner.v1")
JSON = load_prompt("planner_json.v1")
PLANNER_CASE = load_prompt("planner_case.v1")

CALLS_EXAMPLE = """\
Goal: How many times more people than Spain has France, and what explains it? (The tools of this \
example are not yours.)
fr = lookup(place="France", fact="population")
es = lookup(place="Spain", fact="population")
ratio = compute(expression="${fr.value} / ${es.value}")
why = ask(prompt="What explains a ratio of ${ratio}?", context=[fr, es])
join(ratio, why)"""

JSON_EXAMPLE = """\
Goal: How many times more people than Spain has France? (The tools of this example are not yours.)
{"tasks": [
 {"id": "fr", "tool": "lookup", "args": {"place": "France", "fact": "population"}},
 {"id": "es", "tool": "lookup", "args": {"place": "Spain", "fact": "population"}},
 {"id": "ratio", "tool": "compute", "args": {"expression": "${fr.value} / ${es.value}"}}
],
"answer": "${ratio}"}"""

CALLS_OPTIONS = """\
- `_after=[a]`: start after a, without its output.
- `_map=a`: a is a list: run once for each item, with item and index as names in the arguments; \
the output is the list of results.
- `_when="${a.value} > 10"` or `_when="a.outcome == 'succeeded'"`: run only if this JMESPath \
condition holds, else the task is skipped.
- `_fallback=value` or `_fallback=tool(…)`: the output, or the other way, if the task fails.
- `_requires="any"` or `"best_effort"`: run with what is there although an input failed.
- `_timeout="30s"`, `_note="what it is for"`.
- `stop_when("${a.value} > 10")`, on its own line: stop the rest as soon as this holds."""

JSON_OPTIONS = """\
- "depends_on": ["a"]: start after a, without its output.
- "map": "${a}": a is a list: run once for each item, with "${item}" and "${index}" in the args; \
the output is the list of results.
- "when": "${a.value} > 10" or "a.outcome == 'succeeded'": run only if this JMESPath condition \
holds, else the task is skipped.
- "fallback": value, or {"tool": …, "args": …}: the output, or other way, if the task fails.
- "requires": "any" or "best_effort": run with what is there although an input failed.
- "timeout": "30s", "description": what it is for.
- "stop_when", beside "tasks": a condition; stop the rest as soon as it holds."""


def planner_messages(
    job: PlanJob, tools: Sequence[ToolSpec], accepted: Sequence[PlannedTask]
) -> list[dict[str, Any]]:
    """The planner's conversation. `accepted` was written before: the model goes on after it."""
    is_calls = job.syntax == "calls"
    prompt = CALLS if is_calls else JSON
    system = prompt.fill(
        example=CALLS_EXAMPLE if is_calls else JSON_EXAMPLE,
        options=CALLS_OPTIONS if is_calls else JSON_OPTIONS,
        tools="\n".join(tool_lines(t) for t in tools) or "(none)",
        helpers=_helpers(job, is_calls),
    )
    case = PLANNER_CASE.fill(
        goal=fenced("goal", job.goal),
        context=_context(job.context),
        done=_done(job.finished),
        kept=_kept(job.kept),
        feedback=f"# Why a new plan is needed\n{job.feedback}" if job.feedback else "",
        problems="" if accepted else _problems(job),
        closing="" if accepted else "Write the plan.",
    )
    messages = [{"role": "system", "content": system}, {"role": "user", "content": case}]
    if accepted:
        written = accepted_text(accepted, job.syntax)
        messages.append({"role": "assistant", "content": written})
        messages.append({"role": "user", "content": _go_on(job, is_calls)})
    return messages


def accepted_text(accepted: Sequence[PlannedTask], syntax: str) -> str:
    """What the model wrote so far and what holds of it, in its own syntax."""
    if syntax == "json":
        tasks = [t.task.model_dump(mode="json", exclude_unset=True) for t in accepted]
        lines = ",\n ".join(json.dumps(t, ensure_ascii=False) for t in tasks)
        return '{"tasks": [\n ' + lines
    return "\n".join(_line_of(t) for t in accepted)


def _line_of(planned: PlannedTask) -> str:
    # The task itself, not its text: its inputs may have been renamed since. Numbered tasks are
    # LLMCompiler's own form, which knows no other.
    if planned.task.id.isdigit() and planned.text:
        return planned.text.strip()
    return call_text(planned.task)


def _go_on(job: PlanJob, is_calls: bool) -> str:
    rest = (
        "Write only the lines that are still missing, then join(…)."
        if is_calls
        else 'Write a whole JSON object with only the tasks that are still missing in "tasks", '
        "and the answer."
    )
    opening = _problems(job) or "Your answer broke off there."
    return (
        f"{opening}\n\nThe tasks above are accepted and run already: do not write them again, use "
        f"their names. {rest}"
    )


def _problems(job: PlanJob) -> str:
    if not job.problems:
        return ""
    lines = [f"- {clip_text(p.line(), 400)}" for p in job.problems[:PLANNER_PROBLEMS_MAX]]
    return "# What was wrong with your last answer, all of it\n" + "\n".join(lines)


def _context(context: JsonValue) -> str:
    if context is None or context in ("", [], {}):
        return ""
    return fenced("context", clip_text(as_text(context), PLANNER_CONTEXT_MAX_CHARS))


def _done(finished: Sequence[FinishedTask]) -> str:
    if not finished:
        return ""
    lines = [finished_line(t) for t in finished[:FINISHED_SHOWN_MAX]]
    if len(finished) > FINISHED_SHOWN_MAX:
        lines.append(f"[… {len(finished) - FINISHED_SHOWN_MAX} more are not shown …]")
    return (
        "# What has ended so far\n"
        "Use good outputs by name; never run those tasks again. Give every new task a new name.\n"
        + fenced("ended", "\n".join(lines))
    )


def finished_line(task: FinishedTask) -> str:
    """A task that has ended in one line: call, outcome, beginning of its output or cause."""
    call = task.call or task.id
    if not call.startswith(f"{task.id} ="):
        call = f"{task.id}: {call}"
    ending = ""
    if task.outcome.is_good and task.output is not None:
        text = task.output.preview if task.output.preview is not None else None
        ending = as_text(task.output.value) if text is None else text
    elif task.error:
        ending = task.error
    ending = " ".join(ending.split())
    ending = (
        ending
        if len(ending) <= FINISHED_PREVIEW_MAX_CHARS
        else ending[: FINISHED_PREVIEW_MAX_CHARS - 1] + "…"
    )
    return f"{clip_text(call, 400)} -> {task.outcome.value}" + (f": {ending}" if ending else "")


def _kept(kept: Sequence[PlannedTask]) -> str:
    if not kept:
        return ""
    lines = [clip_text(_line_of(t), 400) for t in kept]
    return (
        "# Tasks of the old plan that have not ended\n"
        "They are dropped unless a new task reads them by name, or you write them again, under the "
        "same name, changed or not.\n" + "\n".join(lines)
    )


# Tools, agents, teams, templates.


def tool_lines(tool: ToolSpec) -> str:
    """A tool in few words: its call with types, what it does, parameters that need a word."""
    properties = _properties(tool.parameters)
    needed = tool.parameters.get("required")
    needed = needed if isinstance(needed, list) else []
    listed = ", ".join(_parameter(n, s, n in needed) for n, s in properties.items())
    lines = [
        f"{tool.name}({listed}) - {_first_line(tool.description) or tool.name}"
        + (" [acts]" if tool.side_effects else "")
    ]
    words = [
        f"{name}: {_first_line(str(s['description']))}"
        for name, s in properties.items()
        if s.get("description")
    ]
    if words:
        lines.append("    " + "; ".join(words))
    lines += [f"    e.g. {_first_line(e)}" for e in tool.examples[:EXAMPLES_PER_TOOL]]
    return "\n".join(lines)


def _properties(schema: Mapping[str, JsonValue]) -> dict[str, dict[str, JsonValue]]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: s if isinstance(s, dict) else {} for name, s in properties.items()}


def _parameter(name: str, schema: Mapping[str, JsonValue], is_needed: bool) -> str:
    kind = _type_of(schema)
    text = f"{name}: {kind}" if kind else name
    if is_needed:
        return text
    default = schema.get("default")
    return f"{text} = {json.dumps(default)}" if default is not None else f"{text}?"


def _type_of(schema: Mapping[str, JsonValue]) -> str:
    if isinstance(values := schema.get("enum"), list):
        return " | ".join(json.dumps(v) for v in values[:12])
    if isinstance(options := schema.get("anyOf"), list):
        kinds = [_type_of(o) for o in options if isinstance(o, dict)]
        return " | ".join(k for k in dict.fromkeys(kinds) if k and k != "null")
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items")
        inner = _type_of(items) if isinstance(items, dict) else ""
        return f"[{inner}]" if inner else "list"
    return kind if isinstance(kind, str) else ""


def _first_line(text: str) -> str:
    line = next((x.strip() for x in text.splitlines() if x.strip()), "")
    return line if len(line) <= PROMPT_LINE_MAX_CHARS else line[: PROMPT_LINE_MAX_CHARS - 1] + "…"


def _helpers(job: PlanJob, is_calls: bool) -> str:
    """Agents, teams and templates, each with how it is called; nothing when there are none."""
    sections = []
    if job.agents:
        how = (
            '`x = agent("name", task="…", context=a)`'
            if is_calls
            else '{"id": "x", "agent": "name", "args": {"task": "…", "context": "${a}"}}'
        )
        sections.append(_listed("Agents: for open work of many steps", how, job.agents))
    if job.teams:
        how = (
            '`x = team("name", task="…", context=a)`'
            if is_calls
            else '{"id": "x", "team": "name", "args": {"task": "…", "context": "${a}"}}'
        )
        sections.append(_listed("Teams: several agents who discuss and are judged", how, job.teams))
    if job.template_names:
        how = (
            '`x = plan("name", param="…")`'
            if is_calls
            else '{"id": "x", "plan": "name", "args": {"param": "…"}}'
        )
        named = dict.fromkeys(job.template_names, "")
        sections.append(_listed("Ready plans", how, named))
    return "\n\n".join(sections)


def _listed(title: str, how: str, names: Mapping[str, str]) -> str:
    lines = [f"{n} - {_first_line(d)}" if d else n for n, d in names.items()]
    return f"# {title}\nCalled as {how}\n" + "\n".join(lines)

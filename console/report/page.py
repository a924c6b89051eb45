"""A run as one HTML page. Whatever a task, a model or a person wrote is escaped, and nothing in it
is executed: templates escape by themselves, and the page's own policy forbids scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from planloom.console.report.answers import controls_of, forms_of
from planloom.console.report.decisions import Decision
from planloom.console.report.facts import RunFacts
from planloom.console.report.rows import cost_rows, gantt_of, shown_value, task_rows
from planloom.console.safe import plain
from planloom.console.views import short_seconds
from planloom.planner.compile.drawing.svg import STYLE, changed_tasks, plan_svg
from planloom.planner.contract.results import AgentResult, RunResult, TeamResult
from planloom.planner.language.plan import Plan

FOLDER = Path(__file__).parent
SECTIONS = (
    "head", "waits", "answer", "graph", "gantt", "cost", "tasks", "decisions"
)  # fmt: skip
FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
LIVE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
TITLE_MAX_CHARS = 200
NOTES_MAX = 40
_LINE_CSS = {"+": "plus", "-": "minus", "~": "tilde"}
_WORDS = {
    "DagWorkflow": "run",
    "AgentWorkflow": "agent",
    "TeamWorkflow": "team",
}


class _Templates(Environment):
    """A name after a dot is a field first: `form.update` is what is sent, not a dict's method."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return obj[attribute] if isinstance(obj, dict) else super().getattr(obj, attribute)


def _shown(value: Any) -> Any:
    """What stands in the page for a value: control characters are visible, as on a terminal."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    return _Templates(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def report_page(facts: RunFacts) -> str:
    """The whole report as one file: no script, nothing loaded from anywhere."""
    return _page(page_of(facts), SECTIONS, is_live=False)


def live_page(facts: RunFacts) -> str:
    """The same, for a server that keeps it up to date and takes decisions."""
    return _page(page_of(facts, is_live=True), SECTIONS, is_live=True)


def live_parts(facts: RunFacts) -> dict[str, str]:
    """The sections of the live page, by name."""
    page = page_of(facts, is_live=True)
    return {name: _part(name, page, is_live=True) for name in SECTIONS}


def plan_page(plan: Plan, estimate: dict[str, Any], notes: Sequence[str]) -> str:
    """A plan before it runs."""
    page = _empty_page() | {
        "title": (plan.goal or plan.name or "A plan")[:TITLE_MAX_CHARS],
        "kind": "plan",
        "id": plan.name,
        "status": "not run",
        "status_class": "skipped",
        "actual": _svg(plan, notes=_estimated(estimate)),
        "actual_title": f"{len(plan.tasks)} tasks, with likely seconds",
        "costs": cost_rows({}, estimate, None),
        "tasks": task_rows(plan, {}, {}, []),
        "notes": list(notes),
    }
    return _page(page, SECTIONS, is_live=False)


def _page(page: dict[str, Any], sections: Sequence[str], *, is_live: bool) -> str:
    css = (FOLDER / "style.css").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            sections=sections,
            live=is_live,
            policy=LIVE_POLICY if is_live else FILE_POLICY,
            css=Markup(css),
            svg_css=Markup(STYLE),
            version=_version(),
        )
    )


def _part(name: str, page: dict[str, Any], *, is_live: bool) -> str:
    return _environment().get_template(f"{name}.html").render(page=page, live=is_live)


def _version() -> str:
    try:
        return version("planloom")
    except PackageNotFoundError:
        return ""


def _empty_page() -> dict[str, Any]:
    return {
        "id": "",
        "kind": "",
        "title": "",
        "status": "",
        "status_class": "",
        "revision": 0,
        "started": "",
        "reason": "",
        "problems": [],
        "is_answered": True,
        "numbers": [],
        "controls": None,
        "waits": [],
        "waits_for_people": True,
        "answer": None,
        "failures": [],
        "planned": None,
        "planned_title": "",
        "actual": None,
        "actual_title": "",
        "revisions": [],
        "gantt": {"rows": [], "ticks": [], "hidden": 0, "path": ""},
        "costs": [],
        "cost_notes": [],
        "tasks": [],
        "tasks_hidden": 0,
        "members": [],
        "rounds": [],
        "judge": None,
        "decisions": [],
        "notes": [],
        "made_at": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}",
    }


def page_of(facts: RunFacts, *, is_live: bool = False) -> dict[str, Any]:
    """What the templates show: words and pictures, ready made."""
    status = _status(facts)
    plan, result = facts.plan, facts.result
    path = result.critical_path if isinstance(result, RunResult) else []
    page = _empty_page() | {
        "id": facts.id,
        "kind": _WORDS.get(facts.kind, facts.kind),
        "title": _title(facts),
        "status": status,
        "status_class": "waiting-run" if status == "waiting" else status,
        "revision": facts.revisions[-1].number if facts.revisions else 0,
        "started": f"{facts.started:%Y-%m-%d %H:%M:%S}",
        "reason": _reason(facts),
        "problems": [p.line() for p in facts.problems],
        "is_answered": facts.is_answered,
        "numbers": _numbers(facts),
        "controls": controls_of(facts) if is_live else None,
        "answer": _answer(facts),
        "costs": cost_rows(facts.usage, facts.estimate, _seconds(facts)),
        "cost_notes": _cost_notes(facts),
        "decisions": [_decision_row(d) for d in facts.decisions],
        "notes": _notes(facts),
        "gantt": gantt_of(facts, path),
        "failures": _failures(facts),
    }
    if facts.progress is not None and not facts.is_over:
        waits = facts.progress.waits
        page["waits"] = [
            {
                "what": w.what,
                "since": f"{short_seconds(w.since)} after the start",
                "command": w.command,
                "forms": forms_of(w),
            }
            for w in waits
        ]
        page["waits_for_people"] = any(w.kind != "capacity" for w in waits)
    if plan is not None:
        page |= _pictures(facts, plan, path)
        page["tasks"] = task_rows(plan, facts.tasks, facts.estimate, path)
    if isinstance(result, TeamResult):
        page |= _team(result)
    return page


def _title(facts: RunFacts) -> str:
    asked = facts.request
    plan = facts.plan
    for words in (
        facts.progress.goal if facts.progress else "",
        asked.get("goal"),
        asked.get("task"),
        plan.goal if plan else "",
        plan.description if plan else "",
        asked.get("template"),
        facts.id,
    ):
        if isinstance(words, str) and words.strip():
            text = " ".join(words.split())
            return text if len(text) <= TITLE_MAX_CHARS else text[: TITLE_MAX_CHARS - 1] + "…"
    return facts.id


def _status(facts: RunFacts) -> str:
    if facts.result is not None:
        return facts.result.status
    if facts.failure:
        return "refused" if facts.problems else "failed"
    if facts.is_over:
        return facts.state.lower()
    return facts.progress.status if facts.progress is not None else "running"


def _reason(facts: RunFacts) -> str:
    if facts.result is not None:
        return facts.result.reason or ""
    return facts.failure


def _seconds(facts: RunFacts) -> float:
    if facts.result is not None and facts.result.seconds:
        return facts.result.seconds
    if facts.progress is not None and not facts.is_over:
        return facts.progress.seconds
    end = facts.closed or datetime.now().astimezone()
    return (end - facts.started).total_seconds()


def _numbers(facts: RunFacts) -> list[dict[str, str]]:
    result, used = facts.result, facts.usage
    if result is not None:
        used = used or result.usage.model_dump(mode="json")
    ideal = ""
    if isinstance(result, RunResult) and result.critical_path_seconds > 0:
        factor = result.seconds / result.critical_path_seconds
        ideal = f"{factor:.2f} × the critical path"
    waited = getattr(result, "waited_seconds", 0.0)
    if waited > 1:
        ideal = f"{short_seconds(waited)} waiting for people"
    counts = facts.progress.counts if facts.progress is not None else {}
    good = sum(n for s, n in counts.items() if s in ("succeeded", "cached", "fallback"))
    tokens = f"{used.get('input_tokens', 0):,} in, {used.get('output_tokens', 0):,} out"
    calls = f"{used.get('tool_calls', 0):,} tool calls, {used.get('cache_hits', 0):,} from cache"
    numbers = [("took" if facts.is_over else "running for", short_seconds(_seconds(facts)), ideal)]
    if counts:
        rest = ", ".join(
            f"{n} {s}" for s, n in counts.items() if s not in ("succeeded", "cached", "fallback")
        )
        numbers.append(("tasks done", f"{good}/{sum(counts.values())}", rest))
    numbers.append(("tokens", f"{used.get('tokens', 0):,}", tokens))
    unknown = ""
    if used.get("unpriced_calls"):
        charged = (used.get("settled") or {}).get("usd") or 0
        unknown = "some prices are unknown" + (f": counted as ${charged:.2f}" if charged else "")
    numbers.append(("cost", f"${used.get('usd', 0):.4f}", unknown))
    numbers.append(("model calls", f"{used.get('model_calls', 0):,}", calls))
    return [{"label": label, "value": value, "note": note} for label, value, note in numbers]


def _answer(facts: RunFacts) -> dict[str, str] | None:
    match facts.result:
        case None:
            return None
        case AgentResult() as agent:
            large = {"preview": agent.preview, "blob": agent.blob}
            return shown_value(large if agent.blob else agent.output)
        case result:
            return shown_value(result.answer) if result.answer is not None else None


def _pictures(facts: RunFacts, plan: Plan, path: Sequence[str]) -> dict[str, Any]:
    """The plan as it was first written, beside the newest revision as it ran; then each change."""
    states = {task: str(row.get("state", "")) for task, row in facts.tasks.items()}
    first = facts.revisions[0]
    estimated = _estimated(facts.estimate)
    count = len(facts.revisions)
    found: dict[str, Any] = {
        "actual": _svg(plan, states, notes=_took(facts), path=path, links=True),
        "actual_title": "As it ran" if facts.is_over else "As it runs",
        "planned": _svg(first.plan, notes=estimated) if estimated or count > 1 else None,
        "planned_title": "As it was planned" + (", with likely seconds" if estimated else ""),
    }
    changes = []
    for before, after in zip(facts.revisions, facts.revisions[1:], strict=False):
        both, marks = changed_tasks(before.plan, after.plan)
        lines = [{"css": _LINE_CSS.get(line[:1], ""), "text": line} for line in after.changes]
        changes.append(
            {
                "number": after.number,
                "why": after.why,
                "by": after.by,
                "lines": lines,
                "svg": _svg(both, marks) if marks else None,
            }
        )
    return found | {"revisions": changes}


def _svg(
    plan: Plan,
    states: dict[str, str] | None = None,
    *,
    notes: dict[str, str] | None = None,
    path: Sequence[str] = (),
    links: bool = False,
) -> Markup:
    # What `plan_svg` writes of names and descriptions is escaped there.
    return Markup(
        plain(plan_svg(plan, states, notes=notes, path=path, links=links, is_alone=False))
    )


def _estimated(estimate: dict[str, Any]) -> dict[str, str]:
    """Each task's likely seconds, where something is known of them."""
    rows = estimate.get("tasks") or {}
    return {
        task: f"≈{short_seconds(span[1])}"
        for task, row in rows.items()
        if isinstance(row, dict) and isinstance(span := row.get("seconds"), list) and span[1]
    }


def _took(facts: RunFacts) -> dict[str, str]:
    """Each task's seconds so far; of a map its items, `8/12`."""
    running = facts.progress.running_seconds if facts.progress is not None else {}
    found = {task: short_seconds(seconds) for task, seconds in running.items()}
    for task, row in facts.tasks.items():
        times = row.get("times") or {}
        if times.get("started") is not None and times.get("ended") is not None:
            found[task] = short_seconds(times["ended"] - times["started"])
        if items := row.get("items"):
            good = sum(n for s, n in items.items() if s in ("succeeded", "cached", "fallback"))
            found[task] = f"{good}/{sum(items.values())}"
    return found


def _failures(facts: RunFacts) -> list[dict[str, str]]:
    found = []
    for task, row in facts.tasks.items():
        error = row.get("error")
        if not error:
            continue
        state, attempts = str(row.get("state")), row.get("attempts") or 0
        end = {
            "fallback": "its fallback was used",
            "unknown": "it may have acted: look before you run it again",
        }.get(state, state)
        kind = f"{row['error_class']}, " if row.get("error_class") else ""
        note = f"{kind}{attempts} attempt{'s' if attempts != 1 else ''}, {end}"
        found.append({"task": task, "state": state, "note": note, "error": str(error)})
    return found


def _cost_notes(facts: RunFacts) -> list[str]:
    found = []
    if basis := facts.estimate.get("basis"):
        plain = {"declared": "from the plan", "history": "from earlier calls", "default": "assumed"}
        text = re.sub(r"\b(declared|history|default)\b", lambda m: plain[m[1]], str(basis))
        found.append(f"Estimates of seconds and tokens: {text}")
    if saved := facts.usage.get("saved"):
        words = ", ".join(f"{value:,.4g} {name}" for name, value in saved.items() if value)
        found.append(f"Saved by cache, reuse and early ends: {words}") if words else None
    return found


def _decision_row(decision: Decision) -> dict[str, Any]:
    payload = {k: v for k, v in decision.payload.items() if k not in ("by", "plan", "patch")}
    note = str(payload.pop("note", None) or payload.pop("reason", None) or "")
    what = decision.name.replace("_", " ")
    details = ", ".join(f"{k} {v}" for k, v in payload.items())
    return {
        "at": f"{decision.at:%Y-%m-%d %H:%M:%S}",
        "who": decision.by or "not given",
        "what": f"{what}{': ' + details[:300] if details else ''}",
        "note": note,
        "is_refused": decision.is_refused,
    }


def _notes(facts: RunFacts) -> list[str]:
    if facts.result is not None:
        return facts.result.notes[:NOTES_MAX]
    return facts.progress.notes if facts.progress is not None else []


def _team(result: TeamResult) -> dict[str, Any]:
    members = [
        {
            "name": name,
            "state": m.outcome.value,
            "confidence": "" if m.confidence is None else f"{m.confidence:.2f}",
            "attempts": m.attempts,
            "claim": str(m.fields.get("CLAIM") or m.error or "")[:500],
        }
        for name, m in result.members.items()
    ]
    rounds = [
        f"Round {r.round} ({r.kind}): "
        + (
            "; ".join(f"{m} hears {', '.join(o) or 'nobody'}" for m, o in r.heard.items())
            or ", ".join(r.members)
        )
        for r in result.rounds
    ]
    judge = None
    if result.judge is not None:
        judge = result.judge.model_dump(mode="json") | {
            "confidence": f"{result.judge.confidence:.2f}"
        }
    return {"members": members, "rounds": rounds, "judge": judge}

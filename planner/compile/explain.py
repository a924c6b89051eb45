"""A plan made visible: what the passes did, and the graph as mermaid."""

from __future__ import annotations

import re
from collections.abc import Mapping

from planloom.planner.compile.pipeline import Compiled, inputs_of
from planloom.planner.contract.results import EstimateReport
from planloom.planner.language.conditions import roots_of_condition
from planloom.planner.language.plan import Plan, Task
from planloom.planner.language.values import JsonValue

_CLASSES = {
    "waiting": "fill:#eee,stroke:#999,color:#555",
    "ready": "fill:#fff3c4,stroke:#d9a400,color:#333",
    "running": "fill:#cfe5ff,stroke:#1f6feb,color:#0b2a57",
    "succeeded": "fill:#d3f2d9,stroke:#1a7f37,color:#0b3d1a",
    "cached": "fill:#d3f2d9,stroke:#1a7f37,color:#0b3d1a,stroke-dasharray:4",
    "fallback": "fill:#ffe8c7,stroke:#bc6c00,color:#4d2c00",
    "failed": "fill:#ffd8d6,stroke:#cf222e,color:#5c0a10",
    "skipped": "fill:#f6f6f6,stroke:#bbb,color:#888,stroke-dasharray:4",
    "cancelled": "fill:#e8e0f0,stroke:#7d5bb0,color:#40286b",
    "unknown": "fill:#ffd8d6,stroke:#cf222e,color:#5c0a10,stroke-dasharray:4",
}
GROUP_SHOWN_MAX = 12
_UNSAFE = re.compile(r'["<>{}\[\]()|#;\n\r`]')


def body_of(task: Task) -> str:
    """What a task does, in a few words."""
    name = task.tool or task.kind
    for kind in ("agent", "team", "plan"):
        named = getattr(task, kind)
        if named is not None:
            name = f"{kind} {named}" if isinstance(named, str) else kind
    return f"{name} × map" if task.map is not None else name


def mermaid(plan: Plan, states: Mapping[str, str] | None = None) -> str:
    """The graph as a mermaid flowchart; with `states` its tasks are coloured by them."""
    nodes: dict[str, str] = {t.id: f"n{n}" for n, t in enumerate(plan.tasks)}
    lines = ["flowchart TD"]
    for task in plan.tasks:
        words = _UNSAFE.sub(" ", task.description or body_of(task))[:60]
        left, right = ("{{", "}}") if task.human is not None else ("[", "]")
        lines.append(f'  {nodes[task.id]}{left}"{_UNSAFE.sub(" ", task.id)}: {words}"{right}')
    for task in plan.tasks:
        judged = roots_of_condition(task.when) if task.when else ()
        for needed in inputs_of(task):
            if needed in nodes:
                arrow = "-.->" if needed in judged else "-->"
                lines.append(f"  {nodes[needed]} {arrow} {nodes[task.id]}")
    used: dict[str, list[str]] = {}
    for name, state in (states or {}).items():
        if name in nodes and state in _CLASSES:
            used.setdefault(state, []).append(nodes[name])
    for state, members in used.items():
        lines.append(f"  classDef {state} {_CLASSES[state]}")
        lines.append(f"  class {','.join(members)} {state}")
    return "\n".join(lines)


def explain(compiled: Compiled, original: Plan | None = None) -> str:
    """What each pass did, and each task's inputs, rank and estimate, as plain text."""
    plan = compiled.plan
    total = len(original.tasks) if original else len(plan.tasks) + len(compiled.pruned)
    lines = [f"tasks written      {total}"]
    edges = sum(len(i) for i in compiled.inputs.values())
    lines.append(f"resolve            {edges} dependencies")
    lines.append(f"validate           {len(compiled.problems)} problems")
    lines += [f"  {p.line()}" for p in compiled.problems]
    lines.append(f"deduplicate        {len(compiled.aliases)} calls made once")
    lines += [f"  {a} = {b}" for a, b in compiled.aliases.items()]
    lines.append(f"prune              {len(compiled.pruned)} tasks not run")
    lines += [f"  {t}: {why}" for t, why in compiled.pruned.items()]
    if compiled.problems:
        return "\n".join(lines)
    path = " -> ".join(compiled.critical_path[:20])
    lines.append(f"rank               critical path: {path}")
    lines.append(f"                   width {compiled.width}, {len(plan.tasks)} tasks run")
    lines += _group_lines(compiled)
    lines += _estimate_lines(compiled.estimate)
    width = max([len(t.id) for t in plan.tasks] + [4])
    head = f"{'task':<{width}}  {'does':<22} {'rank s':>8} {'likely s':>8} {'tokens':>8} {'usd':>8}"
    lines += ["", f"{head}  inputs"]
    for task in sorted(plan.tasks, key=lambda t: -compiled.ranks.get(t.id, 0.0)):
        rank = compiled.ranks.get(task.id, 0.0)
        inputs = ", ".join(compiled.inputs.get(task.id, ()))
        likely = _likely(compiled.estimate.tasks.get(task.id))
        lines.append(
            f"{task.id:<{width}}  {body_of(task)[:22]:<22} {rank:>8.2f} {likely}  {inputs}".rstrip()
        )
    return "\n".join(lines)


def _group_lines(compiled: Compiled) -> list[str]:
    fused = sum(len(g) for g in compiled.groups)
    lines = [f"fuse               {fused} tasks share {len(compiled.groups)} activities"]
    for group in compiled.groups:
        more = len(group) - GROUP_SHOWN_MAX
        lines.append("  " + ", ".join(group[:GROUP_SHOWN_MAX]) + (f", {more} more" * (more > 0)))
    return lines + [f"  {task}: its items share activities" for task in compiled.batched]


def _likely(estimate: JsonValue) -> str:
    """A task's likely seconds, tokens and money as columns; `?` where nothing is known."""
    spans = estimate if isinstance(estimate, dict) else {}
    cells = []
    for name, form in (("seconds", ".2f"), ("tokens", ",.0f"), ("usd", ".4f")):
        span = spans.get(name)
        likely = span[1] if isinstance(span, list) else None
        cells.append(format(likely, form) if isinstance(likely, int | float) else "?")
    return " ".join(f"{cell:>8}" for cell in cells)


def _estimate_lines(estimate: EstimateReport) -> list[str]:
    lines = ["estimate           low / likely / worst"]
    if estimate.tokens:
        lines.append("  tokens           " + " / ".join(f"{t:,}" for t in estimate.tokens))
    if estimate.usd:
        lines.append("  usd              " + " / ".join(f"{u:.4f}" for u in estimate.usd))
    else:
        lines.append("  usd              unknown: no price for the model")
    if estimate.seconds:
        lines.append("  seconds          " + " / ".join(f"{s:.1f}" for s in estimate.seconds))
    return [*lines, f"  basis            {estimate.basis}"]

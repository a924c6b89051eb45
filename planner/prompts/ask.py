"""Messages of an `ask` task. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from planloom.planner.language.references import Reference, with_words
from planloom.planner.language.values import JsonValue
from planloom.planner.prompts.text import DATA_RULE, as_text, clip_text, fenced, load_prompt

ASK_CONTEXT_MAX_CHARS = 200_000
"""About 50,000 tokens: what most models still take beside a prompt and an answer."""
SHOWN_BACK_MAX_CHARS = 20_000
ASK_PROBLEMS_MAX = 20

ASK = load_prompt("ask.v1")


def data_apart(prompt: str, outside: Collection[str]) -> tuple[str, dict[str, JsonValue]]:
    """The prompt without what came from outside, and that as data, by the names it has there.

    References to the names of `outside` are taken out of the prompt; the rest stay in it.
    """
    data: dict[str, JsonValue] = {}

    def named(reference: Reference) -> str | None:
        if reference.root not in outside:
            return None
        name = reference.text.removeprefix("${").removesuffix("}").strip()
        data[name] = reference.text
        return f'(the data "{name}" below)'

    apart = with_words(prompt, named)
    return (apart, data) if data else (prompt, {})


def ask_messages(
    prompt: str,
    *,
    context: JsonValue = None,
    data: Mapping[str, JsonValue] | None = None,
    system: str | None = None,
    schema: Mapping[str, JsonValue] | None = None,
    context_max_chars: int = ASK_CONTEXT_MAX_CHARS,
) -> list[dict[str, Any]]:
    """The conversation of one ask: the context in its own section, cut visibly when long."""
    has_context = context is not None and context not in ("", [], {})
    section = fenced("context", clip_text(as_text(context), context_max_chars))
    shown = [f"Use this context:\n{section}"] if has_context else []
    for name, value in (data or {}).items():
        shown.append(fenced("data", clip_text(as_text(value), context_max_chars), {"name": name}))
    text = ASK.fill(
        prompt=prompt,
        context="\n\n".join([*shown, DATA_RULE] if data else shown),
        format=_format_rule(schema),
    ).strip()
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": text}]


def _format_rule(schema: Mapping[str, JsonValue] | None) -> str:
    if schema is None:
        return ""
    return (
        "Answer with one JSON value that fits this JSON Schema, and nothing else "
        "(no explanation, no code fence):\n" + fenced("schema", json.dumps(schema))
    )


def repair_messages(answer: str, problems: Sequence[str]) -> list[dict[str, Any]]:
    """The turn that shows a model its answer and everything that was wrong with it."""
    shown = [f"- {p}" for p in problems[:ASK_PROBLEMS_MAX]]
    if len(problems) > ASK_PROBLEMS_MAX:
        shown.append(f"- and {len(problems) - ASK_PROBLEMS_MAX} more")
    text = "That answer cannot be used:\n" + "\n".join(shown)
    return [
        {"role": "assistant", "content": clip_text(answer, SHOWN_BACK_MAX_CHARS) or "(nothing)"},
        {"role": "user", "content": f"{text}\n\nGive the whole corrected answer, nothing else."},
    ]

"""What to reserve for a piece of work before it is dispatched. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from planloom.planner.contract.jobs import PlanJob
from planloom.planner.language.catalog import Catalog
from planloom.planner.language.plan import Body, Plan, Task
from planloom.planner.language.references import roots_of
from planloom.planner.language.values import NANO, JsonValue, Stored, Usage
from planloom.workflows.machines.shared.budget import Amount, Caps
from planloom.workflows.machines.shared.sizes import text_bytes

BYTES_PER_TOKEN = 2
"""Text rarely takes more than a token for two bytes; the reservation must not be too small."""
OVERHEAD_TOKENS = 64
ANSWER_TOKENS = 4_096
"""Of any model call. A model that reasons does so within it; where the budget has less, the call
gets what there is."""
ANSWER_TOKENS_MIN = 64
"""When the budget runs low, a model call goes out with less room for its answer, down to this."""
WIDER = 4
"""A call whose answer was cut off is made once more, with this much more room."""
PLANNER_PROMPT_TOKENS = 1_500
PLANNER_ANSWER_TOKENS_MIN = 256
AGENT_TOKENS_RESERVED = 20_000
TEAM_TOKENS_RESERVED = 60_000
CHILD_TOKENS_MIN = 500
SUB_PLAN_TASKS = 10
"""Of a template, whose tasks are not known here; it asks for more when it has used them up."""
UNKNOWN_PRICE = (15_000, 75_000)
"""Nano-dollars a token (in, out) assumed for a model without a known price: a high default."""


def price_of(catalog: Catalog, model: str | None) -> tuple[int, int]:
    return catalog.prices.get(model or "", UNKNOWN_PRICE)


def unpriced(catalog: Catalog, models: Iterable[str | None]) -> list[str]:
    """Those of the models whose price nobody knows, each once."""
    return [m for m in dict.fromkeys(models) if m and m not in catalog.prices]


def model_amount(
    catalog: Catalog, model: str | None, prompt_tokens: int, answer_tokens: int, tasks: int = 1
) -> Amount:
    """The most a call can come to: its prompt, its whole answer room, at its model's price."""
    price_in, price_out = price_of(catalog, model)
    return Amount(
        prompt_tokens + answer_tokens,
        prompt_tokens * price_in + answer_tokens * price_out,
        tasks,
    )


def prompt_in(least: Amount) -> int:
    """The tokens of the prompt in the least that a call can do with."""
    return least.tokens - ANSWER_TOKENS_MIN


def wider_room(cut_at: int) -> tuple[int, int]:
    """Answer tokens for another try after an answer that was cut off at `cut_at`, and the least
    with which it is worth paying."""
    return WIDER * cut_at, cut_at + max(ANSWER_TOKENS_MIN, cut_at // 4)


def stored_bytes(stored: Stored | None) -> int:
    """Size of an output's text, wherever it is kept."""
    if stored is None:
        return 0
    return text_bytes(stored.value) if stored.is_inline else stored.size_bytes


def prompt_tokens(values: Sequence[JsonValue], value_of: Callable[[str], Stored | None]) -> int:
    """Tokens of a prompt with its references filled in, from sizes alone."""
    size = 0
    for value in values:
        size += text_bytes(value)
        size += sum(stored_bytes(value_of(root)) for root in roots_of(value))
    return size // BYTES_PER_TOKEN + OVERHEAD_TOKENS


def planner_prompt_tokens(job: PlanJob, catalog: Catalog) -> int:
    """Tokens of a planner's prompt: its fixed part, tools and helpers, and what this call tells."""
    tools = sum(text_bytes(dict(t.parameters)) + len(t.description) for t in catalog.tools)
    helpers = text_bytes([dict(job.agents), dict(job.teams), list(job.template_names)])
    told = text_bytes(job.goal) + min(60_000, text_bytes(job.context)) + text_bytes(job.feedback)
    for ended in job.finished[:300]:
        shown = stored_bytes(ended.output) or text_bytes(ended.error)
        told += text_bytes(ended.call) + min(900, shown) + 40
    told += sum(min(1_200, text_bytes(kept.text)) for kept in job.kept)
    told += sum(text_bytes(accepted.text) + 20 for accepted in job.accepted)
    told += sum(min(1_200, text_bytes(problem.line())) for problem in job.problems)
    fixed = PLANNER_PROMPT_TOKENS + tools // 4
    return fixed + (helpers + told) // BYTES_PER_TOKEN


def amounts_for(
    task: Task,
    body: Body,
    catalog: Catalog,
    model: str | None,
    value_of: Callable[[str], Stored | None],
    cut_at: int = 0,
) -> tuple[Amount, Amount]:
    """What to reserve for a body, and the least it can do with.

    `cut_at`: an earlier try's answer was cut off after so many tokens.
    """
    room, room_min = wider_room(cut_at) if cut_at else (ANSWER_TOKENS, ANSWER_TOKENS_MIN)
    hint = task.estimate
    match body.kind:
        case "ask":
            ask = body.ask_body()
            prompt = prompt_tokens([ask.prompt, ask.context, ask.system], value_of)
            room = ask.max_tokens or room
            want = model_amount(catalog, model, prompt, room)
            least = model_amount(catalog, model, prompt, min(room, room_min))
            return want, least
        case "agent" | "team":
            default = AGENT_TOKENS_RESERVED if body.kind == "agent" else TEAM_TOKENS_RESERVED
            tokens = max(CHILD_TOKENS_MIN, hint.tokens if hint and hint.tokens else default)
            usd = (
                int(hint.usd * NANO) if hint and hint.usd else tokens * price_of(catalog, model)[1]
            )
            return Amount(tokens, usd, 1), Amount(CHILD_TOKENS_MIN, 0, 1)
        case "plan":
            tokens = hint.tokens if hint and hint.tokens else AGENT_TOKENS_RESERVED
            usd = (
                int(hint.usd * NANO) if hint and hint.usd else tokens * price_of(catalog, model)[1]
            )
            inner = len(body.plan.tasks) if isinstance(body.plan, Plan) else SUB_PLAN_TASKS
            return Amount(tokens, usd, 1 + inner), Amount(0, 0, 2)
        case "tool" if body.tool == "ask":
            prompt = prompt_tokens([dict(body.args)], value_of)
            want = model_amount(catalog, model, prompt, room)
            return want, model_amount(catalog, model, prompt, room_min)
        case "tool":
            spec = catalog.tool(body.tool or "")
            usd = -int(-(spec.cost_usd or 0.0) * NANO // 1) if spec else 0
            amount = Amount(0, usd, 1)
            return amount, amount
        case _:
            return Amount(tasks=1), Amount(tasks=1)


def usage_so_far(catalog: Catalog, model: str | None, prompt_tokens: int, text_bytes: int) -> Usage:
    """What a call that was cancelled while it wrote has been paid, as far as can be known here."""
    spent = model_amount(catalog, model, prompt_tokens, text_bytes // BYTES_PER_TOKEN)
    return Usage(
        input_tokens=prompt_tokens,
        output_tokens=text_bytes // BYTES_PER_TOKEN,
        usd_nano=spent.usd_nano,
        model_calls=1,
        is_priced=(model or "") in catalog.prices,
    )


def at_most(usage: Usage, limit: Amount) -> Usage:
    """An estimated usage that is no more than a limit: of tokens the answer's are fewer."""
    asked = min(usage.input_tokens, limit.tokens)
    return usage.model_copy(
        update={
            "input_tokens": asked,
            "output_tokens": min(usage.output_tokens, limit.tokens - asked),
            "usd_nano": min(usage.usd_nano, limit.usd_nano),
        }
    )


def most_tokens(
    granted: Amount, caps: Caps, catalog: Catalog, model: str | None, prompt: int
) -> int | None:
    """What a call may use in all, its repairs included; None when no cap limits it.

    Its tokens that are set aside, and no more than its money buys where the price is known.
    """
    price_in, price_out = catalog.prices.get(model or "", (0, 0))
    if caps.usd_nano is not None and price_out:
        bought = prompt + max(0, granted.usd_nano - prompt * price_in) // price_out
        return min(granted.tokens, bought)
    return None if caps.tokens is None else granted.tokens


def answer_room(most: int, prompt: int, room: int | None) -> int:
    """`max_tokens` for a call that may use `most` tokens: what they leave after the prompt."""
    left = max(1, most - prompt)
    return min(room, left) if room else left

"""Small questions that find out what an endpoint can do, for `planloom models --probe`.

Each question is one call of the client itself, so that what the endpoint refuses is found out as in
a run. Nothing here guesses: what is reported was seen.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

from planloom.activities.models.chat import ChatReply, ChatRequest
from planloom.activities.models.client import ModelClient
from planloom.activities.models.errors import ModelError
from planloom.activities.models.quirks import NOTHING_KNOWN, Quirks, row_of
from planloom.activities.models.request_params import format_of
from planloom.planner.contract.requests import Role
from planloom.planner.contract.settings import shown_address
from planloom.planner.language.values import JsonValue, Usage

PROBE_SECONDS = 120.0
PROBE_TOKENS = 1_024
"""Of one answer: reasoning models think before they say yes."""
HUGE_TOKENS = 100_000_000
"""A limit that no model has: the refusal names the real one."""
SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["city", "year"],
    "additionalProperties": False,
}
_ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two whole numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}

Row = dict[str, Any]


class Probe:
    """The questions to one model of one pool. `rows` is what came of each."""

    def __init__(self, client: ModelClient, pool: str, model: str) -> None:
        self._client, self._pool, self._model = client, pool, model
        self.rows: list[Row] = []
        self.usage = Usage()

    async def run(self) -> None:
        """Ask everything; without a plain answer nothing else."""
        if not await self._row("answers", self._answers):
            return
        await self._row("streams", self._streams)
        await self._row("calls tools", self._calls_tools)
        await self._row("calls several tools at once", self._calls_several)
        await self._row("keeps to a schema", self._keeps_to_a_schema)
        await self._row("names its longest answer", self._names_its_limit)

    @property
    def quirks(self) -> Quirks:
        """What is known of the model now."""
        is_openai = self._client.connections.is_openai(self._pool)
        return self._client.quirks.of(self._pool, self._model, is_openai=is_openai)

    async def _row(self, question: str, ask: Callable[[], Awaitable[tuple[bool, str]]]) -> bool:
        started = time.monotonic()
        try:
            is_so, what = await ask()
            row: Row = {"question": question, "is_so": is_so, "what": what}
        except ModelError as error:
            self.usage += error.usage or Usage()
            row = {"question": question, "is_so": False, "what": str(error)}
        self.rows.append(row | {"seconds": round(time.monotonic() - started, 2)})
        return bool(row["is_so"])

    async def _chat(self, prompt: str, **fields: Any) -> ChatReply:
        request = ChatRequest(
            model=self._model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=fields.pop("max_tokens", PROBE_TOKENS),
            timeout_seconds=PROBE_SECONDS,
            **{k: v for k, v in fields.items() if k != "on_text"},
        )
        reply = await self._client.chat(self._pool, request, fields.get("on_text"))
        self.usage += reply.usage
        return reply

    async def _answers(self) -> tuple[bool, str]:
        reply = await self._chat("Answer with the one word yes.")
        told = f'"{_short(reply.text)}"' if reply.text.strip() else "an empty answer"
        usage = "its usage is not reported" if reply.is_usage_estimated else "with usage"
        thought = ", reasoning apart" if reply.reasoning else ""
        return bool(reply.text.strip()), f"{told}, {usage}{thought}"

    async def _streams(self) -> tuple[bool, str]:
        pieces: list[str] = []

        async def keep(text: str) -> None:
            pieces.append(text)

        prompt = "Count from one to twenty, in words."
        reply = await self._chat(prompt, stream=True, on_text=keep)
        usage = "without usage" if reply.is_usage_estimated else "with usage"
        return len(pieces) > 1, f"{len(pieces)} pieces, {usage}"

    async def _calls_tools(self) -> tuple[bool, str]:
        reply = await self._chat("Use the tool add for 2 + 3.", tools=[_ADD])
        return _calls_of(reply, 1)

    async def _calls_several(self) -> tuple[bool, str]:
        prompt = "In one turn, call the tool add twice: for 2 + 3, and for 10 + 20."
        return _calls_of(await self._chat(prompt, tools=[_ADD]), 2)

    async def _keeps_to_a_schema(self) -> tuple[bool, str]:
        prompt = "Where and when were the first modern Olympic games? Answer with JSON: city, year."
        reply = await self._chat(prompt, response_schema=SCHEMA)
        request = ChatRequest(model=self._model, messages=[], response_schema=SCHEMA)
        form = format_of(request, self.quirks)
        try:
            is_so = set(json.loads(reply.text)) == {"city", "year"}
        except (ValueError, TypeError):
            is_so = False
        return is_so and form == "json_schema", f"constrained by: {form}"

    async def _names_its_limit(self) -> tuple[bool, str]:
        reply = await self._chat("Answer with the one word yes.", max_tokens=HUGE_TOKENS)
        known = self.quirks
        if known.max_tokens is None and known.window is None:
            return False, f"{HUGE_TOKENS:,} tokens were not refused ({reply.finish_reason})"
        named = {"answer": known.max_tokens, "prompt and answer": known.window}
        return True, ", ".join(f"{k}: {v:,} tokens" for k, v in named.items() if v)


def _calls_of(reply: ChatReply, count: int) -> tuple[bool, str]:
    good = [c for c in reply.tool_calls if c.name == "add" and _has_numbers(c.arguments)]
    return len(good) >= count, f"{len(good)} calls"


def _has_numbers(arguments: str) -> bool:
    try:
        found = json.loads(arguments)
    except ValueError:
        return False
    return isinstance(found, dict) and all(isinstance(found.get(k), int) for k in "ab")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else f"{text[:39]}…"


def settings_text(pool: str, model: str, quirks: Quirks) -> str:
    """The lines of `planloom.toml` that say for good what was found; "" for nothing unusual."""
    lines = []
    if dropped := sorted(d for d in quirks.dropped if not d.startswith("messages.")):
        lines.append(f"without = {json.dumps(dropped)}")
    if quirks.response_format != "json_schema":
        lines.append(f"response_format = {json.dumps(quirks.response_format)}")
    if quirks.is_limit_swapped:
        lines.append('limit = "max_completion_tokens"')
    if quirks.max_tokens is not None:
        lines.append(f"max_tokens = {quirks.max_tokens}")
    text = "\n".join([f"[pools.{_key(pool)}.accepts.{json.dumps(model)}]", *lines]) if lines else ""
    if quirks.window is None:
        return text
    window = f"[context_windows]\n{json.dumps(model)} = {quirks.window}"
    return f"{text}\n\n{window}" if text else window


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else json.dumps(name)


async def known_models(
    client: ModelClient, pools: Sequence[str], rows: Sequence[Row], *, is_probe: bool
) -> list[Row]:
    """One row for each pool: its address, its models, what it offers, which model each role takes,
    what is known of them, and what a probe found."""
    found = []
    for pool in pools:
        row: Row = {
            "pool": pool,
            "base_url": shown_address(client.endpoint(pool)),
            "models": client.connections.pool(pool).models,
            "known": [r for r in rows if r.get("pool") == pool],
            **await _offered(client, pool),
        }
        if is_probe:
            row |= await _probed(client, pool)
        found.append(row)
    return found


async def _offered(client: ModelClient, pool: str) -> Row:
    """What the endpoint lists (nothing is paid for that), and what each role takes of this pool."""
    offers: list[str] = []
    problem = ""
    try:
        offers = await client.connections.offered(pool)
    except ModelError as error:
        problem = str(error)
    taken: Row = {}
    settings = client.settings
    for role in get_args(Role):
        named = settings.models.get(role) or settings.models.get("worker") or settings.model
        if named is not None and not client.connections.pool(pool).serves(named):
            continue  # another pool serves it
        if named is None and pool != next(iter(settings.pools), pool):
            continue  # without a name the first pool is asked
        try:
            taken[role] = named or await client.default_model(pool)
        except ModelError:
            taken[role] = None
    return {"offers": offers, "offers_error": problem, "taken": taken}


async def _probed(client: ModelClient, pool: str) -> Row:
    try:
        settings = client.settings
        named = [m for m in (settings.model, *settings.models.values()) if m]
        model = next((m for m in named if client.connections.pool(pool).serves(m)), None)
        model = model or await client.default_model(pool)
    except ModelError as error:
        return {"probe": {"model": None, "rows": [], "error": str(error)}}
    probe = Probe(client, pool, model)
    await probe.run()
    learned = replace(probe.quirks, schemas={})
    is_known = learned != NOTHING_KNOWN
    return {
        "probe": {
            "model": model,
            "rows": probe.rows,
            "usage": probe.usage.model_dump(),
            "quirks": row_of(learned) if is_known else None,
            "settings": settings_text(pool, model, learned),
        }
    }

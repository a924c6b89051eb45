"""Usage by rule: of every recorded reply the client reads what its server counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from planloom.activities.models.chat import ChatRequest
from planloom.activities.models.errors import ModelError
from planloom.activities.models.reply_builder import ReplyBuilder
from planloom.activities.models.sse import SseDecoder
from tests.endpoints.entry import Exchange, read_all
from tests.endpoints.replies import Answer, answer_of

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 300}
BYTES_MAX = 1_000_000
EXCHANGES = read_all()
UNBELIEVED = ("a count that cannot be",)
"""The client estimates instead."""


def _counted(exchange: Exchange) -> Iterator[tuple[int, Answer]]:
    """The replies whose server says what it counted, by number."""
    for number, reply in enumerate(exchange.replies, 1):
        if reply.fault or sum(len(c.data) * c.times for c in reply.chunks or []) > BYTES_MAX:
            continue
        answer = answer_of(reply, BODY)
        if answer.status == 200 and answer.counted is not None:
            yield number, answer


def _read(answer: Answer) -> ReplyBuilder:
    builder = ReplyBuilder()
    raw = answer.body if answer.body is not None else b"".join(answer.chunks or ())
    try:
        if "event-stream" in answer.type:
            decoder = SseDecoder()
            for data in [*decoder.feed(raw), *decoder.close()]:
                builder.add_event(data)
        else:
            builder.add_whole(raw)
    except ModelError:  # a failed answer is charged as well
        pass
    return builder


REPLIES = [(e, n, a) for e in EXCHANGES for n, a in _counted(e) if e.name not in UNBELIEVED]


@pytest.mark.parametrize(
    ("exchange", "number", "answer"),
    REPLIES,
    ids=lambda v: v.name if isinstance(v, Exchange) else str(v) if isinstance(v, int) else "",
)
def test_a_reply_costs_what_its_server_counted(
    exchange: Exchange, number: int, answer: Answer
) -> None:
    request = ChatRequest(model="m", messages=[{"role": "user", "content": "hi"}])
    usage, is_estimated = _read(answer).usage(request)
    assert (usage.tokens, is_estimated) == (answer.counted, False)


def test_the_rule_covers_what_is_recorded() -> None:
    assert len(REPLIES) > 400
    # Runs are checked too, but for these: each says in its file why.
    free = [e.name for e in EXCHANGES if not e.counts]
    assert len(free) < len(EXCHANGES) / 20, free

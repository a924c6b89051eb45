"""The model client against a real HTTP server that speaks, misspeaks and breaks off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from planloom.activities.models.client import ChatRequest, ModelCall, ModelClient, ModelError
from planloom.activities.models.keys import without_key
from planloom.activities.models.reply_builder import ReplyBuilder
from planloom.activities.models.sse import SseDecoder
from planloom.planner.contract.settings import (
    PoolSettings,
    Price,
    Settings,
    SettingsError,
    settings_from,
)
from tests.model_server import ModelServer, Reply
from tests.support.waiting import until


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


CLIENTS: list[ModelClient] = []


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    while CLIENTS:
        await CLIENTS.pop().close()


def made(settings: Settings, environment: dict[str, str]) -> ModelClient:
    CLIENTS.append(ModelClient(settings, environment))
    return CLIENTS[-1]


def client_for(server: ModelServer, **pool: object) -> ModelClient:
    settings = Settings(pools={"default": PoolSettings(base_url=server.url, **pool)})  # type: ignore[arg-type]
    return made(settings, {"OPENAI_API_KEY": "sk-secret-1234567"})


def request(text: str = "hello", **fields: object) -> ChatRequest:
    fields.setdefault("model", "gpt-4o-mini")
    return ChatRequest(messages=[{"role": "user", "content": text}], **fields)  # type: ignore[arg-type]


async def failure(client: ModelClient, asked: ChatRequest, **more: object) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await client.chat("default", asked, **more)  # type: ignore[arg-type]
    return caught.value


async def test_a_whole_answer_comes_with_usage_and_price(server: ModelServer) -> None:
    server.script("hello", Reply(text="hi there", headers={"x-ratelimit-remaining-requests": "9"}))
    reply = await client_for(server).chat("default", request())
    assert (reply.text, reply.finish_reason, reply.is_cut_off) == ("hi there", "stop", False)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (2, 2)
    assert reply.usage.usd_nano == 2 * 150 + 2 * 600  # gpt-4o-mini: $0.15 and $0.60 a million
    assert reply.usage.model_calls == 1
    assert reply.headers == {"x-ratelimit-remaining-requests": "9"}
    assert not reply.is_usage_estimated


@pytest.mark.parametrize("chunking", ["char", "token", "line", "2 lines", "whole", 7])
async def test_a_stream_gives_the_same_text_at_every_chunking(
    server: ModelServer, chunking: str | int
) -> None:
    text = "first line\nsecond: 東京 \u2028 still second\n\nlast"
    server.script("hello", Reply(text=text, chunking=chunking))
    pieces: list[str] = []

    async def keep(piece: str) -> None:
        pieces.append(piece)

    reply = await client_for(server).chat("default", request(stream=True), keep)
    assert reply.text == text == "".join(pieces)
    assert reply.usage.output_tokens > 0
    assert not reply.is_usage_estimated
    assert reply.first_chunk_seconds is not None


async def test_text_arrives_while_the_model_still_writes(server: ModelServer) -> None:
    server.script("hello", Reply(text=["one\n", 0.5, "two"], chunking="whole"))
    times: list[float] = []

    async def keep(_: str) -> None:
        times.append(asyncio.get_running_loop().time())

    await client_for(server).chat("default", request(stream=True), keep)
    assert len(times) == 2
    assert times[1] - times[0] > 0.4


async def test_a_server_that_ignores_stream_is_read_all_the_same(server: ModelServer) -> None:
    server.script("hello", Reply(text="whole", fault="ignore_stream"))
    pieces: list[str] = []

    async def keep(piece: str) -> None:
        pieces.append(piece)

    reply = await client_for(server).chat("default", request(stream=True), keep)
    assert (reply.text, pieces) == ("whole", ["whole"])


async def test_events_under_a_wrong_label_are_still_events(server: ModelServer) -> None:
    server.script("hello", Reply(text="streamed", content_type="text/plain"))
    assert (await client_for(server).chat("default", request(stream=True))).text == "streamed"


@pytest.mark.parametrize("stream", [True, False])
async def test_tool_calls_are_read_whole(server: ModelServer, stream: bool) -> None:
    calls = [
        {"name": "search", "arguments": {"query": "x y z"}, "id": "a"},
        {"name": "math", "arguments": '{"broken": ', "id": "b"},
    ]
    server.script("hello", Reply(tool_calls=calls))
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
    reply = await client_for(server).chat("default", request(stream=stream, tools=[tool]))
    assert [(c.id, c.name) for c in reply.tool_calls] == [("a", "search"), ("b", "math")]
    assert json.loads(reply.tool_calls[0].arguments) == {"query": "x y z"}
    assert reply.tool_calls[1].arguments == '{"broken": '
    assert reply.finish_reason == "tool_calls"
    assert reply.as_message()["tool_calls"][0]["function"]["name"] == "search"
    assert server.requests[0].body["tools"] == [tool]


async def test_a_parameter_that_the_endpoint_refuses_is_left_out_and_remembered(
    server: ModelServer,
) -> None:
    refusing = Reply(text='{"a": 1}', rejects=["stream_options", "response_format", "temperature"])
    server.script("hello", refusing)
    client = client_for(server)
    asked = request(
        stream=True,
        temperature=0.0,
        response_schema={"type": "object", "properties": {"a": {"type": "integer"}}},
    )
    assert (await client.chat("default", asked)).text == '{"a": 1}'
    before = server.calls()
    assert before <= 6
    reply = await client.chat("default", asked)
    assert server.calls() == before + 1
    assert reply.is_usage_estimated  # no usage comes without stream_options


async def test_the_token_limit_changes_its_name_but_is_never_dropped(server: ModelServer) -> None:
    server.script("hello", Reply(text="ok", rejects=["max_tokens"]))
    assert (await client_for(server).chat("default", request(max_tokens=7))).text == "ok"
    assert server.requests[-1].body["max_completion_tokens"] == 7
    server.reset()
    server.script("hello", Reply(text="ok", rejects=["max_tokens", "max_completion_tokens"]))
    assert (await failure(client_for(server), request(max_tokens=7))).error_class == "refused"


@pytest.mark.parametrize(
    ("reply", "error_class", "says"),
    [
        (Reply(status=401), "auth", "OPENAI_API_KEY"),
        (Reply(status=404), "refused", "does not exist"),
        (Reply(status=429, headers={"retry-after": "7"}), "rate_limit", "429"),
        (Reply(status=500), "unknown", "500"),
        (Reply(status=503), "capacity", "503"),
        (Reply(fault="error_body"), "capacity", "overloaded"),
        (Reply(fault="not_json"), "unknown", "web page"),
        (Reply(fault="empty_choices"), "unknown", "without any choice"),
        (Reply(fault="close"), "unknown", "no connection"),
        (Reply(text="x", finish="content_filter"), "refused", "content filter"),
        (Reply(refusal="I cannot help with that."), "refused", "I cannot help"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_each_failure_has_its_class_and_says_what_it_is(
    server: ModelServer, reply: Reply, error_class: str, says: str, stream: bool
) -> None:
    server.script("hello", reply)
    error = await failure(client_for(server), request(stream=stream))
    assert (error.error_class, says in str(error)) == (error_class, True), str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("fault", ["cut_stream", "silent_end", "bad_sse"])
async def test_a_broken_stream_is_an_error_that_knows_what_was_paid(
    server: ModelServer, fault: str
) -> None:
    server.script("hello", Reply(text="a = search(query='x')\nb = sea", fault=fault))
    error = await failure(client_for(server), request(stream=True))
    assert error.error_class == "unknown"
    assert error.usage is not None
    assert error.usage.output_tokens > 0
    assert error.usage.usd_nano > 0


async def test_the_wait_that_the_server_asks_for_is_kept(server: ModelServer) -> None:
    server.script("hello", Reply(status=429, headers={"x-ratelimit-reset-tokens": "6m0s"}))
    assert (await failure(client_for(server), request())).retry_after == 300


async def test_an_answer_that_takes_too_long_is_a_timeout(server: ModelServer) -> None:
    server.script("hello", Reply(fault="hang"))
    error = await failure(client_for(server), request(timeout_seconds=0.2))
    assert (error.error_class, "0.2 s" in str(error)) == ("timeout", True)
    server.script("drip", Reply(text="x" * 400, token_seconds=0.05))
    error = await failure(client_for(server), request("drip", stream=True, timeout_seconds=0.3))
    assert error.error_class == "timeout"  # although each piece came in time


async def test_a_cancelled_call_closes_its_connection(server: ModelServer) -> None:
    server.script("hello", Reply(text="x" * 4000, token_seconds=0.02))
    task = asyncio.create_task(client_for(server).chat("default", request(stream=True)))
    await until(lambda: any(r.paid_tokens for r in server.requests))  # it writes
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.requests[0].ended == "aborted")


async def test_a_reply_cut_at_its_limit_says_so(server: ModelServer) -> None:
    server.script("hello", Reply(text="half a sen", finish="length"))
    assert (await client_for(server).chat("default", request(max_tokens=3))).is_cut_off


async def test_missing_usage_is_estimated_and_marked(server: ModelServer) -> None:
    server.script("hello", Reply(text="x" * 40, usage=False))
    reply = await client_for(server).chat("default", request())
    assert reply.is_usage_estimated
    assert reply.usage.output_tokens == 10
    assert reply.usage.input_tokens > 0


async def test_an_unknown_model_is_unpriced_and_an_override_prices_it(server: ModelServer) -> None:
    server.script("hello", Reply(text="x", usage={"prompt_tokens": 3, "completion_tokens": 5}))
    reply = await client_for(server).chat("default", request(model="my-own"))
    assert (reply.usage.is_priced, reply.usage.usd_nano) == (False, 0)
    price = Price(input_usd_per_million=0.15, output_usd_per_million=0.0005)
    priced = client_for(server, prices={"my-own": price})
    reply = await priced.chat("default", request(model="my-own"))
    assert (reply.usage.is_priced, reply.usage.usd_nano) == (True, 453)  # 450 + 2.5, rounded up
    assert priced.prices.per_token_nano("my-own", "default") == (150, 1)


async def test_without_key_and_endpoint_the_message_says_what_to_set() -> None:
    client = made(settings_from({}), {})
    error = await failure(client, request())
    assert error.error_class == "auth"
    assert "OPENAI_API_KEY or OPENAI_BASE_URL" in str(error)


async def test_a_local_server_needs_no_key(server: ModelServer) -> None:
    server.script("hello", "hi")
    environment = {"OPENAI_BASE_URL": server.url}
    client = made(settings_from(environment), environment)
    assert (await client.chat("default", request())).text == "hi"


async def test_a_missing_key_is_named_by_its_variable_and_nothing_is_asked(
    server: ModelServer,
) -> None:
    own = PoolSettings(base_url=server.url, api_key_env="MAIN_API_KEY")
    error = await failure(
        made(Settings(pools={"default": own}), {"OPENAI_API_KEY": "sk-other-123456"}), request()
    )
    assert error.error_class == "auth"
    assert str(error) == 'pool "default" has no key: set MAIN_API_KEY where the worker runs'
    assert not server.requests


@pytest.mark.parametrize(
    ("name", "listed", "is_sent"),
    [
        ("OPENAI_API_KEY", "", True),
        ("MY_OWN_API_KEY", "", True),
        ("AWS_SECRET_ACCESS_KEY", "", False),
        ("AWS_SECRET_ACCESS_KEY", "OTHER, MORE", False),
        ("GITHUB_TOKEN", "", False),
        ("DATABASE_URL", "", False),
        ("TEMPORAL_API_KEY", "", False),
        ("MAIN_KEY", "OTHER, MAIN_KEY", True),
    ],
)
async def test_only_a_variable_that_may_hold_a_model_key_is_sent(
    server: ModelServer, name: str, listed: str, is_sent: bool
) -> None:
    """A settings file with a foreign `base_url` and `AWS_SECRET_ACCESS_KEY` sent the secret."""
    server.script("hello", "hi")
    own = PoolSettings(base_url=server.url, api_key_env=name)
    environment = {name: "canary-12345678", "PLANLOOM_KEY_VARIABLES": listed}
    client = made(Settings(pools={"default": own}), environment)
    if is_sent:
        assert (await client.chat("default", request())).text == "hi"
        assert server.requests[-1].headers["authorization"] == "present"
        return
    error = await failure(client, request())
    assert error.error_class == "auth"
    assert f"PLANLOOM_KEY_VARIABLES={name}" in str(error)
    assert "canary" not in str(error)
    assert not server.requests


@pytest.mark.parametrize(
    ("name", "listed", "is_sent"),
    [
        ("GATEWAY_API_KEY", "", True),
        ("AWS_SECRET_ACCESS_KEY", "", False),
        ("TEMPORAL_API_KEY", "", False),
        ("CF_AIG_TOKEN", "OTHER, CF_AIG_TOKEN", True),
    ],
)
async def test_only_a_variable_that_may_hold_a_model_key_is_sent_as_a_header(
    server: ModelServer, name: str, listed: str, is_sent: bool
) -> None:
    """The same secret could be sent as a header of any name."""
    server.script("hello", "hi")
    own = PoolSettings(base_url=server.url, headers_env={"X-Gateway": name})
    environment = {name: "canary-12345678", "PLANLOOM_KEY_VARIABLES": listed}
    client = made(Settings(pools={"default": own}), environment)
    if is_sent:
        assert (await client.chat("default", request())).text == "hi"
        return
    error = await failure(client, request())
    assert error.error_class == "auth"
    assert "headers_env.X-Gateway" in str(error)
    assert "canary" not in str(error)
    assert not server.requests


@pytest.mark.parametrize(
    ("key", "message", "shown"),
    [
        ("x", "the limit exceeds the next index", "the limit exceeds the next index"),
        ("abc", "no abc here", "no abc here"),
        ("test", "the latest key test, not test-2", "the latest key [key], not test-2"),
        ("sk-long-key", "key=sk-long-key1 is wrong", "key=[key]1 is wrong"),
        ("a.b*c", "is a.b*c ok, aXb*c", "is [key] ok, aXb*c"),
        ("hex-0123456789abcdef", "cut: hex-0123456789ab", "cut: [key]"),
        ("hex-0123456789abcdef", "hex-0123456789…, and hex-012 alone", "[key]…, and hex-012 alone"),
        ("", "nothing", "nothing"),
        (None, "nothing", "nothing"),
    ],
)
def test_a_key_is_taken_out_of_a_message_and_words_are_left(
    key: str | None, message: str, shown: str
) -> None:
    """`OPENAI_API_KEY=x` made of every message "e[key]ceeds"."""
    assert without_key(message, key) == shown


def test_a_key_in_place_of_its_variables_name_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError) as seen:
        settings_from({}, {"pools": {"p": {"api_key_env": "sk-secret-1234567"}}})
    assert "the name of the variable" in str(seen.value)
    assert "secret" not in str(seen.value)


async def test_a_dead_endpoint_is_named_by_its_cause() -> None:
    settings = Settings(pools={"default": PoolSettings(base_url="http://127.0.0.1:9/v1")})
    error = await failure(made(settings, {}), request())
    assert error.error_class == "unknown"
    assert "no connection" in str(error)


async def test_the_default_model_is_what_the_endpoint_serves(server: ModelServer) -> None:
    server.models = ["llama-local"]
    assert await client_for(server).default_model("default") == "llama-local"
    assert await client_for(server, models=["a-*", "a-1"]).default_model("default") == "a-1"
    server.models = ["odd \ud83d"]  # a lone half: as a name it could not even be asked for
    assert await client_for(server).default_model("default") == "odd \N{REPLACEMENT CHARACTER}"
    server.models = []
    with pytest.raises(ModelError, match="PLANLOOM_MODEL"):
        await client_for(server).default_model("default")


async def test_an_error_of_the_callers_own_handler_passes_unchanged(server: ModelServer) -> None:
    server.script("hello", "hi")

    async def broken(_: str) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        await client_for(server).chat("default", request(stream=True), broken)


async def test_observers_see_each_call_with_its_end(server: ModelServer) -> None:
    from contextlib import contextmanager

    seen: list[tuple[str, str | None]] = []

    @contextmanager
    def watch(call: ModelCall) -> Iterator[None]:
        try:
            yield
        finally:
            seen.append((call.reply.text if call.reply else "", call.error_class))

    client = client_for(server)
    client.add_observer(watch)
    server.script("hello", "hi", Reply(status=503))
    await client.chat("default", request())
    await failure(client, request())
    assert seen == [("hi", None), ("", "capacity")]


@pytest.mark.parametrize("size", [1, 2, 3, 50, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    text = ': keep-alive\r\n\r\ndata: {"a": "é\u2028"}\r\n\r\ndata: one\ndata: two\n\ndata:[DONE]'
    raw = text.encode()
    decoder = SseDecoder()
    events = [e for i in range(0, len(raw), size) for e in decoder.feed(raw[i : i + size])]
    assert events + decoder.close() == ['{"a": "é\u2028"}', "one\ntwo", "[DONE]"]


def test_usage_is_read_in_both_apis_names() -> None:
    builder = ReplyBuilder()
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    usage = {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 5}}
    builder.add_whole(json.dumps({"choices": [choice], "usage": usage}).encode())
    found = builder.reply(request()).usage
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (9, 4, 5)

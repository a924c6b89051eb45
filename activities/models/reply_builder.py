"""One answer, built from stream events or from a whole body, whatever form it comes in.

Endpoints differ in what they send: whatever is missing or odd gets a defined reading here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from planloom.activities.models.chat import (
    CHARS_PER_TOKEN,
    HANDED_BACK,
    ChatReply,
    ChatRequest,
    estimate_tokens,
    text_of,
)
from planloom.activities.models.error_bodies import (
    classify_status,
    classify_text,
    error_text,
    message_of,
    wait_in_body,
)
from planloom.activities.models.errors import ModelError
from planloom.activities.models.finish_reasons import class_of_broken, end_of, is_known_bad, is_said
from planloom.activities.models.sse import SseDecoder, is_event_stream
from planloom.activities.models.thoughts import ThoughtFilter, without_thoughts
from planloom.activities.models.tool_calls import EXTRA_MAX_DEPTH, CallAssembler, ToolCall
from planloom.activities.models.usage_reports import plain_report, total_from, usage_from
from planloom.planner.language.clean_text import TextCleaner, clean_text, clean_value
from planloom.planner.language.values import Usage, is_deeper

WORDS_MAX_CHARS = 300
ANSWER_MAX_CHARS = 2_000_000
"""Words, thoughts and arguments together: half a million tokens."""
_USAGE = ("usage", "usageMetadata", "usage_metadata")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_STATUS_KEYS = ("code", "status", "status_code", "statusCode", "http_status", "error_code")


class ReplyBuilder:
    """Builds a reply from stream events or from a whole body."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.has_choices = False
        self.is_done = False
        self.received_chars = 0
        self._raw: list[str] = []
        self._cleaner = TextCleaner()
        self._passing = ThoughtFilter()
        self._refusal = ""
        self._calls = CallAssembler()
        self._reported: dict[str, Any] = {}
        self._reasoning: list[str] = []
        self._extra: dict[str, Any] = {}
        self._model = ""
        self._id = ""
        self._number: str | None = None
        """Of the choice that is the answer."""
        self._has_delta = False

    # -- what comes -------------------------------------------------------------------------

    def add_event(self, data: str) -> str:
        """One event of a stream; returns the text it adds to the answer.

        Raises:
            ModelError: the event is not JSON, or an error of the endpoint.
        """
        if data.strip().strip("[]").upper() == "DONE":
            self.is_done = True
        if self.is_done:
            return ""
        return self._add(_decoded(data), "delta")

    def add_whole(self, body: bytes, *, is_page: bool = False) -> str:
        """A whole body, also for a stream that the endpoint did not stream."""
        if is_event_stream(body):  # under a wrong label
            decoder = SseDecoder()
            events = [*decoder.feed(body), *decoder.close()]
            return "".join(self.add_event(data) for data in events)
        text = self._add(_decoded(body.decode("utf-8-sig", errors="replace"), is_page), "message")
        self.is_done = True
        return text

    def end_text(self) -> str:
        """The last of the answer's text: what was still held back."""
        return self._take(self._cleaner.close()) + self._passing.close()

    def _add(self, body: Mapping[str, Any], key: str) -> str:
        choices = body.get("choices")
        self._add_usage(body, choices)
        if (error := _error_in(body, choices)) is not None:
            raise error
        self._model = clean_text(str(body.get("model") or self._model))
        self._id = clean_text(str(body.get("id") or self._id))
        if not isinstance(choices, list):
            choices = [body] if isinstance(body.get("message"), Mapping) else []  # Ollama's own
        numbered = [(n, c) for n, c in enumerate(choices) if isinstance(c, Mapping)]
        text = "".join([self._add_choice(c.get("index", n), c, body, key) for n, c in numbered])
        if self.total_chars > ANSWER_MAX_CHARS:
            raise ModelError("refused", f"answered with more than {ANSWER_MAX_CHARS:,} characters")
        return text

    def _add_choice(
        self, number: object, choice: Mapping[str, Any], body: Mapping[str, Any], key: str
    ) -> str:
        """One choice. Only one is asked for: of others the calls are taken where it makes none, for
        some servers give words and calls apart (GitHub Copilot)."""
        number = str(number)
        self._number = number if self._number is None else self._number
        self.has_choices = True
        part = choice.get(key) or choice.get("message") or choice.get("delta")
        if not isinstance(part, Mapping):  # text completions
            part = {"content": choice.get("text")}
        if number != self._number:
            part = {} if self._calls.received_chars else {"tool_calls": part.get("tool_calls")}
            return self._add_part(part, is_delta=key == "delta")
        said = _finish_of(choice, body)
        # "stop" behind "length" does not make the answer whole.
        if said and not (self.finish_reason and is_known_bad(self.finish_reason)):
            self.finish_reason = said
        if choice.get("delta"):
            self._has_delta = True
        elif self._has_delta and choice.get("message"):
            return ""  # the whole message behind its pieces (MiniMax)
        return self._add_part(part, is_delta=key == "delta")

    def _add_usage(self, body: Mapping[str, Any], choices: object) -> None:
        """What the endpoint counted: in parts over several events, or in full with each."""
        if body.get("done") is True and body.get("eval_count") is not None:  # Ollama's own
            self._reported |= {k: v for k, v in body.items() if k.endswith("eval_count") and v}
        first = choices[0] if isinstance(choices, list) and choices else None
        for place in (body, body.get("x_groq"), first):  # Groq's and Moonshot's own
            for name in _USAGE:
                reported = place.get(name) if isinstance(place, Mapping) else None
                if isinstance(reported, Mapping):
                    known, report = self._reported, plain_report(reported)
                    # Zeros behind a count do not undo it.
                    known |= {k: v for k, v in report.items() if v or k not in known}

    def _add_part(self, part: Mapping[str, Any], *, is_delta: bool) -> str:
        if len(self._refusal) < WORDS_MAX_CHARS:  # no more of it is told
            self._refusal += text_of(part.get("refusal"))[:WORDS_MAX_CHARS]
        self._add_reasoning(part)
        calls = part.get("tool_calls") or part.get("function_call")
        if is_delta:
            self._calls.add_delta(calls)
        else:
            self._calls.add_whole(calls)
        raw = text_of(part.get("content"))
        self.received_chars += len(raw)
        return self._take(self._cleaner.feed(raw))

    def _add_reasoning(self, part: Mapping[str, Any]) -> None:
        name = next((n for n in _REASONING if isinstance(part.get(n), str) and part[n]), None)
        if name is not None:
            self._reasoning.append(part[name])
            self.received_chars += len(part[name])
            if name in HANDED_BACK:
                self._extra[name] = ""  # filled from the pieces when all are there
        for name in HANDED_BACK:
            value, known = part.get(name), self._extra.get(name)
            if isinstance(value, list) and value:
                self._extra[name] = known = known if isinstance(known, list) else []
                known += value
            elif isinstance(value, Mapping) and value:
                self._extra[name] = known = known if isinstance(known, dict) else {}
                known.update(value)

    def _take(self, text: str) -> str:
        if text:
            self._raw.append(text)
        return self._passing.feed(text)

    # -- what it came to --------------------------------------------------------------------

    @property
    def total_chars(self) -> int:
        return self.received_chars + self._calls.received_chars

    @property
    def is_paid(self) -> bool:
        """Whether anything came that its provider charges, as far as known."""
        return bool(self._reported or self.has_choices or self.total_chars)

    def usage(self, request: ChatRequest) -> tuple[Usage, bool]:
        """Usage as reported, or estimated from the lengths; True when it is estimated."""
        made = -(-self.total_chars // CHARS_PER_TOKEN)
        if (known := usage_from(self._reported)) is not None:
            # Words that nobody counted are not free, those of the prompt neither.
            given = 0 if known.input_tokens else estimate_tokens(request.messages)
            made = 0 if known.output_tokens else made
            counted = {"input_tokens": given, "output_tokens": made}
            missing = {name: count for name, count in counted.items() if count}
            return (known.model_copy(update=missing) if missing else known), bool(missing)
        if total := total_from(self._reported):  # it names no parts: the sum is sure
            made = min(made, total)
            given = total - made
            return Usage(input_tokens=given, output_tokens=made, model_calls=1), False
        given = estimate_tokens(request.messages)
        return Usage(input_tokens=given, output_tokens=made, model_calls=1), True

    def reply(self, request: ChatRequest, *, is_stopped: bool = False) -> ChatReply:
        """The whole reply.

        Raises:
            ModelError: no choices, a broken stream, a refusal or a content filter.
        """
        usage, is_estimated = self.usage(request)
        text, calls = without_thoughts("".join(self._raw))[0], self._calls.calls()
        reason = "stop" if is_stopped else self._true_reason(request, usage, calls)
        self._check(reason, text, usage, is_stopped=is_stopped)
        reasoning = clean_text("".join(self._reasoning))
        extra = {
            k: reasoning if v == "" else clean_value(v)
            for k, v in self._extra.items()
            if not is_deeper(v, EXTRA_MAX_DEPTH)
        }
        return ChatReply(
            text=text,
            tool_calls=calls,
            finish_reason=reason,
            usage=usage,
            is_usage_estimated=is_estimated,
            model=self._model or request.model,
            response_id=self._id,
            reasoning=reasoning,
            extra=extra,
            is_stopped=is_stopped,
        )

    def _check(self, reason: str | None, text: str, usage: Usage, *, is_stopped: bool) -> None:
        if not self.has_choices:
            raise ModelError("unknown", "answered without any choice", usage=usage)
        if reason is None and not self.is_done and not is_stopped:
            raise ModelError("unknown", "the answer's stream ended in the middle", usage=usage)
        end = end_of(reason)
        if end == "filtered":
            text = f"answer stopped by the content filter ({clean_text(reason or '')[:60]})"
            raise ModelError("refused", text, usage=usage)
        if end == "broken":
            word = clean_text(reason or "")[:60]
            text = f'the answer is not whole: it ended with finish reason "{word}"'
            raise ModelError(class_of_broken(word), text, usage=usage)
        if self._refusal and not text:
            words = clean_text(self._refusal)[:200]
            raise ModelError("refused", f"model refused: {words}", usage=usage)

    def _true_reason(
        self, request: ChatRequest, usage: Usage, calls: tuple[ToolCall, ...]
    ) -> str | None:
        """Some servers call an answer whole that hit its limit in the middle of a call."""
        limit = request.max_tokens
        is_full = limit is not None and usage.output_tokens >= limit
        if is_full and any(not _is_json(c.arguments) for c in calls):
            return "length"
        return self.finish_reason


def _finish_of(choice: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
    details = choice.get("finish_details")
    known = [
        choice.get("finish_reason"),
        details.get("type") if isinstance(details, Mapping) else None,
        choice.get("native_finish_reason"),
        choice.get("stop_reason"),
        body.get("done_reason"),
    ]
    incomplete = body.get("incomplete_details")
    if isinstance(incomplete, Mapping):
        known.insert(0, incomplete.get("reason"))
    said = [str(k) for k in known if is_said(k)]
    # A gateway may call whole what its provider says is not.
    return next((k for k in said if is_known_bad(k)), said[0] if said else None)


def _error_in(body: Mapping[str, Any], choices: object) -> ModelError | None:
    """An error that came with status 200, or in the middle of a stream, in any form."""
    first = choices[0] if isinstance(choices, list) and choices else None
    places = [first, body.get("x_groq")]
    if isinstance(first, Mapping):
        places += [first.get("delta"), first.get("message")]
    for place in places:
        if isinstance(place, Mapping) and place.get("error"):
            return _endpoint_error({"error": place["error"]})
    if body.get("error") or body.get("object") == "error" or body.get("type") == "error":
        return _endpoint_error(body)
    own = body.get("base_resp")  # MiniMax's
    if isinstance(own, Mapping) and own.get("status_code"):
        return _endpoint_error({"error": {"code": own["status_code"], **own}})
    if choices is not None or "usage" in body or isinstance(body.get("message"), Mapping):
        return None
    words = ("detail", "message", "msg", "errors", "error_msg", "reason")
    return _endpoint_error(body) if any(body.get(w) for w in words) else None


def _endpoint_error(body: Mapping[str, Any]) -> ModelError:
    text = error_text(body)
    status = _status_in(body)
    error_class = classify_text(text) if status is None else classify_status(status, text)
    words = clean_text(message_of(body) or text)[:WORDS_MAX_CHARS]
    return ModelError(
        error_class, f"error in the answer: {words}", retry_after=wait_in_body(body), body=body
    )


def _status_in(body: Mapping[str, Any]) -> int | None:
    inner = body.get("error")
    for place in (inner, body):
        if isinstance(place, Mapping):
            for key in _STATUS_KEYS:
                said = str(place.get(key))
                if said.isdecimal() and 400 <= (status := int(said[:4])) < 600:
                    return status
    return None


def _decoded(data: str, is_page: bool = False) -> Mapping[str, Any]:
    text = data.strip()
    if not text:
        raise ModelError("unknown", "answered with nothing")
    if is_page or text[:1] == "<":
        raise ModelError(
            "unknown",
            "answered with a web page, not with JSON: is the base URL right? Most end in /v1",
        )
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        # What is not JSON at all is a line about what went wrong.
        words = "" if text[:1] in "{[" else f": {clean_text(text[:80])}"
        raise ModelError(
            classify_text(words), f"answered with something that is not valid JSON{words}"
        ) from None
    if isinstance(body, list) and body and isinstance(body[0], Mapping):
        body = body[0]
    if not isinstance(body, Mapping):
        raise ModelError("unknown", "answered with JSON that is not a chat completion")
    return body


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "{}")
    except (ValueError, RecursionError):
        return False
    return True

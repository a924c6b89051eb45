"""Answers that are none, crossed with every role that a model has: exchanges made by rule.

Each bad answer comes once, before good ones. Where asking again may help, the run ends well with
one more request; where it cannot, the call has failed after one. Never does the run go on with what
the bad answer held, and none takes longer or costs more than its bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tests.endpoints.entry import Exchange

FORM = (
    "SUMMARY: this is one sentence about it\nCLAIM: it is forty-two\nEVIDENCE: calc.py:1\n"
    "CONFIDENCE: 0.9\nRESULT: the answer is forty-two and nothing else\nNEXT_STEP: none"
)
PLAN = 'a = look("x")\njoin(a)\n'
JOIN = "Action: Finish(forty-two)"
VERDICT = (
    '{"verdict": "trusted", "confidence": 0.9, "reason": "fine", "next_step": "none", '
    '"answer": "forty-two", "disagreements": []}'
)
BLOCK = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Bad:
    """An answer that is none, or looks so: is it used, asked for again, or final?"""

    reply: dict[str, Any]
    comes_to: Literal["again", "final", "used"]
    pool: dict[str, Any] | None = None
    of_calls: bool = False
    """It is about tool calls: for agents only."""


@dataclass(frozen=True)
class Role:
    """A call of one role: the replies before it, its good reply, and what the run comes to."""

    request: dict[str, Any]
    good: dict[str, Any]
    before: tuple[dict[str, Any], ...] = ()
    after: tuple[dict[str, Any], ...] = ()
    workflow: str = "DagWorkflow"
    when: str | None = None
    """What only this role's prompts hold, where others call the model meanwhile."""
    note: str | None = None
    """What the run says when it goes on without this call's answer."""

    @property
    def requests(self) -> int:
        return len(self.before) + 1 + len(self.after)


def _calls(*ids: str) -> list[dict[str, Any]]:
    return [{"name": "f", "args": {"x": n}, "id": id} for n, id in enumerate(ids, 1)]


ERROR = {"error": {"message": "the engine has died", "type": "server_error", "code": 500}}
BAD: dict[str, Bad] = {
    "a web page": Bad({"type": "text/html", "body": "<html>It works!</html>"}, "again"),
    "nothing": Bad({"body": ""}, "again"),
    "nothing as a stream": Bad({"type": "text/event-stream", "body": ""}, "again"),
    "an error with status 200": Bad({"body": ERROR}, "again"),
    "an error as the first event": Bad({"events": [ERROR], "is_done": False}, "again"),
    "a login page": Bad(
        {"status": 302, "headers": {"location": "/x/login"}, "body": ""}, "final", pool={}
    ),
    "a hundred megabytes": Bad({"chunks": [{"data": BLOCK, "times": 1_600_000}]}, "final"),
    "one byte each moment": Bad(
        {"chunks": [{"data": " ", "times": 1_000}], "gap": 0.1},
        "again",
        pool={"timeout_seconds": 2},
    ),
    "a picture by its label": Bad({"type": "image/png"}, "used"),
    "another model's name": Bad({"model": "another-model"}, "used"),
    "two calls with one id": Bad(
        {"text": None, "calls": _calls("same", "same")}, "used", of_calls=True
    ),
    "a call after the end": Bad(
        {
            "events": [
                {"delta": {"content": "I call."}, "finish": "stop"},
                {
                    "delta": {"tool_calls": [{"index": 0, **_calls("a")[0]}]},
                    "usage": {"prompt_tokens": 50, "completion_tokens": 20},
                },
            ]
        },
        "used",
        of_calls=True,
    ),
}
ROLES: dict[str, Role] = {
    "an ask": Role(
        {"plan": {"tasks": [{"id": "a", "ask": "Hi"}], "answer": "${a}"}},
        {"text": "forty-two"},
    ),
    "a planner that streams": Role({"goal": "Look"}, {"stream": [PLAN]}, after=({"text": JOIN},)),
    "a planner": Role({"goal": "Look", "stream": False}, {"text": PLAN}, after=({"text": JOIN},)),
    "a joiner": Role({"goal": "Look", "stream": False}, {"text": JOIN}, before=({"text": PLAN},)),
    "an agent": Role(
        {"agent": {"id": "ag", "tools": ["f"]}, "task": "f"},
        {"text": FORM},
        workflow="AgentWorkflow",
    ),
    "a judge": Role(
        {"team": {"members": [{"id": "A"}]}, "task": "rate", "rounds": 0, "retry_rounds": 0},
        {"text": VERDICT},
        before=({"text": FORM},),
        workflow="TeamWorkflow",
        when="verdict",
        note="the formula stands",
    ),
    "a summary": Role(
        {"agent": {"id": "ag"}, "task": "read", "context": "the quick brown fox. " * 2_000},
        {"text": "forty-two foxes"},
        after=({"text": FORM},),
        workflow="AgentWorkflow",
        when="Sum up the text",
        note="its summary failed",
    ),
}


def crossed() -> Iterator[Exchange]:
    """Every bad answer in the place of every role's."""
    for what, bad in BAD.items():
        for who, role in ROLES.items():
            if not bad.of_calls or who == "an agent":
                yield _exchange(f"{what} for {who}", bad, role)


def _exchange(name: str, bad: Bad, role: Role) -> Exchange:
    own = {} if role.when is None else {"when": role.when}
    is_label = bad.comes_to == "used" and not bad.of_calls
    first = {**own, **_labelled(role.good, bad.reply)} if is_label else {**own, **bad.reply}
    then = [] if is_label else [{**own, **role.good}]
    expect: dict[str, Any] = {"status": "completed"}
    more = 0 if is_label else 1
    if bad.comes_to == "final":
        then = []
        if role.note is None:
            more, expect = -len(role.after), {"status": {"not": "completed"}}
        else:
            more, expect = 0, {"status": "completed", "notes[0]": {"contains": role.note}}
    return Exchange.model_validate(
        {
            "kind": "crossed",
            "name": name,
            "workflow": role.workflow,
            "request": role.request,
            "replies": [*role.before, first, *then, *role.after],
            "pool": bad.pool,
            "expect": expect,
            "then": {"requests": role.requests + more, "seconds": {"at_most": 25}},
        }
    )


def _labelled(good: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    """A good reply under a wrong label or name."""
    if "model" not in reply:
        return good | reply
    message = {"role": "assistant", "content": good.get("text") or "".join(good["stream"])}
    usage = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"body": {**reply, "choices": [choice], "usage": usage}}

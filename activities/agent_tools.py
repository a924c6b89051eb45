"""The tools that an agent is offered, and its calls of them as they were meant."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from planloom.activities.models.chat import ChatReply
from planloom.activities.models.tool_calls import ID_CHARS, ToolCall
from planloom.activities.storage.blobs import BlobStore
from planloom.planner.compile.tool_arguments import Arguments, read_arguments
from planloom.planner.contract.jobs import AgentCall
from planloom.planner.contract.names import ASK_HUMAN, READ_OUTPUT
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.values import JsonValue, Stored
from planloom.planner.syntax.tool_calls import called_name, wire_name, wire_names
from planloom.planner.syntax.written_calls import written_calls

NOT_CALLED = (
    "your answer holds a tool call written as text, which was not run: call the tool itself, or "
    "give your answer without it"
)
FINGERPRINT_MAX_CHARS = 200
"""A longer one is a hash: equal for equal calls only."""
_PSEUDO: dict[str, dict[str, Any]] = {
    ASK_HUMAN: {
        "description": "Ask the person who started this; use it only when you cannot go on.",
        "properties": {"question": {"type": "string"}},
        "required": ["question"],
    },
    READ_OUTPUT: {
        "description": "Read a part of a large value that was shown cut.",
        "properties": {
            "id": {"type": "string", "description": "its name"},
            "start": {"type": "integer"},
            "end": {"type": "integer"},
        },
        "required": ["id"],
    },
}


@dataclass(frozen=True, slots=True)
class ReadCall:
    """A call as the model meant it. `name` is the tool's own, else what the model wrote."""

    call: ToolCall
    name: str
    arguments: Arguments

    def for_history(self, wire: Mapping[str, str]) -> ToolCall:
        """The call as every server takes it back: its name and arguments as they should be."""
        names = {own: written for written, own in wire.items()}
        name = names.get(self.name, wire_name(self.name))
        return replace(self.call, name=name, arguments=self.arguments.text)


class OfferedTools:
    """The tools of one turn, by the names that servers and models see."""

    def __init__(self, specs: Sequence[ToolSpec], allowed: Sequence[str]) -> None:
        self._specs = {s.name: s for s in specs if s.name in allowed and s.name != "ask"}
        self._pseudo = {name: made for name, made in _PSEUDO.items() if name in allowed}
        self._wire = wire_names([*self._specs, *self._pseudo])

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """As the chat protocol wants them."""
        return [_definition(wire, *self._described(name)) for wire, name in self._wire.items()]

    def _described(self, name: str) -> tuple[str, dict[str, Any]]:
        spec = self._specs.get(name)
        if spec is not None:
            return spec.description, dict(spec.parameters)
        made = self._pseudo[name]
        schema = {"type": "object", **{k: made[k] for k in ("properties", "required")}}
        return made["description"], schema

    def read(self, reply: ChatReply) -> list[ReadCall]:
        """The calls of an answer, as they were meant."""
        return [self._read(call, is_cut_off=reply.is_cut_off) for call in reply.tool_calls]

    def _read(self, call: ToolCall, *, is_cut_off: bool) -> ReadCall:
        wire = called_name(call.name, self._wire)
        name = called_name(call.name, self._wire.values()) if wire is None else self._wire[wire]
        schema = self._described(name)[1] if name is not None else None
        arguments = read_arguments(call.arguments, schema, is_cut_off=is_cut_off)
        return ReadCall(call, name or wire_name(call.name), arguments)

    def with_written_calls(self, reply: ChatReply) -> tuple[ChatReply, str | None]:
        """The answer with a call that was written as text made one, or what is wrong with it.

        A call counts when the answer consists of nothing else, and its tool has no side effects:
        those are never run on a guess.
        """
        names = [*self._wire, *self._wire.values()]
        written = written_calls(reply.text, names) if names and not reply.tool_calls else None
        if written is None or reply.is_cut_off:
            return reply, None
        own = [self._wire.get(call.name, call.name) for call in written.calls]
        acts = any(name in self._specs and self._specs[name].side_effects for name in own)
        if acts or not written.is_whole:
            return reply, NOT_CALLED
        made = [
            ToolCall(uuid.uuid4().hex[:ID_CHARS], call.name, json.dumps(call.args))
            for call in written.calls
        ]
        return replace(reply, text="", tool_calls=tuple(made)), None

    def message_of(self, reply: ChatReply, calls: Sequence[ReadCall]) -> dict[str, Any]:
        """The answer as a message of the conversation, its calls as every server takes them."""
        kept = tuple(call.for_history(self._wire) for call in calls)
        return replace(reply, tool_calls=kept).as_message()


async def agent_call(read: ReadCall, blobs: BlobStore) -> AgentCall:
    """The call as the workflow carries it: large arguments, and `${`, behind references."""
    call, name, args = read.call, read.name, read.arguments.args
    if read.arguments.problem is not None:
        mark = _fingerprint(name, call.arguments)
        return AgentCall(id=call.id, name=name, fingerprint=mark, problem=read.arguments.problem)
    kept: dict[str, JsonValue] = {}
    inputs: dict[str, Stored] = {}
    for n, (key, value) in enumerate(args.items()):
        stored = await blobs.store_value(value)
        if stored.is_inline and "${" not in json.dumps(value):
            kept[key] = value
        else:
            kept[key], inputs[f"arg{n}"] = f"${{arg{n}}}", stored
    mark = _fingerprint(name, json.dumps(args, sort_keys=True))
    return AgentCall(id=call.id, name=name, args=kept, inputs=inputs, fingerprint=mark)


def _fingerprint(name: str, arguments: str) -> str:
    if len(arguments) > FINGERPRINT_MAX_CHARS:
        arguments = hashlib.sha256(arguments.encode("utf-8", "replace")).hexdigest()
    return f"{name} {arguments}"


def _definition(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    schema = parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }

"""Side effects once: a claim is written before a tool acts, its result after (DESIGN §7).

Claims lie in the store that all workers share, beside the blobs. A claim is a conditional write: of
many attempts that make it at once, exactly one succeeds.

A claim has generations. An attempt that knows that it did nothing (the tool said so) releases its
generation, and a later attempt makes the next one. Nothing is deleted while the server knows the
workflow (`planloom gc`), so a later attempt can tell "was released" from "was never written here".
That difference decides what an attempt after the first may do when it finds no open claim:

- Every earlier attempt is known to have done nothing, from released generations or from what the
  retry itself carries (`nothing_done`, in the activity's heartbeat details): it may act (`new`).
- Otherwise an attempt before may have acted and kept its claim in a store that this worker cannot
  see, or died before it made one. Nobody can know which (`unseen`).

An attempt that finds the result returns it. For `open` and `unseen`, `run_tool` asks the tool's
`check`, or the task ends `unknown`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from planloom.activities.storage.backends import (
    Backend,
    BlobError,
    PassingError,
    open_backend,
    short_reason,
)
from planloom.activities.storage.json_values import json_text
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.values import JsonValue

NOTE_MAX_CHARS = 1000
GENERATIONS_MAX = 10_000
"""Each is an attempt that ended knowing it did nothing; retry policies end long before."""


@dataclass(frozen=True)
class Claim:
    """What an attempt found or made.

    `new`: act now. `unseen`: the claim was made, but an earlier attempt may have acted. `open`:
    another attempt holds it, and may have acted. `done`: here is the result.
    """

    id: str
    state: Literal["new", "unseen", "open", "done"]
    generation: int = 0
    result: TaskOutput | None = None
    note: str = ""
    """For an open claim: how the attempt before ended, when it could still say so."""

    @property
    def is_held(self) -> bool:
        """The attempt that asked has made it."""
        return self.state in ("new", "unseen")


class _Holder(BaseModel):
    """The content of a claim, and of its release: who wrote it."""

    workflow: str = ""
    """The workflow id: while the server knows it, the claim is kept."""
    execution: str = ""
    """One scheduled activity with all its attempts. A task that is run again has another one."""
    attempt: int = 0
    """In a release: this attempt and all before it did nothing."""
    tool: str = ""
    nonce: str = ""
    pid: int = 0
    at: float = 0.0


def claim_id(key: str, tool: str, args: JsonValue) -> str:
    """One act: the task's idempotency key, the tool, and the arguments (a fallback has others)."""
    text = json.dumps([key, tool, args], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class ClaimStore:
    """Claims in a backend, each under `<aa>/`, the first two characters of its id.

    `<id>.<generation>.claim`, then `.released` or `.note` of that generation; `<id>.result`.

    Blocking. When a call returns, a power cut loses nothing of it: a claim that was forgotten would
    let an act happen twice. Every method raises `BlobError` when the store cannot be used.
    """

    def __init__(self, location: str | Path | Backend) -> None:
        self._backend = open_backend(location) if isinstance(location, str | Path) else location

    @property
    def place(self) -> str:
        return self._backend.place

    def claim(
        self,
        claim: str,
        *,
        tool: str,
        attempt: int,
        workflow: str = "",
        execution: str = "",
        nothing_done: int = 0,
        nonce: str = "",
    ) -> Claim:
        """Record the claim unless another attempt holds it.

        `execution` names one scheduled activity, whose attempts are numbered from 1. Attempts 1 to
        `nothing_done` of it are known to have done nothing. Who calls again after a failure gives
        the same `nonce`: the first call may have made the claim before it failed.
        """
        mine = _Holder(
            workflow=workflow,
            execution=execution,
            attempt=attempt,
            tool=tool,
            nonce=nonce or uuid.uuid4().hex,
            pid=os.getpid(),
            at=time.time(),
        )
        with self._named(claim):
            return self._claim(claim, mine, nothing_done)

    def _claim(self, claim: str, mine: _Holder, nothing_done: int) -> Claim:
        if (result := self._result(claim)) is not None:
            return Claim(claim, "done", result=result)
        for generation in range(1, GENERATIONS_MAX):
            held = self._make(claim, generation, mine)
            if held is mine:
                # Attempts 1 to `nothing_done` are accounted for; the one before this must be too.
                is_first = nothing_done >= mine.attempt - 1
                return Claim(claim, "new" if is_first else "unseen", generation)
            released = self._holder(f"{claim}.{generation}.released")
            if released is None and _is_covered(held, mine, nothing_done):
                self._release(claim, generation, held)  # its release was lost, its word was not
            elif released is None:
                return self._held_by_another(claim, generation)
            elif released.execution == mine.execution:
                nothing_done = max(nothing_done, released.attempt)
        raise BlobError(f"it has {GENERATIONS_MAX:,} generations")

    def _make(self, claim: str, generation: int, mine: _Holder) -> _Holder:
        """Make a generation; returns who holds it now."""
        name = f"{claim}.{generation}.claim"
        if self._backend.create(name, mine.model_dump_json().encode()):
            return mine
        held = self._holder(name)
        # Over a network the answer to a write may be lost; its repetition is refused then.
        is_mine = held is not None and held.nonce == mine.nonce
        return mine if is_mine else held or _Holder()

    def _held_by_another(self, claim: str, generation: int) -> Claim:
        # The result may have come between the two looks.
        if (result := self._result(claim)) is not None:
            return Claim(claim, "done", result=result)
        note = self._backend.get(f"{claim}.{generation}.note") or b""
        return Claim(claim, "open", generation, note=note.decode("utf-8", "replace"))

    def finish(self, claim: Claim, result: TaskOutput) -> None:
        """Record the result of a claimed act, whole or not at all."""
        with self._named(claim.id):
            content = json_text(result.model_dump(mode="json")).encode("utf-8", "replace")
            self._backend.put(f"{claim.id}.result", content)

    def leave(self, claim: Claim, note: str) -> None:
        """Keep a claim open and say how its attempt ended."""
        with self._named(claim.id):
            content = note[:NOTE_MAX_CHARS].encode("utf-8", "replace")
            self._backend.put(f"{claim.id}.{claim.generation}.note", content)

    def release(self, claim: Claim, *, attempt: int, execution: str = "") -> None:
        """Attempts 1 to `attempt` did nothing: the next one may act."""
        with self._named(claim.id):
            holder = _Holder(execution=execution, attempt=attempt, at=time.time())
            self._release(claim.id, claim.generation, holder)

    def _release(self, claim: str, generation: int, holder: _Holder) -> None:
        self._backend.create(f"{claim}.{generation}.released", holder.model_dump_json().encode())

    def _holder(self, name: str) -> _Holder | None:
        content = self._backend.get(name)
        return None if content is None else _Holder.model_validate_json(content)

    def user(self, name: str) -> tuple[str, str]:
        """The workflow id and run id that a `.claim` was made for.

        Raises:
            ValueError: it cannot be read.
        """
        holder = self._holder(name) or _Holder()
        return holder.workflow, holder.execution.partition("/")[0]

    def _result(self, claim: str) -> TaskOutput | None:
        content = self._backend.get(f"{claim}.result")
        return None if content is None else TaskOutput.model_validate_json(content)

    @contextlib.contextmanager
    def _named(self, claim: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise PassingError(
                f"claim {claim[:12]}… cannot be read or written in {self.place}: "
                f"{short_reason(error)}"
            ) from error


def _is_covered(held: _Holder, mine: _Holder, nothing_done: int) -> bool:
    """The holder is an earlier attempt of the same activity that is known to have done nothing."""
    return held.execution == mine.execution and held.attempt <= min(nothing_done, mine.attempt - 1)

"""Side effects once: a claim is written before a tool acts, its result after (DESIGN §7).

An attempt that finds the result returns it. An attempt that finds a claim without a result cannot
know whether the act was done: `run_tool` then asks the tool's `check`, or the task ends `unknown`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from planloom.activities.storage.json_values import json_text
from planloom.planner.contract.jobs import TaskOutput
from planloom.planner.language.values import JsonValue


@dataclass(frozen=True)
class Claim:
    """What was found or made: `new` (act now), `open` (acted or not, unknown) or `done`."""

    id: str
    state: Literal["new", "open", "done"]
    result: TaskOutput | None = None
    note: str = ""
    """For an open claim: how the attempt before ended, when it could still say so."""


def claim_id(key: str, tool: str, args: JsonValue) -> str:
    """One act: the task's idempotency key, the tool, and the arguments (a fallback has others)."""
    text = json.dumps([key, tool, args], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class ClaimStore:
    """Claims as files: `<folder>/<aa>/<id>.claim`, and `<id>.result` when the act is done.

    Blocking, with fsync: a claim that a power cut forgets would let an act happen twice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, claim: str, suffix: str) -> Path:
        return self._folder / claim[:2] / f"{claim}.{suffix}"

    def claim(self, claim: str, *, tool: str, attempt: int) -> Claim:
        """Record the claim unless there is one; of many who try at once exactly one gets `new`."""
        if (result := self._result(claim)) is not None:
            return Claim(claim, "done", result)
        path = self._path(claim, "claim")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            # The result may have come between the two looks.
            if (result := self._result(claim)) is not None:
                return Claim(claim, "done", result)
            return Claim(claim, "open", note=self._note(claim))
        facts = {"tool": tool, "attempt": attempt, "pid": os.getpid(), "at": time.time()}
        _write_durably(descriptor, json.dumps(facts))
        _sync_folder(path.parent)
        return Claim(claim, "new")

    def finish(self, claim: str, result: TaskOutput) -> None:
        """Record the result of a claimed act, whole or not at all."""
        path = self._path(claim, "result")
        part = path.with_suffix(f".{os.getpid()}.part")
        descriptor = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        _write_durably(descriptor, json_text(result.model_dump(mode="json")))
        part.replace(path)
        _sync_folder(path.parent)

    def leave(self, claim: str, note: str) -> None:
        """Keep a claim open and say how its attempt ended."""
        self._path(claim, "note").write_text(note[:1000], encoding="utf-8")

    def release(self, claim: str) -> None:
        """Nothing was done: the next attempt may act."""
        self._path(claim, "note").unlink(missing_ok=True)
        self._path(claim, "claim").unlink(missing_ok=True)

    def _result(self, claim: str) -> TaskOutput | None:
        try:
            content = self._path(claim, "result").read_bytes()
        except FileNotFoundError:
            return None
        return TaskOutput.model_validate_json(content)

    def _note(self, claim: str) -> str:
        try:
            return self._path(claim, "note").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""


def _write_durably(descriptor: int, text: str) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What a key does while a run is watched: approve, reject, answer, edit, raise, pause."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from planloom import PlanloomError, Run
from planloom.console.live_keys import ask_line
from planloom.console.mistakes import UsageError
from planloom.planner.contract.results import OpenWait, Progress
from planloom.planner.syntax.json_text import json_or_text

_ASKS = {"raise_budget": "b", "complete_task": "n"}
_WORDS = {
    "a": "[a]pprove",
    "r": "[r]eject",
    "e": "[e]dit",
    "n": "a[n]swer",
    "b": "raise [b]udget",
    "p": "[p]ause",
    "s": "re[s]ume",
    "q": "[q]uit watching",
}


def keys_for(now: Progress) -> list[str]:
    """The keys that do something now."""
    keys: list[str] = []
    for wait in now.waits:
        if wait.update in ("approve_plan", "approve_task"):
            keys += ["a", "r"]
        if wait.update == "approve_plan":
            keys.append("e")
        keys += [_ASKS[wait.update]] if wait.update in _ASKS else []
    keys += ["s" if now.status == "paused" else "p", "q"]
    return list(dict.fromkeys(keys))


def key_words(now: Progress) -> list[str]:
    """The same, as they are shown."""
    return [_WORDS[key] for key in keys_for(now)]


async def act(run: Run, now: Progress, key: str) -> str:
    """Do what a key stands for, asking what else is needed; what the run said of it."""
    if key not in keys_for(now):
        return ""
    try:
        return await _act(run, now, key)
    except (PlanloomError, UsageError) as error:  # also a worker that is away for a moment
        return f"not done: {error}"
    except EOFError:
        return "not done"


async def _act(run: Run, now: Progress, key: str) -> str:
    match key:
        case "p" | "s":
            return await _send(run, "pause" if key == "p" else "resume", {})
        case "a":
            wait = await _which(now, "approve_plan", "approve_task")
            return await _send(run, wait.update or "", dict(wait.input))
        case "r":
            wait = await _which(now, "approve_plan", "approve_task")
            reason = await ask_line("Why? (recorded; an empty line: no reason) ")
            if wait.update == "approve_task":
                return await _send(
                    run, "approve_task", {**wait.input, "approve": False, "note": reason}
                )
            return await _send(run, "reject_plan", {**wait.input, "reason": reason})
        case "n":
            wait = await _which(now, "complete_task")
            text = await ask_line(f"{wait.what}\nYour answer, as text or JSON: ")
            return await _send(run, "complete_task", {**wait.input, "output": json_or_text(text)})
        case "b":
            wait = await _which(now, "raise_budget")
            caps = {}
            for name, least in wait.input.items():
                text = await ask_line(f"New cap on {name} (an empty line: {least}): ")
                caps[name] = json_or_text(text) if text else least
            return await _send(run, "raise_budget", caps)
        case "e":
            return await _edit(run)
    return ""


async def _edit(run: Run) -> str:
    from planloom.console.documents import yaml_text
    from planloom.console.editing import edited

    revision, document = (await run.progress()).revision, await run.query("plan")
    # Ctrl-C in the editor is the editor's.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        plan = await asyncio.to_thread(edited, yaml_text(document), run.id)
    finally:
        signal.signal(signal.SIGINT, before)
    return await _send(run, "edit_plan", {"revision": revision, "plan": plan})


async def _which(now: Progress, *updates: str) -> OpenWait:
    """The wait that is meant: the only one, or the one that the person names."""
    waits = [w for w in now.waits if w.update in updates]
    if len(waits) == 1:
        return waits[0]
    listed = "\n".join(f"{n} {w.what}" for n, w in enumerate(waits, 1))
    text = await ask_line(f"{listed}\nWhich (1 to {len(waits)})? ")
    if not text.isdigit() or not 1 <= int(text) <= len(waits):
        raise UsageError(f'"{text}" is not one of them')
    return waits[int(text) - 1]


async def _send(run: Run, update: str, payload: dict[str, Any]) -> str:
    given = {k: v for k, v in payload.items() if v not in ("", None)}
    return (await run.update(update, given)).message

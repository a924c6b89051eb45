"""`planloom watch` on a real terminal: a person approves and answers with keys."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys

from tests.cli.test_cli import planloom_cli
from tests.support.harness import Planloom

PLAN = {
    "tasks": [
        {"id": "a", "tool": "calculate", "args": {"expression": "6 * 7"}},
        {"id": "q", "human": "Is ${a} right?"},
    ],
    "answer": "${q}",
}


class Terminal:
    """A program on a pseudo terminal."""

    def __init__(
        self, planloom: Planloom, *arguments: str, term: str = "xterm", **env: str
    ) -> None:
        self.seen = ""
        self._planloom, self._arguments, self._term = planloom, arguments, term
        self._env = env

    async def start(self) -> None:
        self._master, child = pty.openpty()
        environment = {**os.environ, **self._planloom.env, "TERM": self._term, "COLUMNS": "70"}
        environment |= {"LINES": "30", "NO_COLOR": "1", **self._env}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "planloom.cli", *self._arguments),
            cwd=self._planloom.folder,
            env=environment,
            stdin=child,
            stdout=child,
            stderr=child,
            # A suite that a shell runs in the background inherits an ignored SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(child)

    async def until(self, words: str) -> None:
        """Read until the words have been shown."""
        while words not in self.seen:
            self.seen += await asyncio.wait_for(asyncio.to_thread(self._read), 60)

    def _read(self) -> str:
        try:
            text = os.read(self._master, 4096).decode(errors="replace")
        except OSError:  # the program has ended
            raise AssertionError(f"it ended before that: {self.seen[-2000:]}") from None
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    async def end(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), 60)
        os.close(self._master)
        return code


async def test_a_person_approves_and_answers_with_keys(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": PLAN, "approval": "plan"}, id="keyed")
        terminal = Terminal(planloom, "watch", "keyed")
        await terminal.start()
        await terminal.until("[a]pprove")
        assert "planloom approve keyed" in terminal.seen
        terminal.press("a")
        await terminal.until("a[n]swer")
        assert "revision 1 approved" in terminal.seen
        terminal.press("n")
        await terminal.until("as text or JSON:")
        terminal.press("it is\n")
        await terminal.until("completed")
        assert await terminal.end() == 0
        result = await planloom.result(handle)
    assert result["answer"] == "it is"


async def test_leaving_is_no_error_and_the_run_goes_on(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": PLAN}, id="left")
        terminal = Terminal(planloom, "watch", "left")
        await terminal.start()
        await terminal.until("[q]uit")
        terminal.press("q")
        await terminal.until("the run continues")
        assert await terminal.end() == 130
        assert "error" not in terminal.seen
        await planloom.until(handle, lambda p: p.awaiting == "human")
        await handle.cancel()


async def test_ctrl_c_at_a_question_leaves_at_once_and_a_missing_editor_does_not(
    planloom: Planloom,
) -> None:
    """It waited for a thread that read the line, and so for Enter."""
    async with planloom.worker():
        handle = await planloom.start({"plan": PLAN, "approval": "plan"}, id="asked")
        terminal = Terminal(planloom, "watch", "asked", EDITOR="/no/such/editor")
        await terminal.start()
        await terminal.until("[e]dit")
        terminal.press("e")
        await terminal.until("nothing is sent")
        assert "/no/such/editor cannot be started" in terminal.seen
        terminal.press("a")
        await terminal.until("a[n]swer")
        terminal.press("n")
        await terminal.until("as text or JSON:")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.end() == 130
        await handle.cancel()


async def test_a_dumb_terminal_and_a_pipe_get_lines_as_things_happen(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await planloom.start({"plan": PLAN}, id="dumb")
        terminal = Terminal(planloom, "watch", "dumb", term="dumb")
        await terminal.start()
        await terminal.until("planloom complete dumb q")
        await handle.execute_update("complete_task", {"id": "q", "output": "yes"})
        assert await terminal.end() == 0
        lines = await planloom_cli(planloom, "watch", "dumb")
        objects = await planloom_cli(planloom, "watch", "dumb", "--json")
    assert "waiting for human: q: Is 42 right?" in terminal.seen
    assert "completed: 2 succeeded" in lines.out, "a pipe gets them: they went to standard error"
    assert lines.err == ""
    assert json.loads(objects.out.splitlines()[-1])["status"] == "completed"

"""A stranger's first ten minutes, timed: `make stranger`.

A clean clone, then every command block of the README's demo and of two tutorials in order, as they
stand on the page. A block that serves until Ctrl-C runs in a terminal beside the other.
Not in `make test`: it needs minutes, the network for packages, and the development server's port.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import CHECKOUT, Block, blocks_of

DEMO_SECONDS, ALL_SECONDS = 180.0, 600.0
COMMAND_SECONDS = 300.0
SERVES = re.compile(r"^(\S*/)?planloom dev\b", re.M)
PORT = 7233
PATH = (
    # page, how many of its blocks, the folder of its commands, words that its output must hold
    ("README.md", 1, "checkout", ["completed", "The wettest day was 2015-03-15 with 55.9 mm"]),
    ("docs/tutorials/own-tool-and-plan.md", None, "own", ["573.6 euros", "1147.2 euros"]),
    (
        "docs/tutorials/without-a-key.md",
        None,
        "own",
        ["2014 was the wettest year", "planloom approve warm", "35.6 °C", "wrote warm.html"],
    ),
)


@dataclass
class Terminal:
    """A shell's folder and variables, kept from block to block as in a terminal."""

    folder: Path
    variables: dict[str, str]
    server: subprocess.Popen[bytes] | None = None
    said: list[str] = field(default_factory=list)

    def type(self, block: Block) -> None:
        """Run a block.

        Raises:
            SystemExit: a command failed, or took too long.
        """
        if SERVES.search(block.text):
            self._serve(block)
            return
        kept = self.folder / ".variables"
        script = f"set -e\n{block.text}\nenv -0 > {kept}\npwd > {kept}.folder"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        self.said.append(done.stdout)
        if done.returncode:
            raise SystemExit(
                f"line {block.line} of {block.page}: failed:\n{block.text}\n{done.stdout}"
            )
        pairs = kept.read_text().split("\0")
        self.variables = dict(p.split("=", 1) for p in pairs if "=" in p)

    def _serve(self, block: Block) -> None:
        """Start what serves, ending what served before, as Ctrl-C does."""
        self.interrupt()
        log = self.folder / "server.log"
        with log.open("wb") as file:
            self.server = subprocess.Popen(
                ["bash", "-c", f"exec {block.text.strip()}"],
                cwd=self.folder,
                env=self.variables | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + COMMAND_SECONDS
        while "is polling" not in (shown := log.read_text(errors="replace")):
            if self.server.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"line {block.line} of {block.page}: does not serve:\n{shown}")
            time.sleep(0.1)
        if "WARNING" in shown or "warning: .planloom" in shown:
            raise SystemExit(f"line {block.line} of {block.page}: begins with a warning:\n{shown}")
        self.said.append(shown)

    def interrupt(self) -> None:
        if self.server is not None and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGINT)
            self.server.wait(60)
        self.server = None


def steps(checkout: Path) -> list[tuple[Block, str, list[str]]]:
    """The blocks of the path, each with its folder; the last one of a page with what was said."""
    found = []
    for page, count, folder, words in PATH:
        blocks = [b for b in blocks_of(checkout / page) if b.language == "bash"][:count]
        found += [(b, folder, words if b is blocks[-1] else []) for b in blocks]
    return found


def first_line(block: Block) -> str:
    lines = [line for line in block.text.splitlines() if line.strip()]
    return lines[0] + (" …" if len(lines) > 1 else "")


def walk(top: Path) -> int:
    """Every step with its seconds; 1 when it took longer than promised."""
    began = time.monotonic()
    checkout = top / "planloom"
    subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(checkout)], check=True)
    shown(began, "git clone")
    own = top / "own"
    own.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PLANLOOM_", "OPENAI_"))}
    # A stranger has no environment of ours on the path.
    kept["PATH"] = ":".join(p for p in kept["PATH"].split(":") if ".venv" not in p)
    kept |= {"HOME": str(top / "home"), "NO_COLOR": "1"}
    terminal, demo = Terminal(checkout, kept), 0.0
    try:
        for block, folder, words in steps(checkout):
            at = time.monotonic()
            # The tutorial puts the checkout's programs on the path before it changes the folder.
            is_in_checkout = folder == "checkout" or "$PWD" in block.text
            terminal.folder = checkout if is_in_checkout else own
            terminal.type(block)
            shown(at, f"{name_of_copy(block, checkout)}: {first_line(block)}")
            demo = demo or time.monotonic() - began
            for word in words:
                if word not in "\n".join(terminal.said):
                    raise SystemExit(
                        f"{block.page}: nothing said {word!r}:\n" + "\n".join(terminal.said)
                    )
    finally:
        terminal.interrupt()
    whole = time.monotonic() - began
    print(f"{demo:6.1f} s to the end of the demo (at most {DEMO_SECONDS:.0f})")
    print(f"{whole:6.1f} s in all (at most {ALL_SECONDS:.0f})")
    return int(demo > DEMO_SECONDS or whole > ALL_SECONDS)


def name_of_copy(block: Block, checkout: Path) -> str:
    return str(block.page.relative_to(checkout))


def shown(since: float, what: str) -> None:
    print(f"{time.monotonic() - since:6.1f} s  {what}", flush=True)


def main() -> int:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            print(f"error: something listens on port {PORT}", file=sys.stderr)
            print("hint: stop the other `planloom dev` first", file=sys.stderr)
            return 2
    top = Path(tempfile.mkdtemp(prefix="planloom-stranger-"))
    try:
        return walk(top)
    finally:
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

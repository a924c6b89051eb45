"""The same graphs of tools that do nothing, on DBOS, LangGraph and Prefect, in turns with ours.

Each peer has a process of its own, in an environment that is made once below `.cache/`, with its
database in a file; so has our server. How each is set up is told at the top of its program.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.engine import FUSED, chain_plan, fan_plan, wide
from benchmarks.harness import Bench, bench, interleaved
from benchmarks.report import CHECKOUT, Figure, Size, figure, ratio, tell

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
CHAIN, FAN_OUT = "chain", "fan-out"
PLANS = {CHAIN: chain_plan, FAN_OUT: fan_plan}
RUN_SECONDS = 300.0
FUSED_HERE, QUEUED_HERE = "Planloom, fused", "Planloom, queued"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program of this folder, how it is set up, and what its time ÷ ours must be."""

    program: str
    how: str
    arguments: tuple[str, ...] = ()
    at_least: float | None = None


IN_PROCESS = ("DBOS", "LangGraph", "LangGraph, its own pragmas")
PREFECT = "Prefect"
PEERS = {
    "DBOS": Peer(
        "dbos_peer.py",
        "asynchronous steps of one workflow, SQLite in WAL mode, synchronous=NORMAL",
        at_least=3,
    ),
    "LangGraph": Peer(
        "langgraph_peer.py",
        "durability=sync, SqliteSaver and invoke, WAL mode, synchronous=NORMAL",
        ("sync=NORMAL",),
        at_least=1,
    ),
    "LangGraph, its own pragmas": Peer(
        "langgraph_peer.py",
        "durability=sync, SqliteSaver and invoke, WAL mode, an fsync for each commit",
        ("sync=FULL",),
    ),
    PREFECT: Peer(
        "prefect_peer.py", "asynchronous tasks, a server on SQLite, results kept in files"
    ),
}


def python() -> Path:
    """The Python of the peers' environment, which is made if it is not there."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = CHECKOUT / ".cache" / "benchmarks" / f"peers-{digest}"
    program = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        tell(f"installing the peers into {folder.relative_to(CHECKOUT)}: a minute or two, once")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = ("-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r")
        subprocess.run([str(program), *install, str(REQUIREMENTS)], check=True)
        (folder / "ready").touch()
    return program


@dataclass(slots=True)
class Running:
    """A peer's process."""

    name: str
    process: asyncio.subprocess.Process

    async def timed(self, shape: str, count: int) -> float:
        """Seconds of one run, as the peer has measured them."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"shape": shape, "count": count}).encode() + b"\n")
        return float((await self.answer())["seconds"])

    async def answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        async with asyncio.timeout(RUN_SECONDS):
            while line := await self.process.stdout.readline():
                with contextlib.suppress(ValueError):  # whatever else it prints
                    found: dict[str, float] = json.loads(line)
                    return found
        raise RuntimeError(f"{self.name} ended without an answer")


@contextlib.asynccontextmanager
async def running(name: str, folder: Path) -> AsyncIterator[Running]:
    """The peer's process, ready for runs; its files go to the folder."""
    peer = PEERS[name]
    home = folder / name.replace(" ", "-").replace(",", "")
    home.mkdir()
    with (home / "errors.txt").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(str(python()), str(HERE / peer.program), str(home), *peer.arguments),
            cwd=home,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        try:
            found = Running(name, process)
            try:
                await found.answer()
            except (RuntimeError, TimeoutError) as error:
                last = (home / "errors.txt").read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"{name} did not start: {last}") from error
            yield found
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """The end of its input is the sign to stop what it has started."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(20):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def main(size: Size) -> list[Figure]:
    shapes = {CHAIN: size.pick(3, 30, 30), FAN_OUT: size.pick(5, 300, 300)}
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="planloom-peers-") as folder:
        async with bench(in_memory=False) as b:
            # Prefect by itself: its server is never idle, and would slow the others.
            for names, rounds in (
                (IN_PROCESS, size.pick(1, 5, 9)),
                ((PREFECT,), size.pick(1, 1, 3)),
            ):
                seconds = await _in_turns(b, Path(folder), names, shapes, rounds)
                for shape, count in shapes.items():
                    figures += _figures(f"{shape} of {count}", count, names, seconds[shape])
    return figures


async def _in_turns(
    b: Bench, folder: Path, names: Sequence[str], shapes: Mapping[str, int], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds by shape, and by whose they are: these peers' and ours."""
    found: dict[str, dict[str, list[float]]] = {}
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(running(name, folder)) for name in names]
        for shape, count in shapes.items():
            plan = PLANS[shape]
            ways: dict[str, Callable[[], Awaitable[float]]] = {
                FUSED_HERE: partial(b.timed, {"plan": plan(count, FUSED)}),
                QUEUED_HERE: partial(b.timed, wide(plan(count))),
                **{peer.name: partial(peer.timed, shape, count) for peer in peers},
            }
            times = await interleaved(rounds, *ways.values())
            found[shape] = dict(zip(ways, times, strict=True))
    return found


def _figures(
    what: str, count: int, names: Sequence[str], seconds: Mapping[str, list[float]]
) -> list[Figure]:
    ratios = [
        ratio(
            f"{what}: {name} ÷ {FUSED_HERE}",
            seconds[name],
            seconds[FUSED_HERE],
            at_least=PEERS[name].at_least,
            note=PEERS[name].how,
        )
        for name in names
    ]
    return ratios + [
        figure(f"{what}: {name}", [s / count * 1000 for s in times], "ms a task")
        for name, times in seconds.items()
        if name in names or PREFECT not in names
    ]

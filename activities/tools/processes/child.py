"""A child process: takes jobs as lines of JSON, one at a time, and answers each with a line.

It has no keys in its environment, limits on memory and file size, and a low priority. It ends when
its parent closes its input, also in the middle of a job.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import shutil
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from planloom.activities.tools.processes.limits import (
    FILE_MAX_BYTES,
    KEEP_MAX_BYTES,
    MEMORY_MAX_BYTES,
    Job,
    Refused,
)

NICE = 10
"""The worker's event loop goes first."""
TOO_LARGE = "it needs more memory than is allowed: select less, or aggregate in steps"


def set_limits() -> None:
    """Bound this process. A system that does not know a limit (macOS) goes without that one."""
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
        (resource.RLIMIT_FSIZE, FILE_MAX_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    with contextlib.suppress(OSError):
        os.nice(NICE)


def work_of(kind: str) -> Callable[[Job], Any]:
    """What does jobs of this kind; imported when first needed."""
    match kind:
        case "query":
            from planloom.activities.tools.processes.query import run_query

            return run_query
        case "search":
            from planloom.activities.tools.processes.search import run_search

            return run_search
        case "nap":  # for tests: a job that does not end by itself

            def nap(_: Job) -> None:
                threading.Event().wait()

            return nap
        case _:
            raise Refused(f'no job "{kind}"')


def answer(job: Job) -> dict[str, Any]:
    """The reply to one job: `value`, or `error` and its `reason`.

    `is_last` says that this process should not be used again.
    """
    try:
        return {"value": work_of(job["kind"])(job), "is_last": _is_grown()}
    except Refused as error:
        return {"error": str(error), "reason": "refused", "is_last": _is_grown()}
    except MemoryError:
        message = TOO_LARGE
    except OSError as error:
        message = f"{error.strerror or error}"
    except Exception as error:
        message = f"{type(error).__name__}: {error}"[:500]
    return {"error": message, "reason": "limit", "is_last": True}


def _is_grown() -> bool:
    return _largest_bytes() > KEEP_MAX_BYTES


def _largest_bytes() -> int:
    """The most memory that this process has had."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not `ru_maxrss`: on Linux a child begins with its parent's, and a worker may be large.
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        peak = next((line for line in status if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(peak.split()[1]) * 1024


def _lines(source: BinaryIO, into: queue.SimpleQueue[bytes]) -> None:
    for line in source:
        into.put(line)
    # The parent has gone, or is done with us: a query that still runs is for nobody.
    shutil.rmtree(os.environ.get("TMPDIR", ""), ignore_errors=True)
    os._exit(0)


def main() -> None:
    set_limits()
    # Whatever a library prints must not stand between two replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_lines, args=(sys.stdin.buffer, jobs), daemon=True).start()
    while True:
        reply = answer(json.loads(jobs.get()))
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


if __name__ == "__main__":
    main()

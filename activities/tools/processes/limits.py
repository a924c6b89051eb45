"""The limits of one job in a child process, and how a job is refused. Imported by both sides."""

from __future__ import annotations

from typing import Any

Job = dict[str, Any]
JOB_SECONDS = 60.0
"""From the moment a process takes the job; waiting for a free process is not counted."""
MEMORY_MAX_BYTES = 2_000_000_000
"""Address space of a child process, of which its libraries take 0.8 GB (and use a tenth)."""
FILE_MAX_BYTES = 1_000_000_000
"""The largest file that a child may write: rows of SQLite on their way, sorts that do not fit."""
REPLY_MAX_BYTES = 100_000_000
KEEP_MAX_BYTES = 300_000_000
"""A child that grew larger than this is not used again."""


class Refused(Exception):
    """A job that cannot be done; the message is for the model that asked."""

"""Lines of files that match a regular expression, with RE2 as DuckDB has it.

RE2 never backtracks, but its time also grows with the pattern's size once repetitions are written
out, so it runs where it can be stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from planloom.activities.tools.processes.limits import Job, Refused

_FIND = """
SELECT number, line FROM (
  SELECT unnest(string_split($1, chr(10))) AS line,
         generate_subscripts(string_split($1, chr(10)), 1) AS number
) WHERE regexp_matches(line, $2, 'i') ORDER BY number LIMIT $3
"""


def run_search(job: Job) -> list[dict[str, Any]]:
    """Matches (file, line, text) in order, at most `limit`; binary files are left out.

    Raises:
        Refused: the expression cannot be read.
    """
    connection = duckdb.connect(config={"memory_limit": "600MB", "threads": "1"})
    try:
        connection.execute("SELECT regexp_matches('', ?, 'i')", [job["pattern"]]).fetchall()
    except duckdb.Error as error:
        first = str(error).partition("\n")[0][:200]
        raise Refused(f"the regular expression cannot be read: {first}") from None
    found: list[dict[str, Any]] = []
    for path, shown in job["files"]:
        try:
            content = Path(path).read_bytes()
        except OSError:
            continue  # it has gone, or may not be read
        if b"\0" in content[:8192]:
            continue
        left = job["limit"] - len(found)
        text = content.decode("utf-8", "replace")
        rows = connection.execute(_FIND, [text, job["pattern"], left]).fetchall()
        found += [{"file": shown, "line": number, "text": line} for number, line in rows]
        if len(found) >= job["limit"]:
            break
    return found

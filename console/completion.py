"""What the shell's completion offers for a RUN."""

from __future__ import annotations

import asyncio

COMPLETION_SECONDS = 1.5
"""A shell that waits longer than this for a Tab feels broken."""
COMPLETION_RUNS_MAX = 50


def run_ids(incomplete: str) -> list[str]:
    """Ids of the newest runs that begin with `incomplete`."""
    from planloom import Client, PlanloomError
    from planloom.console.documents import settings_now
    from planloom.console.runs import list_runs
    from planloom.planner.contract.settings import SettingsError

    async def ask() -> list[str]:
        async with asyncio.timeout(COMPLETION_SECONDS):
            rows = await list_runs(
                await Client.connect(settings_now()), None, limit=COMPLETION_RUNS_MAX
            )
        return [row["id"] for row in rows]

    try:
        ids = asyncio.run(ask())
    except (PlanloomError, SettingsError, TimeoutError):
        return []
    return [id for id in ids if id.startswith(incomplete)]

"""An approved change: a word is replaced in documents, after a person has seen the difference.

python examples/approved_change/example.py            asks you before it changes anything
python examples/approved_change/example.py --yes      approves by itself
python examples/approved_change/example.py --goal     with a model: the same, said in words

It works on a copy of the decisions of this project, and leaves the originals alone.
"""

from __future__ import annotations

import difflib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planloom import ToolContext, local, tool
from planloom.planner.contract.results import OpenWait
from planloom.stream import RunEvent

HERE = Path(__file__).parent
DOCUMENTS = HERE.parents[1] / "docs" / "decisions"
PARAMS = {"old": "worker", "new": "runner"}
GOAL = (
    'Replace the word "worker" by "runner" in all documents of the workspace: look where it '
    "stands, draft the change, and apply it to these files."
)


def replaced(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{re.escape(old)}\b", new, text)


@tool
def draft_change(
    places: list[dict[str, Any]], old: str, new: str, context: ToolContext
) -> dict[str, Any]:
    """The files that a replacement of a whole word changes, and the difference as a diff.

    Args:
        places: where it was found, as search_text gives it
        old: the word as it is
        new: the word as it shall be
    """
    files, diff = [], []
    for name in dict.fromkeys(p["file"] for p in places):
        before = (context.workspace / name).read_text(encoding="utf-8")
        after = replaced(before, old, new)
        if after != before:
            files.append(name)
            lines = difflib.unified_diff(
                before.splitlines(), after.splitlines(), name, name, n=0, lineterm=""
            )
            diff.append("\n".join(lines))
    return {"files": files, "diff": "\n".join(diff)}


@tool(side_effects=True)
def apply_change(files: list[str], old: str, new: str, context: ToolContext) -> list[str]:
    """Replace a whole word in files of the workspace; gives the files that it changed.

    Args:
        files: the files
        old: the word as it is
        new: the word as it shall be
    """
    for name in files:
        path = context.workspace / name
        path.write_text(replaced(path.read_text(encoding="utf-8"), old, new), encoding="utf-8")
    return files


TOOLS: list[Callable[..., Any]] = [draft_change, apply_change]


def ask(wait: OpenWait) -> bool:
    """Ask the person at the terminal."""
    return input(f"{wait.what}? [y/N] ").strip().lower() == "y"


async def change(workspace: Path, arguments: list[str], says: Any = print) -> Any:
    """Run the plan, or the goal, and show the difference before anybody is asked."""
    is_goal = "--goal" in arguments
    given: dict[str, Any] = (
        {"goal": GOAL, "approval": "plan", "budget": {"usd": 0.5}}
        if is_goal
        else {"plan": HERE / "plan.yaml", "params": PARAMS}
    )
    run = local.start(given.pop("plan", None), tools=TOOLS, workspace=workspace, **given)
    try:
        event: RunEvent
        async for event in run.stream():
            if event.kind == "wait" and event.wait is not None:
                if event.wait.task is not None:
                    says((await run.output("draft"))["diff"])  # type: ignore[index, call-overload]
                if "--yes" in arguments or ask(event.wait):
                    await run.approve(event.wait.revision, task=event.wait.task, by="you")
                else:
                    await run.reject("not now", task=event.wait.task, by="you")
        return await run.result()
    finally:
        await run.close()


def main(arguments: list[str]) -> Any:
    import asyncio

    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "decisions"
        shutil.copytree(DOCUMENTS, workspace)
        return asyncio.run(change(workspace, arguments))


if __name__ == "__main__":
    result = main(sys.argv[1:])
    print(result.status, result.answer)

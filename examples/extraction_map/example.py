"""An extraction map over thousands of items: every function of this code base.

python examples/extraction_map/example.py            without a key: each function is parsed
python examples/extraction_map/example.py --goal     with a model, which rates 30 docstrings

A failed item is `null` in the list, with its outcome; it does not fail the map.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from planloom import ToolContext, ToolError, local, tool

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
RATED = 30
Facts = dict[str, Any]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@lru_cache(maxsize=64)
def functions_of(file: Path) -> dict[int, Function]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {n.lineno: n for n in ast.walk(tree) if isinstance(n, Function)}


@tool(version="1")
def find_functions(folders: list[str], context: ToolContext) -> list[str]:
    """Every Python function below some folders, as file:line.

    Args:
        folders: folders of the workspace
    """
    places = []
    for folder in folders:
        for file in sorted((context.workspace / folder).rglob("*.py")):
            name = file.relative_to(context.workspace).as_posix()
            places += [f"{name}:{line}" for line in sorted(functions_of(file))]
    return places


@tool(local=True)
def describe_function(place: str, context: ToolContext) -> Facts:
    """A function's name, length in lines, number of parameters, and first docstring line.

    Args:
        place: the function, as file:line
    """
    name, _, line = place.rpartition(":")
    file = context.workspace / name
    function = functions_of(file).get(int(line)) if file.is_file() else None
    if function is None:
        raise ToolError(f"no function at {place}")
    arguments = function.args
    return {
        "folder": name.partition("/")[0],
        "name": function.name,
        "lines": (function.end_lineno or function.lineno) - function.lineno + 1,
        "parameters": len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs),
        "docstring": (ast.get_docstring(function) or "").partition("\n")[0],
        "is_public": not function.name.startswith("_"),
    }


@tool
def sum_up(facts: list[Facts | None]) -> dict[str, Any]:
    """Documented functions by folder, and the longest function of all.

    Args:
        facts: what is known of each function; null where the extraction failed
    """
    known = [f for f in facts if f is not None]
    by_folder: dict[str, list[Facts]] = defaultdict(list)
    for fact in known:
        if fact["is_public"]:
            by_folder[fact["folder"]].append(fact)
    longest = max(known, key=lambda f: f["lines"])
    return {
        "functions": len(known),
        "failed": len(facts) - len(known),
        "documented_percent": {
            folder: round(100 * sum(bool(f["docstring"]) for f in of) / len(of))
            for folder, of in by_folder.items()
        },
        "longest": f"{longest['name']} ({longest['lines']} lines)",
    }


TOOLS: list[Callable[..., Any]] = [find_functions, describe_function, sum_up]
GOAL = (
    f"Find all functions below the folder planner, describe the first {RATED} of them with a map, "
    "and say which docstrings do not tell what a caller gets. Name each function."
)


def main(arguments: list[str]) -> Any:
    if "--goal" in arguments:
        return local.run_sync(
            goal=GOAL, tools=TOOLS, workspace=CHECKOUT, budget={"usd": 0.5}, on_event=print
        )
    return local.run_sync(
        HERE / "plan.yaml", tools=TOOLS, workspace=CHECKOUT, budget={"tasks": 20_000}
    )


if __name__ == "__main__":
    print(main(sys.argv[1:]).answer)

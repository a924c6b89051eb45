"""A git repository reviewed by a team: three members with a tool each, one round, and a judge.

python examples/repository_review/example.py          without a key: rules answer for the members
python examples/repository_review/example.py --model  with a model, by the same plan
python examples/repository_review/example.py --goal   with a model, which plans the review as well

Without a key the tools, the rounds and the judge's formula are real; what the members say is made
by rules from what their tools found. A model would weigh it.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from planloom import ToolContext, ToolError, local, tool
from planloom.scripted import Call, Reply, ScriptedModel

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
FOLDERS = ("planner", "workflows", "activities", "console", "planloom")
GOAL = (
    "Review this git repository: have a team of a historian (tool churn), a reader (tool "
    "long_functions) and a tester (tool untested) name the file that deserves a careful look most."
)


@tool
def churn(context: ToolContext, most: int = 5) -> list[dict[str, Any]]:
    """The Python files that most commits changed, with the number of commits.

    Args:
        most: how many files
    """
    command = ["git", "log", "--format=", "--name-only", "-n", "400", "--", "*.py"]
    done = subprocess.run(command, cwd=context.workspace, capture_output=True, text=True)
    if done.returncode:
        raise ToolError(f"git: {done.stderr.strip()[:200]}")
    named = [line for line in done.stdout.splitlines() if line.startswith(FOLDERS)]
    counts = Counter(line for line in named if (context.workspace / line).is_file())
    if not counts:
        raise ToolError("no commit changed a Python file here")
    return [{"file": f, "commits": n} for f, n in counts.most_common(most)]


@tool
def long_functions(context: ToolContext, most: int = 5) -> list[dict[str, Any]]:
    """The longest Python functions, with their files and lengths in lines.

    Args:
        most: how many functions
    """
    found: list[dict[str, Any]] = []
    for folder in FOLDERS:
        for file in (context.workspace / folder).rglob("*.py"):
            name = file.relative_to(context.workspace).as_posix()
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    found.append({"file": name, "function": node.name, "lines": lines})
    return sorted(found, key=lambda f: -f["lines"])[:most]


@tool
def untested(context: ToolContext, most: int = 5) -> list[dict[str, Any]]:
    """Python modules whose name occurs in no test, the longest first.

    Args:
        most: how many modules
    """
    tests = "\n".join(
        p.read_text(encoding="utf-8") for p in context.workspace.rglob("tests/**/*.py")
    )
    found: list[dict[str, Any]] = []
    for folder in FOLDERS:
        for file in (context.workspace / folder).rglob("*.py"):
            if not re.search(rf"\b{re.escape(file.stem)}\b", tests):
                name = file.relative_to(context.workspace).as_posix()
                lines = len(file.read_text(encoding="utf-8").splitlines())
                found.append({"file": name, "lines": lines})
    return sorted(found, key=lambda f: -f["lines"])[:most]


TOOLS: list[Callable[..., Any]] = [churn, long_functions, untested]
OWN_TOOL = {"historian": "churn", "reader": "long_functions", "tester": "untested"}


def rules() -> ScriptedModel:
    """A scripted model: each member calls its tool, then names what the tool put first."""
    model = ScriptedModel(name="rules")
    for member, name in OWN_TOOL.items():
        model.script(f"You are {member},", partial(member_says, name=name))
    model.script("You judge what a team answered", judged)
    model.script(
        lambda call: True, lambda call: Reply("[rules] only a model can do this", status=400)
    )
    return model


def member_says(call: Call, name: str) -> str | Reply:
    results = [m["content"] for m in call.messages if m.get("role") == "tool"]
    if not results:
        return Reply(tool_calls=[{"name": name, "arguments": {"most": 5}}])
    try:
        first = json.loads(results[0])[0]
    except (ValueError, LookupError):  # the tool failed: its own words are in the conversation
        first = {"file": "nothing", "why": results[0][:100]}
    facts = ", ".join(f"{k} {v}" for k, v in first.items() if k != "file")
    return (
        f"SUMMARY: {first['file']} comes first for {name}\n"
        f"CLAIM: {first['file']} deserves a careful look\n"
        f"EVIDENCE: {first['file']}:1 ({facts}); found by the tool {name}\n"
        "DISCUSSION: the other members look at other things, and may name another file\n"
        "CONFIDENCE: 0.7\n"
        f"RESULT: {first['file']} deserves a careful look, because of: {facts}\n"
        "NEXT_STEP: read it"
    )


def judged(call: Call) -> str:
    named = Counter(re.findall(r"(\S+\.py) deserves a careful look", call.text))
    agree = bool(named) and named.most_common(1)[0][1] > 1
    verdict = "trusted" if agree and len(named) == 1 else "partial"
    reason = f"the members name {len(named)} files, each for its own reason"
    return json.dumps({"verdict": verdict, "confidence": 0.7, "reason": reason})


def main(arguments: list[str]) -> Any:
    if "--goal" in arguments:
        given: dict[str, Any] = {"goal": GOAL, "budget": {"usd": 1.0}, "on_event": print}
        return local.run_sync(tools=TOOLS, workspace=CHECKOUT, **given)
    if "--model" in arguments:
        return local.run_sync(HERE / "plan.yaml", tools=TOOLS, workspace=CHECKOUT)
    with rules() as model:
        environment = {"OPENAI_BASE_URL": model.url, "PLANLOOM_MODEL": model.name}
        return local.run_sync(
            HERE / "plan.yaml", tools=TOOLS, workspace=CHECKOUT, environment=environment
        )


if __name__ == "__main__":
    result = main(sys.argv[1:])
    print(result.status, result.answer, *result.notes, sep="\n")

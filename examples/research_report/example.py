"""A report over a folder of documents: the decisions of this project, and what they rest on.

python examples/research_report/example.py            without a key: it looks for words
python examples/research_report/example.py --goal     with a model, which reads and writes
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planloom import ToolContext, ToolError, local, tool

HERE = Path(__file__).parent
DOCUMENTS = HERE.parents[1] / "docs"
GOAL = (
    "Read the documents in the folder decisions (Markdown, one decision each). Write a report of "
    "at most 400 words: which decisions rest on a measurement, and what was measured? Name the "
    "file after each statement."
)
Passage = dict[str, Any]


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]{3,}", text.lower())


@tool
def passages(path: str, question: str, context: ToolContext) -> list[Passage]:
    """The paragraphs of a document that have most to do with a question, each with a score.

    Args:
        path: a Markdown file of the workspace
        question: what is asked, in words
    """
    file = (context.workspace / path).resolve()
    if not file.is_relative_to(context.workspace) or not file.is_file():
        raise ToolError(f"no document {path} in the workspace")
    paragraphs = [p for p in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")) if p.strip()]
    counts = [Counter(words_of(p)) for p in paragraphs]
    stems = {w[:6] for w in words_of(question) if len(w) > 4}  # measured, measurement
    found: list[Passage] = []
    for paragraph, count in zip(paragraphs, counts, strict=True):
        hits = sum(n for word, n in count.items() if word[:6] in stems)
        figures = len(re.findall(r"\d", paragraph))
        if hits:
            score = hits * (1 + math.log1p(figures)) / math.sqrt(1 + count.total())
            text = " ".join(paragraph.split())
            found.append({"path": path, "score": round(score, 3), "text": text})
    return sorted(found, key=lambda p: -p["score"])[:3]


@tool
def rank_passages(found: list[list[Passage] | None], most: int) -> list[Passage]:
    """The best passages of all documents, the best one first.

    Args:
        found: the passages of each document
        most: how many to keep
    """
    every = [p for of_one in found for p in of_one or []]
    return sorted(every, key=lambda p: -p["score"])[:most]


@tool
def write_report(question: str, best: list[Passage], documents: int) -> str:
    """A report in Markdown: the passages, each with its document."""
    if not best:
        return f"# {question}\n\nNone of the {documents} documents says anything about it."
    cited = "\n\n".join(f"> {p['text'][:400]}\n>\n> ({p['path']})" for p in best)
    named = sorted({p["path"] for p in best})
    return (
        f"# {question.capitalize()}\n\n{len(named)} of {documents} documents say most about it: "
        f"{', '.join(named)}.\n\n{cited}"
    )


TOOLS: list[Callable[..., Any]] = [passages, rank_passages, write_report]


def main(arguments: list[str]) -> Any:
    if "--goal" in arguments:
        return local.run_sync(
            goal=GOAL, tools=TOOLS, workspace=DOCUMENTS, budget={"usd": 0.5}, on_event=print
        )
    return local.run_sync(HERE / "plan.yaml", tools=TOOLS, workspace=DOCUMENTS)


if __name__ == "__main__":
    print(main(sys.argv[1:]).answer)

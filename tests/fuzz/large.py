"""Long texts for the readers of text: linear time, measured as the shortest of several."""

from __future__ import annotations

import time

from planloom.activities.definitions import _tools
from planloom.activities.models.error_bodies import classify_text, wait_in_text
from planloom.activities.models.sse import SseDecoder
from planloom.activities.models.thoughts import without_thoughts
from planloom.console.safe import plain
from planloom.planner.compile.tool_arguments import read_arguments
from planloom.planner.language.clean_text import clean_text
from planloom.planner.language.references import find_references
from planloom.planner.prompts.text import fenced
from planloom.planner.syntax.calls.parser import CallsParser
from planloom.planner.syntax.joiner import parse_join
from planloom.planner.syntax.json_stream import JsonPlanParser
from planloom.planner.syntax.json_text import json_in, json_or_text
from planloom.planner.syntax.labelled import parse_labelled
from planloom.planner.syntax.tool_calls import object_text
from planloom.planner.syntax.written_calls import written_calls
from planloom.workflows.machines.shared.page import markdown_page
from tests.fuzz.readers import TOOLS
from tests.fuzz.texts import WORDS
from tests.support.linear import assert_linear, repeated

LINEAR_CHARS = 20_000
"""What is quadratic shows here already."""
LARGE_CHARS = 10_000_000
LARGE_SECONDS = 60.0
"""Of processor time: no linear reader comes near it, and no quadratic one keeps it."""
LARGE_WORDS = ["{", "(", "a", "<think>", "${", "\ud83d", "SUMMARY: ", "data: x\n"]
UNITS = [w for w in WORDS if w.strip()] + ["((", "{[", '"\\', "${a${"]


def _calls(text: str) -> object:
    parser = CallsParser(TOOLS)
    return parser.feed(text), parser.close()


def _json(text: str) -> object:
    parser = JsonPlanParser(TOOLS)
    return parser.feed(text), parser.close()


def _events(text: str) -> object:
    decoder = SseDecoder()
    return decoder.feed(text.encode("utf-8", "replace")), decoder.close()


TEXT_READERS = {
    "calls": _calls,
    "json": _json,
    "events": _events,
    "joiner": parse_join,
    "json in text": json_in,
    "labelled": parse_labelled,
    "object": object_text,
    "written calls": lambda text: written_calls(text, ["find"]),
    "thoughts": without_thoughts,
    "clean": clean_text,
    "references": find_references,
    "fence": lambda text: fenced("output", text),
    "error class": classify_text,
    "error wait": wait_in_text,
    "call arguments": lambda text: read_arguments(text).text,
    "typed": json_or_text,
    "tools of a file": lambda text: _tools(text, []),
    "page": lambda text: markdown_page(text, text, [], ("a",), [(text,)]),
    "terminal": lambda text: plain(text),
}


def check_linear(name: str, units: list[str]) -> None:
    """Each unit again and again: twice the text takes at most 2.5 times as long."""
    for unit in units:
        assert_linear(TEXT_READERS[name], repeated(unit), LINEAR_CHARS)


def check_large(name: str, chars: int = LARGE_CHARS) -> None:
    """A long text is read or refused."""
    for unit in LARGE_WORDS:
        text = unit * (chars // len(unit))
        began = time.process_time()
        TEXT_READERS[name](text)
        assert time.process_time() - began < LARGE_SECONDS, unit

"""Readers outside `planner/`: of endpoints, files, pages, MCP servers; and what is shown to people.

As in `readers.py`, each reads one input from a source of chance, and may refuse it, not break.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml
from mcp_types import CallToolResult, TextContent, Tool

from planloom.activities.definitions import read_definition
from planloom.activities.http_dates import moment_of
from planloom.activities.models.chat import ChatRequest
from planloom.activities.models.errors import ModelError, retry_after_seconds
from planloom.activities.models.reply_builder import ReplyBuilder
from planloom.activities.resolve import patched_plan
from planloom.activities.template_files import names_used_in
from planloom.activities.tools.builtin import web
from planloom.activities.tools.builtin.addresses import refusal_of
from planloom.activities.tools.builtin.calculate import calculate
from planloom.activities.tools.builtin.files import _glob_matcher
from planloom.activities.tools.decorator import ToolContext, ToolError
from planloom.activities.tools.mcp import tools as mcp_tools
from planloom.console.report.page import plan_page
from planloom.planner.compile.drawing.svg import plan_svg
from planloom.planner.compile.expand import expand_request
from planloom.planner.compile.tool_arguments import read_arguments
from planloom.planner.contract.jobs import PatchJob
from planloom.planner.contract.mcp import McpSettings
from planloom.planner.language.clean_text import clean_value
from planloom.planner.syntax.documents import read_plan
from planloom.planner.syntax.json_text import json_or_text
from planloom.workflows.machines.shared.page import markdown_page
from planloom.workflows.machines.shared.requests import read_agent, read_run, read_team
from planloom.yaml_documents import DocumentError, read_document_text
from tests.fuzz.texts import bytes_of, json_text_of, plan_of, text_of, value_of

Reader = Callable[[Random], None]

REQUEST = ChatRequest(model="m", messages=[{"role": "user", "content": "x"}])
MCP = McpSettings(command="x")
THEIR_NAMES = [
    *("agent", "subagentId", "teamId", "subagentIds", "teamIds", "task", "goal", "plan", "retry"),
    *("maxRetries", "initialDelayMs", "maxDelayMs", "multiplier", "jitter", "timeoutMs"),
    *("communicationRounds", "failedMemberRetryRounds", "strategy", "extraContext", "dependencies"),
    *("tasks", "id", "description", "assignedAgent", "from", "to"),
]
REPLY_NAMES = [
    *("choices", "delta", "message", "content", "role", "finish_reason", "index", "usage", "error"),
    *("tool_calls", "function", "name", "arguments", "id", "model", "prompt_tokens", "refusal"),
    *("reasoning_content", "completion_tokens", "total_tokens", "code", "type", "text", "done"),
]
YAML_PARTS = [
    *("a: ", "- ", "&a ", "*a", "<<: ", "? ", "!!set ", "!!bool x", "!!timestamp ", "!!binary ="),
    *("\n", "\n  ", "\n    ", "[", "]", "{", "}", ",", ": ", "| \n", "> \n", "---\n", "...\n", "#"),
    *("%YAML 1.2\n", "~", ".inf", "0o17", "1_000", "2024-01-01", "'", '"', "\\ud83d", "@", "`"),
    *("id: x\n", "tasks:\n", "members:\n", "name: n\n", "tools: Read(x), Bash\n", "system: s\n"),
]
DATES = [
    *("Mon, 01 Jan 2024 00:00:00 ", "GMT", "+9999", "+99999999999999", "2024-01-01T00:00:00", "Z"),
    *("99999", "-", "6m0s", "1e9", "nan", "inf", " "),
]
URL_PARTS = [
    *(
        "http://",
        "https://",
        "user:pw@",
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "[fe80::1%25e]",
    ),
    *(
        "[::ffff:10.0.0.1]",
        "xn--0",
        "xn--",
        "é",
        "①",
        "。",
        ".",
        ":80",
        ":99999",
        "/",
        "?",
        "#",
        "\\",
    ),
    *("%00", "%2e", "@", "//", "\ud83d", "\n", "localhost", "a" * 70, "javascript:", "file:///"),
]


def named(random: Random, names: list[str], depth: int = 4) -> Any:
    """A value whose objects have these names, in places where they may not be."""
    kind = random.randrange(8 if depth else 3)
    if kind < 2:
        return value_of(random, 1)
    if kind == 2:
        return text_of(random, 4)
    if kind == 3:
        return [named(random, names, depth - 1) for _ in range(random.randint(0, 3))]
    chosen = random.choices(names, k=random.randint(1, 4))
    return {name: named(random, names, depth - 1) for name in chosen}


def joined(random: Random, parts: list[str], most: int = 20) -> str:
    chosen = random.choices(parts, k=random.randint(0, most))
    if random.random() < 0.3:
        chosen.insert(random.randint(0, len(chosen)), text_of(random, 3))
    return "".join(chosen)


def foreign_requests(random: Random) -> None:
    document = named(random, THEIR_NAMES)
    request = read_run(document)
    if getattr(request, "agents", None) or getattr(request, "teams", None):
        expand_request(request)  # type: ignore[arg-type]
    read_agent(document)
    read_team(document)


def model_replies(random: Random) -> None:
    builder = ReplyBuilder()
    try:
        if random.random() < 0.3:
            body = json.dumps(named(random, REPLY_NAMES)).encode()
            builder.add_whole(random.choice([body, bytes_of(random)]))
        else:
            for _ in range(random.randint(0, 4)):
                document = {"choices": [{"delta": named(random, REPLY_NAMES, 3)}]}
                whole = random.random() < 0.5
                builder.add_event(json.dumps(document if whole else named(random, REPLY_NAMES)))
        builder.end_text()
        reply = builder.reply(REQUEST)
    except ModelError as error:
        str(error).encode()
        return
    json.dumps(reply.as_message(), ensure_ascii=False).encode()
    json.dumps(asdict(reply), ensure_ascii=False, default=str).encode()


def call_arguments(random: Random) -> None:
    schema = random.choice([None, {"type": "object", "properties": {"a": {"type": "integer"}}}])
    arguments = read_arguments(random.choice([text_of, json_text_of])(random), schema)
    arguments.text.encode()


def yaml_files(random: Random) -> None:
    text = joined(random, YAML_PARTS, 40)
    with suppress(DocumentError):
        document = clean_value(read_document_text(text).value)
        json.dumps(document, ensure_ascii=False).encode()
        read_plan(document)
        names_used_in(document)
    with TemporaryDirectory() as folder:
        path = Path(folder) / random.choice(["a.md", "a.yaml"])
        head = f"---\n{text}\n---\nbody" if path.suffix == ".md" else text
        path.write_bytes(head.encode("utf-8", "surrogatepass"))
        for kind in ("agent", "team"):
            found = read_definition(path, kind)
            found.spec.model_dump_json() if found.spec else None
            for problem in found.problems:
                problem.model_dump_json()
    with suppress(yaml.YAMLError, ValueError):
        json_or_text(text)


def patches(random: Random) -> None:
    ops = ["add", "remove", "replace", "move", "copy", "test", text_of(random, 1)]
    paths = ["", "/", "/tasks", "/tasks/0", "/tasks/-", "/tasks/0/args", "/~2", text_of(random, 2)]
    patch = [
        {"op": random.choice(ops), "path": random.choice(paths)}
        | random.choice([{}, {"from": random.choice(paths)}, {"value": value_of(random, 2)}])
        for _ in range(random.randint(0, 6))
    ]
    found = patched_plan(PatchJob(document=clean_value(plan_of(random)), patch=clean_value(patch)))
    assert found.problem is None or isinstance(found.problem, str)


def web_addresses(random: Random) -> None:
    text = joined(random, URL_PARTS, 6)
    with suppress(ToolError):
        url = web._parsed_url(text)
        web._shown(url)
        response = httpx.Response(302)
        response.headers = {"location": joined(random, URL_PARTS, 4)}  # type: ignore[assignment]
        web._next_url(url, response)
    refusal_of(random.choice([text, "::1", "10.0.0.1%x", "1.2.3"]))
    date = joined(random, DATES, 5)
    moment_of(date)
    for name in ("retry-after", "x-ratelimit-reset-tokens"):
        seconds = retry_after_seconds({name: date}, 0.0)
        assert seconds is None or 0 <= seconds <= 300


def arithmetic(random: Random) -> None:
    words = [
        "1",
        "9" * 30,
        "+",
        "-",
        "*",
        "**",
        "//",
        "%",
        "(",
        ")",
        "[",
        "]",
        ",",
        "sum(",
        "comb(",
    ]
    words += ["factorial(", "max(", " if ", " else ", "<", "==", "1e308", "0.1", "round(", "e", "~"]
    with suppress(ToolError):
        json.dumps(calculate(joined(random, words, 12), ToolContext()))


def file_patterns(random: Random) -> None:
    words = ["**", "*", "?", "[a-", "]", "/", ".", "..", "a", "x.csv", "[!", "\\"]
    matches = _glob_matcher(joined(random, words, 30))
    matches(tuple(random.choices(["a", "b", ".c", "x.csv"], k=random.randint(0, 20))))


def mcp_answers(random: Random) -> None:
    text = clean_value(text_of(random))
    schema = {"type": "object", "properties": clean_value(value_of(random, 3))}
    with suppress(ValueError):
        tool = Tool(name=str(text), description=str(text), input_schema=schema)  # type: ignore[arg-type]
        spec = mcp_tools.spec_of("s", MCP, tool)
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", spec.name)
        spec.model_dump_json()
    content: Any = [TextContent(type="text", text=str(text))]
    value = mcp_tools.value_of(
        CallToolResult(content=content, structured_content=named(random, ["result", "a"], 2))
        if random.random() < 0.5
        else CallToolResult(content=content)
    )
    json.dumps(value)


class _Elements(HTMLParser):
    """The elements of a page, and attributes that could do something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.found |= {name for name, _ in attrs if name.startswith("on")}
        self.found |= {
            f"{tag} {name}"
            for name, value in attrs
            if name in ("src", "href", "action") and not (value or "").startswith("#")
        }


TAGS = ["<script>", "<img src=x onerror=1>", '" onload="x', "</svg>", "]]>", "<!--", "javascript:1"]


def pages(random: Random) -> None:
    words = [text_of(random, 3), random.choice(TAGS), "${a}", "`", "[x](http://y)", "|"]
    text = str(clean_value(joined(random, words, 6)))
    task = {"id": "a", "description": text, "ask": text}
    plan, _ = read_plan({"goal": text, "name": text, "tasks": [task], "answer": text})
    if plan is not None:
        for page in (plan_page(plan, {}, [text]), plan_svg(plan, {"a": text}, notes={"a": text})):
            found = _Elements(page).found
            assert not {f for f in found if f.startswith("on") or " " in f}, text
            assert not found & {"script", "img", "iframe", "object", "link", "base", "form"}, text
    markdown_page(text, text, [], ("a",), [(text,)]).encode()


OUTSIDE: dict[str, Reader] = {
    reader.__name__: reader
    for reader in (
        *(foreign_requests, model_replies, call_arguments, yaml_files, patches, web_addresses),
        *(arithmetic, file_patterns, mcp_answers, pages),
    )
}

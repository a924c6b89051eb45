"""Texts that readers are likely to stumble over, made from a source of chance."""

from __future__ import annotations

import itertools
import json
from random import Random
from typing import Any

WORDS = [
    *(
        "a = find(query=",
        "join(",
        "a, b)",
        "1. find(",
        "$1",
        "${a",
        "${a.b[0] | length(@)}",
        "${",
        "}",
    ),
    *(
        "Thought: ",
        "Action: Finish(",
        "Replan(",
        "join()<END_OF_PLAN>",
        "stop_when = ",
        "\n",
        "\n\n",
    ),
    *(
        '{"tasks": [',
        '{"id": "a", "tool": "find", "args": ',
        '{"action": "finish", "answer": ',
        "]}",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        '"',
        "'",
        "\\",
        "\\u",
        "\\ud83d",
        "\\n",
        ",",
        ":",
        "null",
        "true",
    ),
    *("<think>", "</think>", "<|channel|>", "<tool_call>", "</tool_call>", "```json\n", "```", "`"),
    *("SUMMARY: ", "CONFIDENCE: 0.9", "RESULT:", "CLAIM: ", "EVIDENCE: a.py:1", "NEXT_STEP: none"),
    *("data: ", "data: [DONE]\n\n", "event: error\n", "error: ", "id: 1\r\n", ": note\n"),
    *("{{", "%s", "-1e999", "NaN", "0x1", "1_0", "999999999999999999999", "0.1.2", "--", "#", "//"),
    *("rate limit reached, try again in 2.5s", "maximum context length is 4096 tokens", "HTTP 429"),
    *(
        "\ud83d",
        "\udc00",
        "\x00",
        "\ufeff",
        "\u202e",
        "\u2028",
        "é",
        "💥",
        "\x1b]52;c;x\x07",
        "İ",
        "ß",
    ),
    *(
        "find",
        "query",
        "math",
        "a",
        "b",
        "x" * 40,
        " " * 30,
        "\t",
        "word ",
        "?",
        "!",
        "@",
        "$",
        "&&",
    ),
    *(
        "`[@,@]`",
        "length(",
        "| [",
        "[*]",
        "==",
        "||",
        "!",
        "@.@",
        "sort_by(",
        "&a",
        "---\n",
        "name: ",
    ),
]


def text_of(random: Random, parts_max: int = 40) -> str:
    """A text of likely pieces; now and then one piece many times."""
    parts = random.choices(WORDS, k=random.randint(0, parts_max))
    if parts and random.random() < 0.05:
        parts.insert(random.randrange(len(parts)), random.choice(WORDS) * random.randint(2, 300))
    return "".join(parts)


def pieces_of(random: Random, text: str) -> list[str]:
    """The text cut anywhere."""
    cuts = sorted(random.randint(0, len(text)) for _ in range(random.randint(0, 6)))
    ends = [0, *cuts, len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def bytes_of(random: Random) -> bytes:
    """Bytes: a text, broken in places."""
    content = bytearray(text_of(random).encode("utf-8", "surrogatepass"))
    for _ in range(random.randint(0, 3) if content else 0):
        content[random.randrange(len(content))] = random.randrange(256)
    return bytes(content)


_NAMES = [
    *(
        "goal",
        "plan",
        "tasks",
        "id",
        "tool",
        "args",
        "ask",
        "agent",
        "team",
        "human",
        "map",
        "when",
    ),
    *("fallback", "answer", "budget", "tokens", "usd", "seconds", "approval", "mode", "timeout"),
    *("retry", "depends_on", "requires", "estimate", "template", "params", "context", "tools"),
    *("members", "task", "system", "output_schema", "type", "properties", "items", "$ref", "enum"),
    *(
        "pattern",
        "revision",
        "patch",
        "output",
        "approve",
        "reason",
        "op",
        "path",
        "value",
        "version",
    ),
]


def value_of(random: Random, depth: int = 4) -> Any:
    """A JSON value with names of the contract in places where they may not be."""
    kind = random.randrange(10 if depth else 7)
    match kind:
        case 0 | 1:
            return text_of(random, 6)
        case 2:
            return random.choice(["a", "b", "plan", "always", "30s", "-1", "${a}", "", "calculate"])
        case 3:
            return random.choice([0, 1, -1, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-9])
        case 4:
            return random.choice([True, False, None, [], {}])
        case 5 | 6:
            return random.choice(_NAMES)
        case 7:
            return [value_of(random, depth - 1) for _ in range(random.randint(0, 4))]
        case _:
            names = random.choices(_NAMES, k=random.randint(0, 5))
            return {name: value_of(random, depth - 1) for name in names}


def plan_of(random: Random) -> dict[str, Any]:
    """Nearly a plan: some of its parts are anything."""
    tasks = []
    for n in range(random.randint(1, 4)):
        body: dict[str, Any] = random.choice(
            [
                {"tool": "calculate", "args": {"expression": "1 + 1"}},
                {"tool": "calculate", "args": {"expression": "${t0}"}},
                {"ask": "x"},
                {"tool": "write_file", "args": {"path": "x", "text": "y"}},
                {"human": {"question": "x"}, "timeout": "1s"},
                {
                    "plan": {
                        "tasks": [{"id": "in", "tool": "calculate", "args": {"expression": "1"}}]
                    }
                },
            ]
        )
        task = {"id": f"t{n}", **body}
        for _ in range(random.randint(0, 2)):
            task[random.choice(_NAMES)] = value_of(random, 2)
        tasks.append(task)
    plan: dict[str, Any] = {"tasks": tasks}
    if random.random() < 0.3:
        plan[random.choice(["answer", "goal", "stop_when", "join", "params"])] = value_of(random, 2)
    return plan


def json_text_of(random: Random) -> str:
    """JSON, whole or cut, or changed in one place."""
    text = json.dumps(value_of(random))
    if random.random() < 0.5 and text:
        at = random.randrange(len(text))
        text = text[:at] + random.choice(["", random.choice(WORDS), text[at + 1 :]])
    return text

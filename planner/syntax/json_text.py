"""JSON as models write it: real newlines in strings and trailing commas are read; NaN is not."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_TRAILING = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_number)


def parse_json(text: str) -> Any:
    """The value of a JSON text, with blanks around it or not.

    Raises:
        ValueError: it is no JSON; the message says why, in one line.
    """
    try:
        return _read(text)
    except json.JSONDecodeError as error:
        mended = _TRAILING.sub(lambda match: match[1] or "", text)
        if mended == text:
            raise ValueError(f"{error.msg} at line {error.lineno}") from None
    try:
        return _read(mended)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}") from None


def _read(text: str) -> Any:
    try:
        document = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _HALF.search(text):
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a character: a surrogate stands alone") from None
    return document


def objects_in(text: str) -> list[str]:
    """The top-level `{…}` of a text, in order, with anything around them; strings are followed."""
    objects: list[str] = []
    depth = start = 0
    is_string = is_escaped = False
    for at, char in enumerate(text):
        if depth == 0:
            if char == "{":
                depth, start, is_string = 1, at, False
        elif is_escaped:
            is_escaped = False
        elif is_string:
            is_escaped, is_string = char == "\\", char != '"'
        elif char == '"':
            is_string = True
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                objects.append(text[start : at + 1])
    return objects

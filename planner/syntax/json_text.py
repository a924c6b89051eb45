"""JSON as models write it, read in linear time: the one reader for all JSON of models. Pure.

Read as they are meant: trailing commas, single quotes, typographic quotes, real newlines in
strings, unknown escapes, comments, `True`/`False`/`None`, keys without quotes, a missing comma at a
line's end, code fences and prose around. Never guessed: a value that was cut off (not whole), NaN
and numbers beyond JSON, text that is not a value. Nothing is evaluated.

Reading is bounded: values that may begin at each bracket of a text are tried until the work is a
small multiple of the text's length; after that no character is looked at twice.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from planloom.planner.language.clean_text import clean_text, clean_value
from planloom.planner.language.values import JsonValue

JSON_NESTING_MAX = 100
"""Levels of lists and objects in one value."""
CANDIDATES_MAX = 100
"""Objects, and as many lists, that are kept of one text: the last ones."""
WORK_FACTOR = 2
WORK_FREE_CHARS = 50_000
"""Characters looked at again, in all: this many, and `WORK_FACTOR` times the text's length."""


class NotJsonError(ValueError):
    """A text that is not JSON. `at` is where it went wrong, `looked` how far it was looked at."""

    def __init__(self, why: str, at: int, looked: int = 0) -> None:
        super().__init__(why)
        self.why = why
        self.at = at
        self.looked = max(at, looked)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A list or object found in a text, with where it stands."""

    value: JsonValue
    start: int
    end: int
    is_fenced: bool = False


def parse_json(text: str) -> Any:
    """The value of a JSON text, with blanks, comments or a code fence around it.

    Raises:
        ValueError: it is not JSON; the message says why and in which line.
    """
    try:
        return clean_value(_DECODER.decode(text))
    except (ValueError, RecursionError):
        pass
    fenced = _ONLY_FENCE.match(text)
    reader = _Reader(fenced[1] if fenced else text.removeprefix("\ufeff"))
    try:
        value = reader.value(0, JSON_NESTING_MAX)
        reader.blanks()
        if reader.at < len(reader.text):
            raise reader.wrong("more text follows the value")
    except NotJsonError as error:
        line = reader.text.count("\n", 0, error.at) + 1
        raise ValueError(f"{error.why} at line {line}") from None
    return value


def meant_list(value: JsonValue) -> list[JsonValue] | None:
    """A list, also one that a model wrote as text: `["Oslo", "Bergen"]`; None for all else."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "`"):
        try:
            value = parse_json(value)
        except ValueError:
            return None
    return value if isinstance(value, list) else None


def why_no_list(written: JsonValue, value: JsonValue) -> str:
    """What is wrong with a map over `written`, which stands for `value`, and how to fix it."""
    shown = f'"{written[:100]}"' if isinstance(written, str) else "what it was given"
    return (
        f"needs a list; {shown} is {_kind_of(value)}. Refer to a list, such as ${{task.items}}; "
        "an ask gives one with output_schema: {type: array}."
    )


def _kind_of(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case _:
            return "an object"


def json_in(text: str) -> list[Candidate]:
    """The outermost lists and objects of a text, in order; prose around them is left out.

    Of more than `CANDIDATES_MAX` objects, or lists, the last ones. Time is linear in the length.
    """
    kept: dict[type, deque[Candidate]] = {
        list: deque(maxlen=CANDIDATES_MAX),
        dict: deque(maxlen=CANDIDATES_MAX),
    }
    fences = _fences(text)
    reader = _Reader(text)
    work, fence = WORK_FREE_CHARS + WORK_FACTOR * len(text), 0
    begin = _BRACKET.search(text)
    while begin is not None:
        start = begin.start()
        reader.at = start
        try:
            value = reader.value(0, JSON_NESTING_MAX)
        except NotJsonError as error:
            work -= error.looked - start
            following = start + 1 if work > 0 else max(error.at, start + 1)
        else:
            following = reader.at
            while fence < len(fences) and fences[fence][1] <= start:
                fence += 1
            is_fenced = fence < len(fences) and fences[fence][0] <= start
            kept[type(value)].append(Candidate(value, start, following, is_fenced))
        begin = _BRACKET.search(text, following)
    return sorted([*kept[list], *kept[dict]], key=lambda candidate: candidate.start)


def best_json(text: str, fits: Callable[[JsonValue], bool]) -> JsonValue:
    """The value that an answer gives: the whole text, or what stands in it among prose.

    Of several that stand in prose, those that fit go before the others, those in a code fence
    before the rest, and of equals the last: what stands first is often an example.

    Raises:
        ValueError: there is none.
    """
    try:
        value: JsonValue = parse_json(text)
    except ValueError as error:
        why = str(error)
    else:
        return _inner(value, fits)
    candidates = json_in(text)
    candidates += [Candidate(v, s, e, is_fenced=True) for v, s, e in _scalars(text)]
    for is_fenced in (True, False):
        for each in reversed(candidates):
            if each.is_fenced is is_fenced and fits(each.value):
                return each.value
    if candidates:
        return max(candidates, key=lambda each: (each.is_fenced, each.start)).value
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        raise ValueError(f"the answer is not valid JSON: {why}")
    raise ValueError("the answer holds no JSON value")


def _inner(value: JsonValue, fits: Callable[[JsonValue], bool]) -> JsonValue:
    """The JSON that a model wrote as a text inside JSON, where that is what fits."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") and not fits(value):
        try:
            inner: JsonValue = parse_json(value)
        except ValueError:
            return value
        return inner if fits(inner) else value
    return value


def _scalars(text: str) -> list[tuple[JsonValue, int, int]]:
    """Numbers, words and texts alone in a code fence: answers, unlike the ones in prose."""
    scalars: list[tuple[JsonValue, int, int]] = []
    for start, end in _fences(text)[-CANDIDATES_MAX:]:
        inner = text[start:end].strip()
        if inner[:1] in ("{", "["):
            continue
        try:
            scalars.append((parse_json(inner), start, end))
        except ValueError:
            continue
    return scalars


_FENCE_LINE = re.compile(r"^[ \t]{0,8}(```+|~~~+)[^\n`]{0,100}$", re.MULTILINE)
_ONLY_FENCE = re.compile(r"\s*```[\w-]*[ \t]*\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)


def _fences(text: str) -> list[tuple[int, int]]:
    """Where the contents of code fences begin and end, in order."""
    marks = [(m.start(), m.end()) for m in _FENCE_LINE.finditer(text)]
    return [(opened[1], closed[0]) for opened, closed in zip(marks[::2], marks[1::2], strict=False)]


def no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(written: str) -> float:
    value = float(written)
    if not math.isfinite(value):
        no_number(written[:40])
    return value


def _whole(written: str) -> int:
    """A whole number that other programs can hold too, as a double (RFC 8259, section 6)."""
    _finite(written)
    return int(written)


def strict_json(text: str | bytes) -> JsonValue:
    """JSON as RFC 8259 has it, which travels on as it is: no NaN, no number beyond a double.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        value: JsonValue = json.loads(
            text, parse_constant=no_number, parse_float=_finite, parse_int=_whole
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return clean_value(value)


def json_or_text(text: str) -> JsonValue:
    """What a person typed: a JSON value where it is one, else the text itself."""
    try:
        return strict_json(text)
    except ValueError:
        return clean_text(text)


_DECODER = json.JSONDecoder(
    strict=False, parse_constant=no_number, parse_float=_finite, parse_int=_whole
)
_BRACKET = re.compile(r"[\[{]")
_SPACES = re.compile(r"[ \t\r\n\f\v\u00a0\u3000\ufeff]*+")
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
_WORD = re.compile(r"[^\W\d][\w$-]*")
_WORDS: dict[str, JsonValue] = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
}
# A closing single quote is one after which a value can end: `'it's'` is the text `it's`.
_STRINGS = {
    '"': re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL),
    "'": re.compile(
        r"'([^'\\]*+(?:(?:\\.|'(?![ \t\r\n]{0,80}(?:[,:}\]#/]|\Z)))[^'\\]*+)*+)'", re.DOTALL
    ),
    "“": re.compile(r"“([^”“\\]*+(?:\\.[^”“\\]*+)*+)”", re.DOTALL),
    "‘": re.compile(
        r"‘([^’\\]*+(?:(?:\\.|’(?![ \t\r\n]{0,80}(?:[,:}\]#/]|\Z)))[^’\\]*+)*+)’", re.DOTALL
    ),
    '"""': re.compile(r'"""([^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+)"""', re.DOTALL),
    "'''": re.compile(r"'''([^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*+)'''", re.DOTALL),
}
_ESCAPE = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|(.))",
    re.DOTALL,
)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_KEPT = "\"'\\/“”‘’"


class _Reader:
    """Reads one value from a place of a text. What no string can end is looked for once only."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._unclosed: dict[str, int] = {}
        """From where on a quote, or a comment, has no end."""

    def wrong(self, why: str, looked: int = 0) -> NotJsonError:
        return NotJsonError(why, self.at, looked)

    def blanks(self) -> bool:
        """Go over blanks and comments; whether a line ended."""
        begun = self.at
        while True:
            spaces = _SPACES.match(self.text, self.at)
            assert spaces is not None
            self.at = spaces.end()
            if self.text.startswith(("//", "#"), self.at):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text.startswith("/*", self.at):
                self._block_comment()
            else:
                return self.text.find("\n", begun, self.at) >= 0

    def _block_comment(self) -> None:
        if self.at >= self._unclosed.get("/*", len(self.text)):
            raise self.wrong("a comment is not closed")
        end = self.text.find("*/", self.at + 2)
        if end < 0:
            self._unclosed["/*"] = self.at
            raise self.wrong("a comment is not closed", len(self.text))
        self.at = end + 2

    def value(self, depth: int, depth_max: int) -> Any:
        self.blanks()
        char = self.text[self.at : self.at + 1]
        if char in _STRINGS and char:
            return self._string(char)
        if char and char in "{[":
            if depth >= depth_max:
                raise self.wrong(f"it is nested deeper than {depth_max} levels")
            self.at += 1
            return self._object(depth, depth_max) if char == "{" else self._list(depth, depth_max)
        if number := _NUMBER.match(self.text, self.at):
            return self._number(number)
        word = _WORD.match(self.text, self.at)
        if word and word[0] in _WORDS:
            self.at = word.end()
            return _WORDS[word[0]]
        if not char:
            raise self.wrong("it ends too early")
        shown = word[0] if word else char
        raise self.wrong(f'"{shown[:40]}" is not a JSON value')

    def _number(self, match: re.Match[str]) -> JsonValue:
        written = match[0]
        is_whole = not set(written) & set(".eE")
        try:
            value = _whole(written) if is_whole else _finite(written)
        except ValueError as error:
            raise self.wrong(str(error)) from None
        self.at = match.end()
        return value

    def _string(self, quote: str) -> str:
        if self.text.startswith(quote * 3, self.at) and quote in "\"'":
            quote *= 3  # Python's
        if self.at >= self._unclosed.get(quote, len(self.text)):
            raise self.wrong("a text is not closed")
        match = _STRINGS[quote].match(self.text, self.at)
        if match is None:
            self._unclosed[quote] = self.at
            raise self.wrong("a text is not closed", len(self.text))
        self.at = match.end()
        inner = match[1]
        return clean_text(_ESCAPE.sub(_unescaped, inner) if "\\" in inner else inner)

    def _list(self, depth: int, depth_max: int) -> list[JsonValue]:
        items: list[JsonValue] = []
        while True:
            self.blanks()
            if self._closes("]"):
                return items
            items.append(self.value(depth + 1, depth_max))
            if self._ends_with("]"):
                return items

    def _object(self, depth: int, depth_max: int) -> dict[str, JsonValue]:
        fields: dict[str, JsonValue] = {}
        while True:
            self.blanks()
            if self._closes("}"):
                return fields
            key = self._key()
            self.blanks()
            if not self.text.startswith(":", self.at):
                raise self.wrong(f'":" is missing after "{key[:40]}"')
            self.at += 1
            fields[key] = self.value(depth + 1, depth_max)
            if self._ends_with("}"):
                return fields

    def _key(self) -> str:
        char = self.text[self.at : self.at + 1]
        if char and char in _STRINGS:
            return self._string(char)
        word = _WORD.match(self.text, self.at)
        if word is None:
            raise self.wrong("a key is missing" if char else "it ends too early")
        self.at = word.end()
        return word[0]

    def _closes(self, bracket: str) -> bool:
        if self.text.startswith(bracket, self.at):
            self.at += 1
            return True
        return False

    def _ends_with(self, bracket: str) -> bool:
        """After a value: whether the bracket closes. Before more comes a comma, or a line's end."""
        ends_line = self.blanks()
        if self._closes(bracket):
            return True
        if self.text.startswith(",", self.at):
            self.at += 1
            return False
        if self.at >= len(self.text):
            raise self.wrong("it ends too early")
        if not ends_line:
            raise self.wrong('"," is missing')
        return False


def _unescaped(match: re.Match[str]) -> str:
    """What an escape stands for; a backslash that JSON does not know stands for itself."""
    if code := match[1] or match[2] or match[3]:
        return chr(int(code, 16))
    char = match[4]
    if char in _ESCAPED:
        return _ESCAPED[char]
    return char if char in _KEPT else "\\" + char

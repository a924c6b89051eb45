"""What stands around calls: statements of programs, and headings that speak against a call. Pure.

`if a:` over an indented call says that the call may not be made; read without it, it always would.
"What I will not do:" over a call that acts on the world leaves it open whether it is to be made.
"""

from __future__ import annotations

import ast
import re

from planloom.planner.syntax.calls.scan import CallText, Prose

BLOCK_HINT = (
    "A plan has no statements: write _when=… for a condition, _map=… for a list, _fallback=… for "
    "what is done instead."
)
_CHARS_MAX = 250
_BULLET = re.compile(r"\A(?:[-*•>+]|\d{1,4}[.)])[ \t]+")
_COMMENT = re.compile(r"[ \t]+(?:#|//)[^\"']*\Z")
_ALONE = re.compile(r"(?:else|try|finally|except)[ \t]*:\Z")
_HEADER = re.compile(
    r"(?:if|elif|for|while|with|except|def|class|match|case|async (?:for|with|def))\b.*:\Z"
)
_BRACED = re.compile(
    r"\}?[ \t]*(?:(?:if|else if|for|while|switch|function|catch)\b.*\)|else|try|finally|do)"
    r"[ \t]*\{\Z"
)
_OPENS = re.compile(r"(?:[:{]|\b(?:then|do))\Z")
_AGAINST = re.compile(
    r"(?:if|unless|when|otherwise|else|in case|only (?:if|when)|should)\b.{0,200}:\Z|"
    r"\W*(?:avoid|bad|wrong|not|never|no|rejected|discarded|skip(?:ped)?|unused|optional)\b|"
    r".{0,200}\b(?:do not|don'?t|never) (?:run|execute|call|do|use|write|want)\b|"
    r".{0,200}\b(?:(?:will|would|must|should|may) not|won'?t|wouldn'?t|shouldn'?t|not part of|"
    r"not to (?:be|do|run|call)|reject(?:ed)?|forbidden|bad idea|counter-?example)\b",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    r"(?:[^\W\d]\w*|(?:if|elif|else|for|while|with|try|except|def|lambda|unless|when)\b[^:]{0,80})"
    r"[ \t]*:[ \t]*[^\W\d]\w*[ \t]*=[ \t]*",
    re.IGNORECASE,
)
_TYPES = re.compile(
    r"[^\W\d]\w*[ \t]*:[ \t]*(?:[A-Z]\w{2,}|str|int|float|bool|list|dict|set|tuple|any|object|"
    r"string|number|boolean|bytes)\b"
)


def opens_block(prose: Prose) -> bool:
    """Whether the line begins a statement under which other lines stand."""
    text = _plain(prose.text)
    if len(text) > _CHARS_MAX:
        return False
    if _ALONE.match(text) or _BRACED.match(text):
        return True
    return bool(_HEADER.match(text)) and _is_python(text)


def assigns_behind_label(text: str) -> bool:
    """Whether a line is `label: name = …`: not `name: str = …`, and no name for what follows."""
    return _LABELLED.match(text) is not None and _TYPES.match(text) is None


class Surroundings:
    """The line that stands over the next calls, and what it says of them."""

    def __init__(self) -> None:
        self._block: Prose | None = None
        self._is_empty = True
        """No call has come under the block: the next one is its body, however it is indented."""
        self._heading: Prose | None = None

    def read(self, prose: Prose) -> None:
        """A line of prose, or a comment alone on its line."""
        self._heading = prose
        if self._block is None or prose.indent <= self._block.indent:
            self._block, self._is_empty = (prose if opens_block(prose) else None), True

    def block_over(self, call: CallText) -> Prose | None:
        """The statement that the call stands under."""
        block = self._block
        if block is None or not (self._is_empty or call.indent > block.indent):
            self._block = None
            return None
        self._is_empty = False
        return block

    def doubt_about(self, call: CallText) -> str | None:
        """What speaks against a call that acts on the world."""
        heading = self._heading
        if heading is None:
            return None
        text = _plain(heading.text)[:_CHARS_MAX]
        is_under = call.indent > heading.indent and _OPENS.search(text) is not None
        is_against = speaks_against(text) and (text.endswith(":") or heading.kind == "comment")
        return f'it stands under "{text[:80]}"' if is_under or is_against else None


def speaks_against(text: str) -> bool:
    """Whether a heading or a comment says that what it stands over, or behind, is not to be run."""
    return _AGAINST.match(text.lstrip("#/ \t*>-")) is not None


def _plain(text: str) -> str:
    return _COMMENT.sub("", _BULLET.sub("", text, count=1).rstrip()).rstrip("*_ \t")


def _is_python(text: str) -> bool:
    """Words such as `for each of the cities:` are none."""
    if text.startswith("except"):
        text = f"try: pass\n{text}"
    elif text.startswith("async "):
        text = text.removeprefix("async ")
    elif text.startswith("case "):
        text = f"match 0:\n {text}"
    elif text.startswith("match "):
        text = f"{text}\n case 0:"
    try:
        ast.parse(f"{text.removeprefix('el')} pass")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True

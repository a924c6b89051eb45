"""JMESPath, compiled and evaluated within bounds: 600 characters may not build 2^80 values.

Work is counted, not timed, so that a workflow comes to the same end on every replay. Python shares
what `[@, @]` holds twice, so a small object graph may stand for an endless document: results are
measured as the document that they stand for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.functions import Functions, signature
from jmespath.visitor import Options, TreeInterpreter

from planloom.planner.language.values import is_deeper

PATH_DEPTH_MAX = 100
"""Levels of an expression, and of a literal in it, so that neither runs out of stack."""
NUMBER_MAX_BITS = 14_284
"""4,300 digits: readers of JSON take no longer number, and Python writes none."""
SORT_STEPS = 20
"""How often a sort of as many items as an activity may look at compares one of them."""
SHOWN_MAX_CHARS = 80

FAULTS = (JMESPathError, RecursionError, TypeError, ValueError, ArithmeticError)
"""What JMESPath raises: its own errors, and Python's where it does not look."""


class UnresolvedError(ValueError):
    """A reference that cannot be resolved; the message says which, and how to fix it."""


class BadPathError(UnresolvedError):
    """What follows a reference's name is not JMESPath, or does not fit the value."""


class TooMuchWorkError(BadPathError):
    """An expression that takes more steps, or builds more, than is allowed."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the expressions of one value may do together.

    `steps` counts evaluated parts and items looked at (about a microsecond each); `nodes` and
    `size_bytes` measure what is built, as JSON text would hold it.
    """

    steps: int
    nodes: int
    size_bytes: int


IN_WORKFLOW = Bounds(steps=100_000, nodes=100_000, size_bytes=2_000_000)
"""About a tenth of a second: far below Temporal's two seconds for a workflow task."""
IN_ACTIVITY = Bounds(steps=2_000_000, nodes=2_000_000, size_bytes=128 * 1024 * 1024)


@dataclass(slots=True)
class Meter:
    """Counts the work of one or more evaluations against their bounds."""

    bounds: Bounds = IN_WORKFLOW
    steps: int = 0
    nodes: int = 0
    size_bytes: int = 0

    def step(self, count: int = 1) -> None:
        """Count work.

        Raises:
            TooMuchWorkError: it is more than the bounds allow.
        """
        self.steps += count
        if self.steps > self.bounds.steps:
            raise TooMuchWorkError(f"takes more than {self.bounds.steps:,} steps")

    def text(self, size: int) -> None:
        """Count built text.

        Raises:
            TooMuchWorkError: as `step`.
        """
        self.size_bytes += size
        if self.size_bytes > self.bounds.size_bytes:
            raise TooMuchWorkError(f"builds more than {self.bounds.size_bytes:,} bytes")

    def built(self, value: Any) -> None:
        """Count a built value by the JSON document that it stands for.

        Raises:
            TooMuchWorkError: as `step`.
        """
        stack = [value]
        while stack:
            each = stack.pop()
            self.nodes += 1
            if self.nodes > self.bounds.nodes:
                raise TooMuchWorkError(f"builds more than {self.bounds.nodes:,} values")
            match each:
                case str():
                    self.text(_size_of(each) + 2)
                case list():
                    self.text(2 + len(each))
                    stack += each
                case dict():
                    self.text(2 + sum(_size_of(k) + 4 for k in each))
                    stack += each.values()
                case _:
                    self.text(5)


def _size_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _work_to_sort(value: Any) -> int:
    """Comparing long texts is work, also where they only differ at their ends."""
    return SORT_STEPS * len(value) // 1000 if isinstance(value, str) else 0


class _Functions(Functions):
    """JMESPath's functions, charged for the items and characters that they go through."""

    _FREE = ("length", "type", "not_null", "to_array")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def call_function(self, function_name: str, resolved_args: Iterable[Any]) -> Any:
        for each in () if function_name in self._FREE else resolved_args:
            match each:
                case str():
                    self._meter.step(len(each) // 1000)
                case list() | dict():
                    self._meter.step(len(each))
                    if function_name in ("sort", "max", "min"):
                        self._meter.step(sum(map(_work_to_sort, each)))
        found = super().call_function(function_name, resolved_args)
        if isinstance(found, float) and not math.isfinite(found):
            return None  # to_number('nan'): JSON has no form for it
        if isinstance(found, int) and found.bit_length() > NUMBER_MAX_BITS:
            return None  # a sum of numbers of four thousand digits
        return found

    def _create_key_func(self, *args: Any) -> Callable[[Any], Any]:
        key_of = super()._create_key_func(*args)  # type: ignore[misc]

        def counted(item: Any) -> Any:
            key = key_of(item)
            self._meter.step(_work_to_sort(key))
            return key

        return counted

    @signature({"types": []})
    def _func_to_string(self, arg: Any) -> Any:
        if isinstance(arg, str):
            return arg
        self._meter.built(arg)
        return json.dumps(arg, separators=(",", ":"), default=str)

    @signature({"types": ["array", "string"]}, {"types": []})
    def _func_contains(self, subject: Any, search: Any) -> Any:
        if isinstance(subject, list) and isinstance(search, list | dict):
            nodes = self._meter.nodes
            self._meter.built(search)
            self._meter.step((self._meter.nodes - nodes) * len(subject))
        elif isinstance(subject, list) and isinstance(search, str):
            self._meter.step(len(search) // 1000 * len(subject))
        return search in subject

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, array: list[str]) -> str:
        self._meter.text(sum(map(len, array)) + len(separator) * len(array))
        return separator.join(array)

    @signature({"types": ["array", "string"]})
    def _func_reverse(self, arg: Any) -> Any:
        if isinstance(arg, str):
            self._meter.text(len(arg))
        return arg[::-1]


class _Interpreter(TreeInterpreter):
    """JMESPath's evaluation, counted. One for each evaluation."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(Options(custom_functions=_Functions(meter)))
        self._meter = meter

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._meter.step()
        return super().visit(node, *args, **kwargs)

    def visit_comparator(self, node: Any, value: Any) -> Any:
        if node["value"] not in ("eq", "ne"):
            return super().visit_comparator(node, value)
        left, right = (self.visit(child, value) for child in node["children"])
        is_equal = self._is_equal(left, right)
        return is_equal if node["value"] == "eq" else not is_equal

    def _is_equal(self, left: Any, right: Any) -> bool:
        if isinstance(left, list | dict) and isinstance(right, list | dict):
            if type(left) is not type(right) or len(left) != len(right):
                return False
            self._meter.built(left)  # Python compares what stands for one document part by part
        elif isinstance(left, str) and isinstance(right, str):
            self._meter.step(min(len(left), len(right)) // 1000)
        return bool(self.COMPARATOR_FUNC["eq"](left, right))

    def visit_flatten(self, node: Any, value: Any) -> Any:
        found = super().visit_flatten(node, value)
        if found is not None:
            self._meter.step(len(found))
        return found

    def visit_slice(self, node: Any, value: Any) -> Any:
        found = super().visit_slice(node, value)
        if found is not None:
            self._meter.step(len(found))
        return found


_SELECTING = (
    "field",
    "index",
    "subexpression",
    "index_expression",
    "pipe",
    "current",
    "identity",
    "literal",
    "or_expression",
    "and_expression",
)
"""Parts of an expression that build nothing: they give what is there, or a literal."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. `is_selection`: it only picks a part of its value, and builds none."""

    text: str
    tree: Any
    is_selection: bool

    def search(self, value: Any, meter: Meter) -> Any:
        """What the expression finds in `value`; None when it finds nothing.

        Raises:
            BadPathError: it does not fit the value, or its work or result is beyond the bounds.
        """
        try:
            found = _Interpreter(meter).visit(self.tree, value)
            if not self.is_selection:
                meter.built(found)
        except BadPathError:
            raise
        except FAULTS as error:
            raise BadPathError(fault_of(error)) from None
        return found


@lru_cache(maxsize=4096)
def compiled_path(path: str) -> Expression:
    """The JMESPath after a reference's name: `.a.b`, `[0]`, ` | length(@)`.

    Raises:
        BadPathError: it does not parse, nests too deep, or calls an unknown function.
    """
    if path[0] not in ".[|":
        raise BadPathError(f'a name is followed by ".", "[" or "|", not by "{path[0]}"')
    return compiled_expression("@" + path)


def compiled_expression(expression: str) -> Expression:
    """A JMESPath expression that can be evaluated.

    Raises:
        BadPathError: as `compiled_path`.
    """
    try:
        tree = jmespath.compile(expression).parsed
    except FAULTS as error:
        raise BadPathError(fault_of(error)) from None
    level: list[Any] = [tree]
    is_selection = True
    for _ in range(PATH_DEPTH_MAX):
        for node in level:
            is_selection = is_selection and node["type"] in _SELECTING
            if node["type"] == "function_expression":
                _check_function(node["value"])
            else:
                _check_literal(node.get("value"))
        level = [c for n in level for c in n.get("children", ()) if isinstance(c, dict)]
        if not level:
            return Expression(expression, tree, is_selection)
    raise BadPathError(f"is nested deeper than {PATH_DEPTH_MAX} levels")


def _check_function(name: str) -> None:
    known = Functions.FUNCTION_TABLE
    if name not in known:
        near = get_close_matches(name, list(known), n=1)
        raise BadPathError(
            f'no function "{shortened(name)}".' + (f' Did you mean "{near[0]}"?' if near else "")
        )


def _check_literal(value: Any) -> None:
    """What an expression itself holds becomes part of its result: a literal, the name of a field.

    Its text is that of JSON as Python reads it, with NaN and halves of characters.
    """
    if is_deeper(value, PATH_DEPTH_MAX):
        raise BadPathError(f"holds a literal that is nested deeper than {PATH_DEPTH_MAX} levels")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise BadPathError(
            "holds NaN, Infinity or half of a character, which no JSON can hold"
        ) from None


def fault_of(error: Exception) -> str:
    """What JMESPath found wrong, in one line and without the values that it looked at."""
    match error:
        case RecursionError():
            return "is nested too deeply"
        case JMESPathTypeError():
            wanted = " or ".join(error.expected_types)
            return f"{error.function_name}() needs {wanted}, found {error.actual_type}"
        case _:
            return str(error).split("\n")[0].removesuffix(", for expression:")[:160]


def shortened(text: str) -> str:
    """A text as messages show it."""
    return text if len(text) <= SHOWN_MAX_CHARS else text[: SHOWN_MAX_CHARS - 1] + "…"

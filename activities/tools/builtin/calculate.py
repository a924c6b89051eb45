"""`calculate`: arithmetic on a safe evaluator, with bounds on every number."""

from __future__ import annotations

import ast
import math
import operator
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import simpleeval

from planloom.activities.tools.builtin.workspace import computing
from planloom.activities.tools.decorator import ToolContext, ToolError, tool

EXPRESSION_MAX_CHARS = 20_000
INTEGER_MAX_BITS = 12_000
"""About 3,600 digits: Python refuses to print more than 4,300."""

DIGITS_MAX = 4_000
WORK_MAX = 300_000
"""Of one expression, in steps of about a microsecond; a sum of 10,000 numbers takes 10,000."""

Number = int | float


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        # Known before it is computed: 9**9**9 would take forever.
        _bounded(_bits(base) * exponent if abs(base) > 1 else 1)
    return base**exponent


def _times(left: Any, right: Any) -> Any:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise ToolError("calculate: only numbers can be multiplied")
    _bounded(_bits(left) + _bits(right))
    return left * right


def _bounded(bits: int) -> None:
    if bits > INTEGER_MAX_BITS:
        raise ToolError("calculate: the number would have more than 3,600 digits")


def work_of(name: str, args: Sequence[Any]) -> float:
    """About how many microseconds an operation takes, from its name and operands alone."""
    numbers = [n for arg in args for n in (arg if isinstance(arg, list) else [arg])]
    sizes = [_bits(n) / 1_000 for n in numbers]
    match name, args:
        case "comb", [int() as n, int() as k] if 0 <= k <= n:
            return min(k, n - k) * n / 8_000
        case "factorial", [int() as n] if n >= 0:
            return n / 10
        case (("pow" | "Pow"), [int(), int() as exponent]):
            # More than that is refused before it is computed.
            return 1 + min(sizes[0] * max(exponent, 0), INTEGER_MAX_BITS / 1_000) ** 2
        case "round", [_, int() as digits]:
            return 1 + (min(abs(digits), DIGITS_MAX) / 300 + sizes[0]) ** 2
        case _:
            return len(numbers) + sum(size * size for size in sizes) * 4


def _factorial(n: int) -> int:
    if n > 1_000:
        raise ToolError("calculate: factorial is for at most 1000")
    return math.factorial(n)


def _combinations(n: int, k: int) -> int:
    if n > 10_000:
        raise ToolError("calculate: comb is for at most 10000")
    return math.comb(n, k)


def _round(value: Number, digits: int | None = None) -> Number:
    if digits is None:
        return round(value)
    # Python computes 10 ** -digits for an integer: with many digits it would take forever.
    return round(value, max(-DIGITS_MAX, min(DIGITS_MAX, int(digits))))


def _of_list(function: Callable[[Sequence[Any]], Any]) -> Callable[..., Any]:
    # `mean(1, 2)` and `mean([1, 2])` are both how people write it.
    def apply(*values: Any) -> Any:
        return function(values[0] if len(values) == 1 and isinstance(values[0], list) else values)

    return apply


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "round": _round,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "int": int,
    "float": float,
    "min": _of_list(min),
    "max": _of_list(max),
    "sum": _of_list(sum),
    "prod": _of_list(lambda values: _product(values)),
    "len": len,
    "mean": _of_list(statistics.fmean),
    "median": _of_list(statistics.median),
    "stdev": _of_list(lambda values: statistics.stdev(map(float, values))),
    "sqrt": math.sqrt,
    "cbrt": math.cbrt,
    "exp": math.exp,
    "log": math.log,
    "ln": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "atan2": math.atan2,
    "degrees": math.degrees,
    "radians": math.radians,
    "hypot": math.hypot,
    "pow": _power,
    "factorial": _factorial,
    "comb": _combinations,
    "gcd": math.gcd,
}
NAMES = {
    "pi": math.pi,
    "e": math.e,
    "tau": math.tau,
    "true": True,
    "false": False,
    "True": True,
    "False": False,
}
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _times,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ALLOWED = (
    ast.Expression,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.Compare,
    ast.IfExp,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.List,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
)


def _product(values: Sequence[Number]) -> Number:
    result: Number = 1
    for value in values:
        result = _times(result, value)
    return result


class _Evaluator(simpleeval.EvalWithCompoundTypes):  # type: ignore[misc]
    """simpleeval with numbers and lists of numbers only: no text, no attributes, no loops."""

    def __init__(self) -> None:
        self._work = 0.0
        super().__init__(
            operators={kind: self._counted(kind.__name__, f) for kind, f in OPERATORS.items()},
            functions={name: self._counted(name, f) for name, f in FUNCTIONS.items()},
            names=dict(NAMES),
        )

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its work added up before it begins."""

        def call(*args: Any) -> Any:
            self._work += work_of(name, args)
            if self._work > WORK_MAX:
                raise ToolError(
                    "calculate: the expression is too much work (many operations on very long "
                    "numbers): split it, or use query_sql for tables"
                )
            return function(*args)

        return call


def _parsed(expression: str) -> ast.Expression:
    if len(expression) > EXPRESSION_MAX_CHARS:
        raise ToolError(
            f"calculate: the expression has {len(expression):,} characters, at most "
            f"{EXPRESSION_MAX_CHARS:,} are read. For many numbers use query_sql."
        )
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        deep = "it is nested too deep; for many numbers write sum([1, 2, 3])"
        said = error.msg if isinstance(error, SyntaxError) else deep
        raise ToolError(
            f"calculate: the expression cannot be read: {said}. Write arithmetic such as "
            '"(3 + 4) * 2 ** 10 / sqrt(2)", numbers without units or thousands separators.'
        ) from None
    if isinstance(tree.body, ast.Tuple):
        raise ToolError(
            "calculate: a comma stands between two numbers: write 67391582, not 67,391,582"
        )
    for node in ast.walk(tree):
        _check(node)
    return tree


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.BitXor):
        raise ToolError('calculate: "^" is no power here: write 2 ** 3')
    if isinstance(node, ast.Constant) and not isinstance(node.value, int | float):
        raise ToolError(
            f"calculate: {type(node.value).__name__} is not a number. It works with numbers only; "
            "for text use ask."
        )
    if not isinstance(node, _ALLOWED) or (
        isinstance(node, ast.operator | ast.unaryop | ast.cmpop) and type(node) not in OPERATORS
    ):
        raise ToolError(
            f"calculate: {type(node).__name__} is not part of it. There are + - * / // % **, "
            "comparisons, `a if b else c`, lists, and functions: " + ", ".join(sorted(FUNCTIONS))
        )
    if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name):
        raise ToolError("calculate: only functions by name can be called, such as sqrt(2)")


@tool(
    examples=['calculate(expression="(67.4 - 48.1) / 48.1 * 100")', 'calculate("mean([1, 2, 4])")'],
)
def calculate(expression: str, context: ToolContext) -> Any:
    """Compute an arithmetic expression and give the number.

    Args:
        expression: numbers, + - * / // % **, comparisons, sqrt log exp round min max sum mean …
    """
    with computing(context, "calculate"):
        return _as_number(_value_of(expression))


def _value_of(expression: str) -> Any:
    tree = _parsed(expression)
    try:
        return _Evaluator().eval(expression, previously_parsed=tree.body)
    except ToolError:
        raise
    except simpleeval.NameNotDefined as error:
        known = ", ".join([*NAMES, *sorted(FUNCTIONS)])
        raise ToolError(f'calculate: "{error.name}" is not known. Known: {known}') from None
    except simpleeval.FunctionNotDefined as error:
        known = ", ".join(sorted(FUNCTIONS))
        raise ToolError(f'calculate: no function "{error.func_name}". Known: {known}') from None
    except ZeroDivisionError:
        raise ToolError("calculate: division by zero") from None
    except OverflowError:
        raise ToolError("calculate: the result is too large for a number") from None
    except RecursionError:
        raise ToolError(
            "calculate: it is nested too deep. For many numbers write sum([1, 2, 3])"
        ) from None
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ToolError(f"calculate: {error}") from None
    except simpleeval.InvalidExpression as error:
        raise ToolError(f"calculate: {error}") from None


def _as_number(result: Any) -> Any:
    if isinstance(result, list):
        return [_as_number(each) for each in result]
    if isinstance(result, bool):
        return result
    if isinstance(result, int):
        _bounded(_bits(result))
        return result
    if isinstance(result, float) and math.isfinite(result):
        return result
    if isinstance(result, complex):
        raise ToolError("calculate: the result is a complex number (a root of a negative one?)")
    raise ToolError(f"calculate: the result, {result!r:.50}, is not a number")

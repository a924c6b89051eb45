"""`@tool`, `ToolError` and `ToolContext` (DESIGN §4, Tools).

Users import this through `planloom`, and a tool module is imported by every worker: so nothing
heavy is imported here.
"""

from __future__ import annotations

import hashlib
import inspect
import keyword
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from pydantic import PydanticUserError

from planloom.activities.tools.closed import Trusted
from planloom.activities.tools.docstrings import parse_docstring
from planloom.activities.tools.signature import (
    Signature,
    ToolDefinitionError,
    signature_of,
)
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.values import JsonValue, parse_seconds

P = ParamSpec("P")
R = TypeVar("R")

Check = Callable[["ToolContext", dict[str, Any]], Any]
"""Asked, with the arguments, whether a claimed act was done: its result, or None if it was not."""
Fingerprint = Callable[["ToolContext", dict[str, Any]], str]
"""What a result depends on beside the arguments (a file's time and size): part of the cache key."""


class ToolError(Exception):
    """What a tool tells the model (or the person) about why it could not answer.

    `retry` says that the same call may succeed later and that nothing was done by this one;
    `retry_after` is how many seconds to wait first, and implies `retry`.
    """

    def __init__(
        self, message: str, *, retry: bool = False, retry_after: float | None = None
    ) -> None:
        self.message = message
        self.retry = retry or retry_after is not None
        self.retry_after = retry_after
        super().__init__(message)


@dataclass(frozen=True)
class ToolContext:
    """What a tool may know of its call: a parameter annotated `ToolContext` receives it.

    `key` is the idempotency key: the same on every attempt of one task. `run_id` is the workflow id
    of the run. `is_cancelled` turns true when the call is cancelled or out of time, so that a sync
    tool, which cannot be interrupted, can stop by itself.
    """

    key: str = ""
    workspace: Path = field(default_factory=Path.cwd)
    task: str = ""
    run_id: str = ""
    tenant: str | None = None
    attempt: int = 1
    trusted: Trusted = field(default_factory=Trusted, repr=False)
    """Places in the workspace that file tools keep closed."""
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def owner(self) -> str:
        """The run that the call belongs to, the same for its child runs: `<run>/<task>`."""
        return self.run_id.partition("/")[0]

    @property
    def is_cancelled(self) -> bool:
        return self.cancelled.is_set()


class Tool(Generic[P, R]):
    """A function with its `ToolSpec`. Calling it calls the plain function."""

    spec: ToolSpec
    check: Check | None
    fingerprint: Fingerprint | None

    def __init__(self, function: Callable[P, R], signature: Signature, spec: ToolSpec) -> None:
        self.function = function
        self.spec = spec
        self.check = None
        self.fingerprint = None
        self._signature = signature
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.spec.name} of {self.__module__}>"

    @property
    def origin(self) -> str:
        """Where it comes from, in a message."""
        return f"module {self.__module__}"

    @property
    def untyped(self) -> list[str]:
        """The names of the parameters that have no annotation."""
        parameters = inspect.signature(self.function).parameters.values()
        return [p.name for p in parameters if p.annotation is inspect.Parameter.empty]

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def validate(self, args: Mapping[str, JsonValue]) -> dict[str, Any]:
        """Keyword arguments for the function, defaults left out, without the context.

        Raises:
            ToolArgumentsError: naming the tool and every argument that does not fit.
        """
        return self._signature.validate(self.spec.name, args)

    def call(self, kwargs: Mapping[str, Any], context: ToolContext) -> R | Awaitable[R]:
        """Call the function with validated arguments and, where it wants one, the context."""
        ready = dict(kwargs)
        if self._signature.context_name:
            ready[self._signature.context_name] = context
        return cast(Callable[..., R], self.function)(**ready)


def _version_of(function: Callable[..., Any], schema: Mapping[str, JsonValue]) -> str:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or frozen: the byte code stands for it
        code = function.__code__
        source = f"{code.co_code.hex()}{code.co_consts!r}{code.co_names!r}"
    return hashlib.sha256(f"{source}{schema!r}".encode()).hexdigest()[:12]


_NAME_HINT = "Use letters, digits and _, beginning with a letter."


@dataclass(frozen=True)
class _Options:
    name: str | None = None
    idempotent: bool | None = None
    side_effects: bool = False
    outside: bool = False
    local: bool = False
    timeout: float | str | None = None
    cost: float | None = None
    pool: str | None = None
    examples: tuple[str, ...] = ()
    check: Check | None = None
    fingerprint: Fingerprint | None = None
    version: str | None = None


def _seconds_of(function: Callable[..., Any], timeout: float | str | None) -> float | None:
    if timeout is None:
        return None
    try:
        seconds = float(cast(float, parse_seconds(timeout)))
    except (TypeError, ValueError) as error:
        raise ToolDefinitionError(f"tool {function.__qualname__}: timeout: {error}") from None
    if not 0 < seconds <= 30 * 86400:
        raise ToolDefinitionError(
            f"tool {function.__qualname__}: timeout={timeout!r} must be above 0 and at most 30 days"
        )
    return seconds


def tools_of(given: Iterable[Callable[..., Any]]) -> list[Tool[..., Any]]:
    """What a program gives as `tools=`: tools, or typed functions, which become tools.

    Raises:
        TypeError: it is not a list of such.
    """
    if callable(given):
        raise TypeError(f"tools is a list: tools=[{getattr(given, '__name__', 'tool')}]")
    if isinstance(given, str):
        raise TypeError(f'tools is a list of functions, found the text "{given:.100}"')
    return [t if isinstance(t, Tool) else tool(t) for t in given]


def _make(
    function: Callable[P, R], options: _Options, local_names: Mapping[str, Any]
) -> Tool[P, R]:
    if not inspect.isfunction(cast(Any, function)):
        raise ToolDefinitionError(f"@tool goes on a function; {function!r} is not one")
    name = options.name or function.__name__
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name) or name == "join":
        raise ToolDefinitionError(f'tool {function.__qualname__}: name "{name}". {_NAME_HINT}')
    if options.cost is not None and options.cost < 0:
        raise ToolDefinitionError(f'tool "{name}": cost={options.cost} must be 0 or more dollars')
    docstring = parse_docstring(function.__doc__)
    try:
        signature = signature_of(
            function, context_type=ToolContext, local_names=local_names, docstring=docstring
        )
        schema = signature.schema()
    except PydanticUserError as error:
        reason = str(error).partition("\n")[0].partition(" Set `")[0]
        raise ToolDefinitionError(
            f'tool "{name}": a parameter has no JSON Schema ({reason}). '
            "Use plain types, Literal, lists, dicts or pydantic models."
        ) from error
    idempotent = not options.side_effects if options.idempotent is None else options.idempotent
    spec = ToolSpec(
        name=name,
        description=docstring.text,
        parameters=schema,
        idempotent=idempotent,
        side_effects=options.side_effects,
        outside=options.outside,
        # When its worker dies, a local activity starts again as attempt 1: a later attempt must be
        # known as one.
        local=options.local and (idempotent or not options.side_effects),
        timeout_seconds=_seconds_of(function, options.timeout),
        cost_usd=options.cost,
        pool=options.pool,
        examples=list(options.examples),
        version=options.version or _version_of(function, schema),
    )
    new_tool = Tool(function, signature, spec)
    new_tool.check = options.check
    new_tool.fingerprint = options.fingerprint
    return new_tool


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    idempotent: bool | None = None,
    side_effects: bool = False,
    outside: bool = False,
    local: bool = False,
    timeout: float | str | None = None,
    cost: float | None = None,
    pool: str | None = None,
    examples: list[str] | tuple[str, ...] = (),
    check: Check | None = None,
    fingerprint: Fingerprint | None = None,
    version: str | None = None,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(function: Callable[P, R] | None = None, /, **given: Any) -> Any:
    """Make a tool of a typed function, sync or async; bare or with options.

    The signature is the argument schema; the docstring is what the planner reads: its text, and
    its `Args:` for the parameters. A parameter annotated `ToolContext` is filled in by Planloom.

    Options: `name`; `idempotent` (equal calls may share one result: default true, false with side
    effects); `side_effects` (it changes the world: never cached, claimed before it acts);
    `outside` (its output comes from outside, such as a page: `approval: tainted` asks before it is
    acted upon); `local` (a few milliseconds: shares one activity with other such tasks, and runs
    inside the workflow's worker when it is alone; ignored with side effects, unless it is
    `idempotent`);
    `timeout` (seconds or "30s"); `cost` (usd per call); `pool`; `examples` (calls as the planner
    should write them); `check` (was a claimed act done? its result, or None); `fingerprint` (what
    the result depends on besides the arguments); `version` (default: a hash of source and schema).

    Raises:
        ToolDefinitionError: at import, when the function cannot be a tool.
    """
    local_names = sys._getframe(1).f_locals
    if "examples" in given:
        given["examples"] = tuple(given["examples"])
    known = [field.name for field in fields(_Options)]
    for option in given:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "Options: " + ", ".join(known)
            raise ToolDefinitionError(f'@tool has no option "{option}". {hint}')
    options = _Options(**given)
    if function is not None:
        return _make(function, options, local_names)
    return lambda f: _make(f, options, local_names)

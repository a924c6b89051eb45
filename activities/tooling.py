"""Tools: `@tool`, `ToolError`, `ToolContext`, and the registry that finds them (DESIGN §4, Tools).

Users import this through `planloom`, and a tool module is imported by every worker: so nothing
heavy is imported here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import keyword
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from pydantic import PydanticUserError

from activities.docstrings import parse_docstring
from activities.tool_signature import (
    Signature,
    ToolArgumentsError,
    ToolDefinitionError,
    signature_of,
)
from planner.catalog import ToolSpec
from planner.values import JsonValue, Problem, parse_seconds

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
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

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


def _make(
    function: Callable[P, R], options: _Options, local_names: Mapping[str, Any]
) -> Tool[P, R]:
    if not inspect.isfunction(cast(Any, function)):
        raise ToolDefinitionError(f"@tool goes on a function; {function!r} is none")
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
        said = str(error).partition("\n")[0].partition(" Set `")[0]
        raise ToolDefinitionError(
            f'tool "{name}": a parameter has no JSON Schema ({said}). '
            "Use plain types, Literal, lists, dicts or pydantic models."
        ) from error
    idempotent = not options.side_effects if options.idempotent is None else options.idempotent
    spec = ToolSpec(
        name=name,
        description=docstring.text,
        parameters=schema,
        idempotent=idempotent,
        side_effects=options.side_effects,
        local=options.local,
        timeout_seconds=_seconds_of(function, options.timeout),
        cost_usd=options.cost,
        pool=options.pool,
        examples=list(options.examples),
        version=options.version or _version_of(function, schema),
    )
    made = Tool(function, signature, spec)
    made.check = options.check
    made.fingerprint = options.fingerprint
    return made


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    idempotent: bool | None = None,
    side_effects: bool = False,
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
    effects); `side_effects` (it changes the world: never cached, claimed before it acts); `local`
    (a few milliseconds: runs inside the workflow's worker);
    `timeout` (seconds or "30s"); `cost` (usd per call); `pool`; `examples` (calls as the planner
    should write them); `check` (was a claimed act done? its result, or None); `fingerprint` (what
    the result depends on beside the arguments); `version` (default: a hash of source and schema).

    Raises:
        ToolDefinitionError: at import, when the function cannot be a tool.
    """
    local_names = sys._getframe(1).f_locals
    if "examples" in given:
        given["examples"] = tuple(given["examples"])
    options = _Options(**given)
    if function is not None:
        return _make(function, options, local_names)
    return lambda f: _make(f, options, local_names)


RESERVED_MODULES = ("planner", "workflows", "activities", "worker", "cli", "planloom", "console")
"""Planloom's own top-level names: a tool module of the same name would shadow or be shadowed."""
ENTRY_POINT_GROUP = "planloom.tools"
_HOME = Path(__file__).resolve().parent.parent


class ToolLoadError(Exception):
    """Tool modules that cannot be used; `problems` lists every one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(p.line() for p in problems))


class ToolRegistry:
    """The tools of one worker, by name, in the order they were registered.

    `extra_specs` are tools that the catalog lists and that are compiled to something else (`ask`).
    """

    def __init__(
        self, tools: Iterable[Tool[..., Any]] = (), extra_specs: Iterable[ToolSpec] = ()
    ) -> None:
        self._tools: dict[str, Tool[..., Any]] = {}
        self._extra = {spec.name: spec for spec in extra_specs}
        for each in tools:
            self.register(each)

    def register(self, new: Tool[..., Any]) -> None:
        """Add a tool. The same tool twice (a module that imports another's) is no duplicate.

        Raises:
            ToolLoadError: another tool, or a built-in, has its name.
        """
        if problem := self._clash(new):
            raise ToolLoadError([problem])
        self._tools.setdefault(new.spec.name, new)

    def get(self, name: str) -> Tool[..., Any] | None:
        return self._tools.get(name)

    @property
    def names(self) -> list[str]:
        return [*self._extra, *self._tools]

    @property
    def specs(self) -> list[ToolSpec]:
        return [*self._extra.values(), *(t.spec for t in self._tools.values())]

    def nearest(self, name: str) -> str | None:
        """The registered name most like `name`, or None."""
        return next(iter(get_close_matches(name, self.names, n=1)), None)

    def load_modules(self, names: Sequence[str], *, search: Sequence[Path] = ()) -> None:
        """Import modules and register their tools; `search` joins the end of the import path.

        Raises:
            ToolLoadError: with every module that cannot be used, and why.
        """
        for folder in search:
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
        problems: list[Problem] = []
        for name in names:
            problems += self._load(name, f"PLANLOOM_TOOLS: {name}")
        if problems:
            raise ToolLoadError(problems)

    def load_entry_points(self) -> None:
        """Register the tools of installed packages (entry points of group `planloom.tools`).

        An entry point names a module, or one tool in it. Raises as `load_modules` does.
        """
        problems: list[Problem] = []
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            where = f'entry point "{entry.name}" ({entry.value})'
            module, _, attribute = entry.value.partition(":")
            problems += self._load(module.strip(), where, only=attribute.strip())
        if problems:
            raise ToolLoadError(problems)

    def _load(self, name: str, where: str, *, only: str = "") -> list[Problem]:
        if problem := _unusable_name(name, where):
            return [problem]
        try:
            module = importlib.import_module(name)
        except Exception as error:
            return [
                Problem(
                    path=where,
                    code="tool_module_import",
                    message=f"the module does not import: {type(error).__name__}: {error}.",
                    hint="Run `python -c 'import " + name + "'` with the worker's Python.",
                )
            ]
        found = [t for t in _tools_in(module) if not only or t is getattr(module, only, None)]
        if not found:
            return [
                Problem(
                    path=where,
                    code="tool_module_empty",
                    message=f"no @tool in {getattr(module, '__file__', None) or name}.",
                    hint="Put `@tool` (from planloom) on its functions, or name another module.",
                )
            ]
        problems = []
        for each in found:
            if clash := self._clash(each):
                problems.append(clash)
            else:
                self._tools.setdefault(each.spec.name, each)
        return problems

    def _clash(self, new: Tool[..., Any]) -> Problem | None:
        name = new.spec.name
        old = self._tools.get(name)
        if old is new or (old is None and name not in self._extra):
            return None
        other = f"module {old.__module__}" if old else "Planloom itself"
        return Problem(
            path=f"module {new.__module__}",
            code="duplicate_tool",
            message=f'tool "{name}" is already there, from {other}.',
            hint=f'Give one of them another name: @tool(name="my_{name}").',
        )


def _tools_in(module: ModuleType) -> list[Tool[..., Any]]:
    found = [value for value in vars(module).values() if isinstance(value, Tool)]
    return list(dict.fromkeys(found))


def _unusable_name(name: str, where: str) -> Problem | None:
    if name.endswith(".py") or "/" in name:
        return Problem(
            path=where,
            code="tool_module_name",
            message="this is a file, not a module.",
            hint=f'Write "{Path(name).stem}", with its folder on PYTHONPATH.',
        )
    top = name.partition(".")[0]
    if top in RESERVED_MODULES:
        return Problem(
            path=where,
            code="tool_module_shadow",
            message=f'a tool module may not be called "{top}": Planloom has a module of that '
            "name, and one of the two would hide the other.",
            hint=f'Rename it, for example to "my_{top}".',
        )
    return None


def check_own_modules() -> None:
    """Refuse to start when a file elsewhere on the import path hides one of Planloom's modules.

    Raises:
        ToolLoadError: naming each such file.
    """
    problems = []
    for name in RESERVED_MODULES:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec else None
        if origin and _HOME not in Path(origin).resolve().parents:
            problems.append(
                Problem(
                    path=origin,
                    code="tool_module_shadow",
                    message=f'this file hides Planloom\'s own module "{name}".',
                    hint="Rename it, or take its folder off PYTHONPATH.",
                )
            )
    if problems:
        raise ToolLoadError(problems)


__all__ = [
    "RESERVED_MODULES",
    "Tool",
    "ToolArgumentsError",
    "ToolContext",
    "ToolDefinitionError",
    "ToolError",
    "ToolLoadError",
    "ToolRegistry",
    "check_own_modules",
    "tool",
]

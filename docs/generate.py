"""Write the reference pages and schemas from the code: the first half of `make docs`.

python docs/generate.py            writes docs/reference/*.md and planner/schemas/*.json
python docs/generate.py --check    writes nothing; exit 1 when a file is out of date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from generator.commands import command_page
from generator.machines import machines_page
from generator.models import PAGES, model_page
from generator.settings import settings_page
from pydantic import BaseModel

from planloom.planner.contract import requests, results
from planloom.planner.language import plan, values
from planloom.planner.syntax import joiner

TARGET = Path(__file__).resolve().parent / "reference"
NOTICE = "<!-- Written by `make docs`; do not edit. -->\n\n"
SCHEMAS = TARGET.parent.parent / "planner" / "schemas"
SCHEMA_FILES: dict[str, type[BaseModel] | dict[str, values.JsonValue]] = {
    "plan.schema.json": plan.Plan,
    "run-request.schema.json": requests.RunRequest,
    "run-result.schema.json": results.RunResult,
    "agent-request.schema.json": requests.AgentRequest,
    "team-request.schema.json": requests.TeamRequest,
    "joiner-output.schema.json": joiner.JOIN_SCHEMA,
}


def schema_text(model: type[BaseModel] | dict[str, values.JsonValue]) -> str:
    """A model's JSON Schema, or one written by hand, as the file that is published."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **(model if isinstance(model, dict) else model.model_json_schema()),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False)


def main() -> int:
    pages = {TARGET / name: NOTICE + model_page(*content) for name, content in PAGES.items()}
    pages[TARGET / "settings.md"] = NOTICE + settings_page()
    pages[TARGET / "cli.md"] = NOTICE + command_page()
    pages[TARGET / "machines.md"] = NOTICE + machines_page()
    pages |= {SCHEMAS / name: schema_text(model) for name, model in SCHEMA_FILES.items()}
    stale = []
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        text, name = text.rstrip() + "\n", path.name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(("out of date: " if "--check" in sys.argv else "written: ") + ", ".join(stale))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())

"""`planloom models`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from planloom.console.app import SETUP, Json, app, errors, fail, out, say_json

OFFERS_MAX = 20


@app.command(rich_help_panel=SETUP)
def models(
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask each endpoint six small questions (a few cents).")
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="With --probe: write what it finds to it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the endpoints offer, which model is used, and what they were found to accept.

    Without --probe no model is asked: it shows what the endpoints list, and what workers have
    learned in the last hour.

    Example: planloom models --probe
    """
    if write is not None and not probe:
        raise fail("--write needs --probe: without it nothing new is known", code=2)
    from planloom.console.documents import models_now

    with errors():
        rows = models_now(probe=probe)
    if as_json:
        say_json(rows)
    else:
        for row in rows:
            _show(row)
    settings = [t for row in rows if (t := (row.get("probe") or {}).get("settings"))]
    if write is not None and settings:
        _write(write, settings)
    if probe and not all(_answers(row) for row in rows):
        raise typer.Exit(1)


def _answers(row: dict[str, Any]) -> bool:
    return any(r["question"] == "answers" and r["is_so"] for r in row["probe"]["rows"])


def _show(row: dict[str, Any]) -> None:
    about = f"  {row['base_url']}  models: {', '.join(row['models'])}"
    out.print(Text.assemble((row["pool"], "bold"), about))
    _show_offers(row)
    for known in row["known"]:
        at = datetime.fromtimestamp(float(known["learned_at"]), UTC)
        out.print(f"  {known['model']}, learned {at:%Y-%m-%d %H:%M} UTC: {_in_words(known)}")
    probe = row.get("probe")
    if probe is None:
        return
    if probe["model"] is None:
        out.print(f"  not asked: {probe['error']}", markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (probe["model"], "", "seen", "seconds"):
        table.add_column(column)
    for answer in probe["rows"]:
        sign = "yes" if answer["is_so"] else "no"
        table.add_row(answer["question"], sign, answer["what"], f"{answer['seconds']:.1f}")
    out.print(table)
    usage = probe["usage"]
    out.print(f"  asked with {usage['input_tokens'] + usage['output_tokens']:,} tokens")
    if probe["settings"]:
        out.print(probe["settings"], markup=False)


def _show_offers(row: dict[str, Any]) -> None:
    """Which model each role takes, and what the endpoint lists."""
    roles: dict[str | None, list[str]] = {}
    for role, model in row["taken"].items():
        roles.setdefault(model, []).append(role)
    for model, of in roles.items():
        is_listed = model in row["offers"] or not row["offers"] or model is None
        told = "none: set PLANLOOM_MODEL" if model is None else model
        warning = "" if is_listed else "  (the endpoint does not list it)"
        out.print(f"  taken by {', '.join(of)}: {told}{warning}", markup=False)
    if row["offers_error"]:
        out.print(f"  it lists no models: {row['offers_error']}", markup=False)
    else:
        shown = row["offers"][:OFFERS_MAX]
        more = len(row["offers"]) - len(shown)
        end = f" … and {more} more (--json shows all)" if more else ""
        out.print(f"  offers {len(row['offers'])}: {', '.join(shown)}{end}", markup=False)


def _in_words(known: dict[str, Any]) -> str:
    parts = [f"without {name}" for name in known.get("dropped", [])]
    if known.get("response_format", "json_schema") != "json_schema":
        parts.append(f"answers constrained by {known['response_format']}")
    if known.get("is_limit_swapped"):
        parts.append("the limit by its other name")
    if known.get("max_tokens"):
        parts.append(f"at most {known['max_tokens']:,} tokens an answer")
    if known.get("window"):
        parts.append(f"a window of {known['window']:,} tokens")
    if known.get("schemas"):
        parts.append(f"{len(known['schemas'])} schemas refused")
    return ", ".join(parts) or "nothing unusual"


def _write(path: Path, settings: list[str]) -> None:
    """Put the tables into the file: those that are there already are replaced."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for block in "\n\n".join(settings).split("\n\n"):
        header, _, body = block.partition("\n")
        if header == "[context_windows]":
            text = _with_lines(text, header, body)
        else:
            text = _without(text, header).rstrip("\n") + f"\n\n{block}\n"
    path.write_text(text.lstrip("\n"), encoding="utf-8")


def _without(text: str, header: str) -> str:
    return re.sub(rf"(?m)^{re.escape(header)}[ \t]*\n(?:(?!\[).*\n?)*", "", text)


def _with_lines(text: str, header: str, body: str) -> str:
    """The lines in their table, in place of those with the same key."""
    for line in body.splitlines():
        key = line.partition(" = ")[0]
        text = re.sub(rf"(?m)^{re.escape(key)}[ \t]*=.*\n?", "", text)
    if re.search(rf"(?m)^{re.escape(header)}[ \t]*$", text) is None:
        return text.rstrip("\n") + f"\n\n{header}\n{body}\n"
    return re.sub(rf"(?m)^({re.escape(header)})[ \t]*$", rf"\1\n{body}", text, count=1)

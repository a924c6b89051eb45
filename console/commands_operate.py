"""`planloom doctor`, `codec-server`, `backup`, `restore`, `gc`: run by operators beside workers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from planloom.console.app import (
    EXIT_FAILED,
    EXIT_MISUSE,
    SETUP,
    DryRun,
    Json,
    Yes,
    app,
    confirm,
    err,
    errors,
    fail,
    out,
    say,
    say_json,
)
from planloom.console.mistakes import UsageError, checked_port

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
TOKEN_VARIABLE = "PLANLOOM_CODEC_TOKEN"
WEB_UIS = ("http://localhost:8233", "http://127.0.0.1:8233")


@app.command(rich_help_panel=SETUP)
def doctor(as_json: Json = False) -> None:
    """Look for the usual mistakes: server, worker, keys, models, tools, store, disk, clocks.

    The exit code is 1 when a line says fail. Nothing is changed, and no model is called.

    Example: planloom doctor
    """
    import asyncio

    from planloom.console.doctor import counted, examine

    findings = asyncio.run(examine())
    counts = counted(findings)
    if as_json:
        say_json({"counts": counts, "findings": [f.model_dump() for f in findings]})
    else:
        for each in findings:
            mark = (f"{each.level:<4}", COLOURS[each.level])
            out.print(Text.assemble(mark, f" {each.check:<18} {each.message}"))
            if each.hint:
                out.print(f"     {'':<18} {each.hint}", style="dim")
        out.print(", ".join(f"{count} {level}" for level, count in counts.items()))
    if counts["fail"]:
        raise typer.Exit(EXIT_FAILED)


@app.command(rich_help_panel=SETUP)
def codec_server(
    port: Annotated[int, typer.Option(help="Port; 0 means a free one.")] = 8081,
    ip: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    web_ui: Annotated[
        list[str] | None, typer.Option(help="A Web UI that may ask (default: the local ones).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let the Web UI and the temporal program read encrypted runs, with the keys of planloom.toml.

    If PLANLOOM_CODEC_TOKEN is set, callers must send it. To listen beyond this machine, set it.

    Example: planloom codec-server
    """
    from ipaddress import ip_address

    from planloom.codec import EncryptionCodec
    from planloom.console.codec_server import CodecServer
    from planloom.console.documents import settings_now
    from planloom.keys import key_ring

    with errors():
        checked_port("--port", port, lowest=0)
        keys = key_ring(settings_now())
    if keys is None:
        raise fail("there are no keys", "Add [encryption] to planloom.toml.", EXIT_MISUSE)
    token = os.environ.get(TOKEN_VARIABLE) or None
    try:
        is_here = ip_address(ip).is_loopback
    except ValueError:
        raise fail(f'"{ip}" is not an address', code=EXIT_MISUSE) from None
    if token is None and not is_here:
        hint = f"Set {TOKEN_VARIABLE}: whoever may ask reads all runs."
        raise fail(f"{ip} can be reached from other machines", hint, EXIT_MISUSE)
    try:
        server = CodecServer(
            EncryptionCodec(keys), web_uis=web_ui or WEB_UIS, token=token, ip=ip, port=port
        )
    except OSError as error:
        raise fail(f"cannot listen on {ip}:{port}: {error.strerror or error}") from None
    say_json({"address": server.address}) if as_json else say(f"codec server  {server.address}")
    with contextlib.suppress(KeyboardInterrupt):
        server.start().wait()
    server.stop()


@app.command(rich_help_panel=SETUP)
def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write, such as planloom.tar.gz.")],
    as_json: Json = False,
) -> None:
    """Back up the development database with its blobs, even while it runs.

    Example: planloom backup planloom.tar.gz
    """
    from planloom.console.backup import BackupError, back_up
    from planloom.console.documents import settings_now

    with errors():
        settings = settings_now()
    if settings.blob_url:
        hint = f"Back up {settings.blobs_place} with its own tools, after this."
        err.print(f"warning: blobs are not in the data folder. {hint}", markup=False)
    try:
        count = back_up(Path(settings.data_dir), file)
    except (BackupError, OSError) as error:
        raise fail(str(error), "PLANLOOM_DATA_DIR names the folder.") from None
    say_json({"file": str(file), "files": count}) if as_json else say(f"{file}: {count:,} files")


@app.command(rich_help_panel=SETUP)
def restore(
    file: Annotated[Path, typer.Argument(help="An archive that planloom backup wrote.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put a backup into an empty data folder (PLANLOOM_DATA_DIR); then start planloom dev.

    Example: planloom restore planloom.tar.gz
    """
    from planloom.console.backup import BackupError
    from planloom.console.backup import restore as put_back
    from planloom.console.documents import settings_now

    with errors():
        data = Path(settings_now().data_dir)
    try:
        count = put_back(file, data, dry=dry_run)
    except (BackupError, OSError) as error:
        raise fail(str(error)) from None
    if as_json:
        say_json({"folder": str(data), "files": count, "dry_run": dry_run})
    else:
        say(f"{'would write ' if dry_run else ''}{data}: {count:,} files")


@app.command(rich_help_panel=SETUP)
def gc(
    older_than: Annotated[
        str, typer.Option(help="Keep what was used within this time: 2h, 7d.")
    ] = "1d",
    forget_servers: Annotated[
        bool,
        typer.Option("--forget-servers", help="All other servers of the store are gone."),
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove blobs, claims and cached results that no run refers to, even while workers run.

    It reads every run that the server still keeps, even if it has ended. The namespace's
    retention says how long the server keeps a run.

    Example: planloom gc --older-than 7d --dry-run
    """
    from pydantic import TypeAdapter

    from planloom.console.documents import collect_now, settings_now
    from planloom.planner.contract.garbage import OLDER_THAN_MIN_SECONDS, GarbageJob
    from planloom.planner.language.values import Seconds

    with errors():
        try:
            seconds = TypeAdapter(Seconds).validate_python(older_than)
        except ValueError:
            raise UsageError(f'--older-than: "{older_than}" is not a duration such as 2h') from None
        if seconds < OLDER_THAN_MIN_SECONDS:
            raise UsageError("--older-than: values in use may be two hours old, so give 2h or more")
        if not dry_run:
            confirm(f"Remove what no run refers to from {settings_now().blobs_place}?", yes=yes)
        job = GarbageJob(older_than=seconds, is_dry_run=dry_run, forget_servers=forget_servers)
        report = collect_now(job)
    if as_json:
        say_json(report.model_dump(mode="json"))
        return
    say(f"{report.place}: {report.runs:,} runs in {', '.join(report.namespaces)}")
    removed = "would remove" if dry_run else "removed"
    for what, counts in ((removed, report.removed), ("kept", report.kept)):
        for name, amount in sorted(counts.items()):
            say(f"{what:<12}  {amount.count:>9,}  {amount.size_bytes / 1e6:>12,.3f} MB  {name}")

"""Messages when a run waits or ends, with links that decide: see docs/how-to/notify.md.

NOTIFY_URL     where messages are posted, as JSON with a field `text`
NOTIFY_SECRET  signs the links; 16 characters or more
NOTIFY_LINK    the address under which this program is reached, for links (without it: no links)
NOTIFY_LISTEN  host:port to serve links on; default 127.0.0.1:8088
NOTIFY_SECONDS how often it looks; default 5
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import html
import json
import os
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlencode

import httpx
from temporalio.service import RPCError

from planloom import Client, PlanloomError

SECONDS = float(os.environ.get("NOTIFY_SECONDS", "5"))
if missing := [name for name in ("NOTIFY_URL", "NOTIFY_SECRET") if not os.environ.get(name)]:
    raise SystemExit(f"error: {' and '.join(missing)} must be set")
SECRET = os.environ["NOTIFY_SECRET"].encode()
SECRET_MIN_BYTES = 16
DECISIONS = {"approve": "approve_plan", "reject": "reject_plan"}
WAITING = "ExecutionStatus = 'Running' AND PlanloomAwaiting IS NOT NULL"
ENDED = "ExecutionStatus != 'Running' AND CloseTime > '{since}'"
RUNS = " AND WorkflowType IN ('DagWorkflow', 'AgentWorkflow', 'TeamWorkflow')"


def signature(run: str, first: str, revision: str, decision: str) -> str:
    text = json.dumps((run, first, revision, decision)).encode()
    return hmac.new(SECRET, text, hashlib.sha256).hexdigest()


def link(run: str, first: str, revision: int, decision: str) -> str | None:
    if not (base := os.environ.get("NOTIFY_LINK")):
        return None
    query = {"run": run, "revision": str(revision), "decision": decision}
    signed = signature(run, first, str(revision), decision)
    return f"{base}/decide?{urlencode({**query, 'signature': signed})}"


async def first_of(client: Client, run: str) -> str:
    """Which of all runs that ever had this id: a link decides about that one, and no later one."""
    described = await client.temporal.get_workflow_handle(run).describe()
    return described.raw_description.workflow_execution_info.first_run_id


async def waits_of(client: Client, id: str) -> list[dict[str, object]]:
    """A message for each thing that the run waits for."""
    progress = await client.run(id).progress()
    first = await first_of(client, id)
    found: list[dict[str, object]] = []
    for wait in progress.waits:
        told: dict[str, object] = {"run": id, "event": wait.kind, "command": wait.command}
        told["text"] = f"{id} waits: {wait.what}"
        if wait.kind == "approval" and progress.awaiting == "approval":
            told |= {d: link(id, first, progress.revision, d) for d in DECISIONS}
        found.append(told)
    return found


async def watch(client: Client, http: httpx.AsyncClient) -> None:
    """Post what is new, every few seconds."""
    told: set[str] = set()
    ended = ENDED.format(since=datetime.now(UTC).isoformat())
    while True:
        messages: list[dict[str, object]] = []
        async for run in client.temporal.list_workflows(WAITING + RUNS):
            try:
                messages += await waits_of(client, run.id)
            except PlanloomError as error:
                messages.append({"run": run.id, "event": "error", "text": f"{run.id}: {error}"})
        async for run in client.temporal.list_workflows(ended + RUNS):
            status = run.status.name.lower() if run.status else "ended"
            messages.append({"run": run.id, "event": "ended", "text": f"{run.id} ended: {status}"})
        for message in messages:
            if (key := f"{message['run']} {message['event']} {message['text']}") not in told:
                (await http.post(os.environ["NOTIFY_URL"], json=message)).raise_for_status()
                told.add(key)
        await asyncio.sleep(SECONDS)


async def decide(client: Client, method: str, query: str) -> tuple[int, str]:
    """A GET shows a button, since chat systems open links to preview them; a POST decides."""
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    run, revision = fields.get("run", ""), fields.get("revision", "")
    decision = fields.get("decision", "")
    try:
        signed = signature(run, await first_of(client, run), revision, decision).encode()
    except RPCError:  # no such run
        signed = b""
    given = fields.get("signature", "").encode()
    if decision not in DECISIONS or not (signed and hmac.compare_digest(signed, given)):
        return 403, "This link is not valid."
    if method != "POST":
        what = html.escape(f"{decision} revision {revision} of {run}")
        return 200, f'<form method="post"><button>{what}</button></form>'
    try:
        payload = {"revision": int(revision), "by": "link"}
        reply = await client.run(run).update(DECISIONS[decision], payload)
    except PlanloomError as error:
        return 409, html.escape(str(error))
    return 200, html.escape(f"{decision}: {reply.message or 'done'}")


async def main() -> None:
    if len(SECRET) < SECRET_MIN_BYTES:
        raise SystemExit("NOTIFY_SECRET is too short. Make one: openssl rand -hex 32")
    client = await Client.connect()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
            method, target, _ = head.partition("\r\n")[0].split(" ", 2)
            path, _, query = target.partition("?")
            status, text = await decide(client, method, query) if path == "/decide" else (404, "")
        except (ValueError, OSError, EOFError, asyncio.LimitOverrunError):
            status, text = 400, "This is no request."
        body = f"<!doctype html><meta charset=utf-8>{text}".encode()
        writer.write(f"HTTP/1.1 {status} -\r\nContent-Type: text/html\r\n".encode())
        writer.write(f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        with contextlib.suppress(OSError):  # it has gone
            await writer.drain()
        writer.close()

    host, _, port = os.environ.get("NOTIFY_LISTEN", "127.0.0.1:8088").rpartition(":")
    async with httpx.AsyncClient(timeout=10) as http:
        await asyncio.start_server(serve, host, int(port))
        await watch(client, http)


if __name__ == "__main__":
    asyncio.run(main())

"""`planloom watch --web`: who may read and decide, and what the page shows as the run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from planloom import Client, Refused
from planloom.console.report.facts import facts_of_run
from planloom.console.report.server import LivePage
from planloom.console.this_run import ThisRun
from tests.support.harness import Handle, Planloom

HOSTILE = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
PLAN = {
    "goal": f"Ask {HOSTILE}",
    "tasks": [
        {"id": "a", "tool": "calculate", "args": {"expression": "6 * 7"}},
        {"id": "q", "human": f"Is ${{a}} right? {HOSTILE}"},
    ],
    "answer": "${q}",
}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.asynccontextmanager
async def served(planloom: Planloom, run: str) -> AsyncIterator[str]:
    """The live page of a run; gives its address."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    page = LivePage(Client(planloom.client, planloom.task_queue), run)
    serving = asyncio.create_task(page.serve(ready.set_result))
    try:
        yield await asyncio.wait_for(ready, 20)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


def ask(url: str, path: str = "", method: str = "GET", **more: Any) -> tuple[int, str]:
    """Status and body of a request; `headers` and `body` as a browser would send them."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.request(method, parts.path + path, **more)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def decision(url: str, update: str, given: dict[str, Any], **headers: str) -> tuple[int, str]:
    parts = urlsplit(url)
    sent = {"Origin": f"http://{parts.netloc}", "Content-Type": "application/json", **headers}
    body = json.dumps({"update": update, "input": given})
    status, text = ask(url, "act", "POST", headers=sent, body=body)
    return status, str(json.loads(text)["message"])


async def start(planloom: Planloom, id: str | None = None, **more: Any) -> Handle:
    handle = await planloom.start({"plan": PLAN, "approval": "plan", **more}, id=id)
    await planloom.until(handle, lambda p: p.awaiting == "approval")
    return handle


async def test_only_its_own_page_may_read_and_decide(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await start(planloom)
        async with served(planloom, handle.id) as url:
            parts = urlsplit(url)
            elsewhere = f"{parts.scheme}://{parts.netloc}/another-token/"
            status, page = await asyncio.to_thread(ask, url)
            assert (status, "approve_plan" in page) == (200, True)
            assert HOSTILE not in page
            for address, headers in (
                (elsewhere, {}),
                (f"{parts.scheme}://{parts.netloc}/", {}),
                (url, {"Host": "evil.example"}),
                (url, {"Host": f"evil.example:{parts.port}"}),
            ):
                status, text = await asyncio.to_thread(ask, address, headers=headers)
                assert (status in (404, 421), "<html" in text) == (True, False)
            approve = ("approve_plan", {"revision": 1})
            for wrong in (
                {"Origin": "http://evil.example"},
                {"Origin": "null"},
                {"Content-Type": "text/plain"},
                {"Host": "evil.example"},
            ):
                status, _ = await asyncio.to_thread(decision, url, *approve, **wrong)
                assert status in (403, 415, 421), wrong
            status, _ = await asyncio.to_thread(decision, url, "edit_plan", {"revision": 1})
            assert status == 403
            shown = await planloom.until(handle, lambda p: True)
            assert shown.awaiting == "approval"  # nothing of all that reached the run

            stale = await asyncio.to_thread(decision, url, "approve_plan", {"revision": 7})
            assert stale[0] == 409
            status, said = await asyncio.to_thread(
                decision, url, "approve_plan", {"revision": 1, "by": "ada", "note": ""}
            )
            assert (status, said) == (200, "revision 1 approved")
            await planloom.until(handle, lambda p: p.awaiting == "human")
            for odd in ({"revision": "9" * 5_000}, {"by": "\ud83d"}, {"id": "[" * 5_000}):
                assert (await asyncio.to_thread(decision, url, "complete_task", odd))[0] == 409
            answer = {"id": "q", "output": "yes, it is", "by": "grace"}
            assert (await asyncio.to_thread(decision, url, "complete_task", answer))[0] == 200
            result = await planloom.result(handle)
    assert result["answer"] == "yes, it is"
    assert any('approved by "ada"' in note for note in result["notes"])


async def test_the_budget_is_raised_by_numbers_and_a_run_is_paused(planloom: Planloom) -> None:
    async with planloom.worker():
        handle = await start(planloom, budget={"tokens": 1_000})
        async with served(planloom, handle.id) as url:
            assert (await asyncio.to_thread(decision, url, "pause", {}))[0] == 200
            raised = await asyncio.to_thread(decision, url, "raise_budget", {"tokens": "9000"})
            assert raised[0] == 200, raised
            usage = await handle.query("usage")
            assert usage["caps"]["tokens"] == 9_000
            shown = await planloom.until(handle, lambda p: True)
            assert shown.status in ("paused", "waiting")
            await handle.cancel()


async def test_the_page_is_of_one_run_and_not_of_a_later_one_with_its_id(
    planloom: Planloom,
) -> None:
    """Revision 1 of the later run waits for the same approval: nobody has seen its plan here."""
    async with planloom.worker():
        first = await start(planloom)
        async with served(planloom, first.id) as url:
            await first.cancel()
            await planloom.result(first)
            later = await start(planloom, id=first.id)
            approve = {"revision": 1, "by": "ada"}
            refused = await asyncio.to_thread(decision, url, "approve_plan", approve)
            assert refused == (409, f'run "{first.id}" has ended')
            stopped = await asyncio.to_thread(decision, url, "pause", {})
            assert stopped[0] == 409
            assert (await planloom.progress(later)).awaiting == "approval"
            await later.cancel()


async def test_what_was_read_of_a_run_stays_readable_once_its_id_is_used_again(
    planloom: Planloom,
) -> None:
    client = Client(planloom.client, planloom.task_queue)
    async with planloom.worker():
        first = await start(planloom)
        this = await ThisRun.of(client, first.id)
        await this.approve(by="ada")
        await planloom.until(first, lambda p: p.awaiting == "human")
        await this.cancel()
        await planloom.result(first)
        later = await start(planloom, id=first.id)
        with pytest.raises(Refused, match="has ended"):
            await this.cancel()
        assert (await this.progress()).status == "cancelled"
        facts = await facts_of_run(client, this)
        assert (facts.state, facts.result and facts.result.status) == ("COMPLETED", "cancelled")
        assert [d.by for d in facts.decisions] == ["ada"]
        assert await client.run(first.id).describe() == "RUNNING"
        await later.cancel()


async def test_the_stream_tells_what_changes(planloom: Planloom) -> None:
    def first_event(url: str) -> tuple[str, dict[str, str]]:
        parts = urlsplit(url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        connection.request("GET", f"{parts.path}events")
        stream = connection.getresponse()
        name = stream.readline().decode().removeprefix("event: ").strip()
        data = json.loads(stream.readline().decode().removeprefix("data: "))
        connection.close()
        return name, data

    async with planloom.worker():
        handle = await start(planloom)
        async with served(planloom, handle.id) as url:
            name, parts = await asyncio.to_thread(first_event, url)
            assert name == "parts"
            assert "Approve" in parts["waits"]
            assert "<script" not in "".join(parts.values())
            await handle.cancel()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
async def test_a_person_approves_and_answers_in_a_browser(planloom: Planloom) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    async with planloom.worker(), playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = await browser.new_page()
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        handle = await start(planloom)
        async with served(planloom, handle.id) as url:
            await page.goto(url)
            await page.fill("input[name=by]", "ada")
            await page.click("button.yes")
            await page.fill("textarea", "it is right", timeout=60_000)
            await page.click("button.yes")
            await page.wait_for_selector("#part-answer pre", timeout=60_000)
            assert "it is right" in await page.inner_text("#part-answer")
            assert await page.inner_text(".pill") == "completed"
            assert (await page.title()).startswith("Ask <script>")  # nothing was run
            await page.wait_for_selector("#said:text-is('ended')")
        await browser.close()
        result = await planloom.result(handle)
    assert (result["answer"], told) == ("it is right", [])

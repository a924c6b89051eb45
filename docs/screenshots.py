"""The pictures of report, live page and terminal in `docs/images`: `make screenshots`.

A real server, a real worker and the plan of `planloom demo`; Chromium takes the pictures (on
Debian: apt-get install chromium). They differ from run to run, so nothing checks them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright
from rich.console import Console

from planloom import Client, NoWorker, Run, planner
from planloom.console.devserver import DevServer
from planloom.console.live_actions import key_words
from planloom.console.live_view import Shown, live_view
from planloom.console.processes import stop_process, worker_process
from planloom.console.report.facts import facts_of
from planloom.console.report.page import report_page
from planloom.console.report.server import LivePage
from planloom.planner.contract.results import Progress

IMAGES = Path(__file__).resolve().parent / "images"
TEMPLATE = "weather-report"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1180, "height": 900}, {"width": 390, "height": 844}
WAIT_SECONDS = 180.0


async def main() -> int:
    if CHROMIUM is None:
        print("error: no Chromium\nhint: on Debian: apt-get install chromium", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="planloom-screenshots-") as name:
        folder = Path(name)
        data = Path(planner.__file__).parent / "library" / "data" / "seattle-weather.csv"
        shutil.copy(data, folder)
        with DevServer(in_memory=True, headless=True, port=None) as server:
            environment = os.environ | {
                "TEMPORAL_ADDRESS": server.address,
                "PLANLOOM_DATA_DIR": str(folder / "data"),
                "PLANLOOM_WORKSPACE": str(folder),
            }
            worker = worker_process(dict(environment))
            try:
                client = await Client.connect(target_host=server.address)
                await _pictures(client, folder)
            finally:
                stop_process(worker)
    return 0


async def _pictures(client: Client, folder: Path) -> None:
    request = {"template": TEMPLATE, "approval": "plan", "budget": {"tokens": 60_000, "usd": 1.0}}
    run = await client.start(request, id="weather")
    await _until(run, lambda p: p.awaiting == "approval")
    await _terminal(run, "watch-waiting")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        await _live(client, browser, run)
        await run.result()
        await _terminal(run, "watch")
        report = folder / "report.html"
        report.write_text(report_page(await facts_of(client, run.id)), encoding="utf-8")
        address = report.as_uri()
        await _shoot(browser, address, "report", DESKTOP)
        await _shoot(browser, address, "report-dark", DESKTOP, color_scheme="dark")
        await _shoot(browser, address, "report-phone", PHONE, is_mobile=True)
        await browser.close()


async def _live(client: Client, browser: Browser, run: Run) -> None:
    """The live page while the plan waits, which is then approved on it."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(LivePage(client, run.id).serve(ready.set_result))
    page = await browser.new_page(viewport=DESKTOP)
    await page.goto(await ready)
    await page.fill("input[name=by]", "ada")
    await page.screenshot(path=IMAGES / "live.png")
    await page.click("button.yes")
    await _until(run, lambda p: p.awaiting is None)
    await page.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def _shoot(
    browser: Browser,
    address: str,
    name: str,
    size: dict[str, int],
    *,
    scale: int = 1,
    **more: Any,
) -> None:
    page = await browser.new_page(viewport=size, device_scale_factor=scale, **more)
    await page.goto(address)
    await page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
    await page.close()


async def _terminal(run: Run, name: str) -> None:
    """The terminal's view at 60 and 120 columns, as SVG."""
    shown = Shown(run.id, await run.progress(), await run.plan())
    shown.caps = (await run.query("usage"))["caps"]
    shown.keys = key_words(shown.progress) if shown.progress.awaiting else ()
    for width in (60, 120):
        console = Console(record=True, width=width, file=io.StringIO())
        console.print(live_view(shown, width, 40))
        console.save_svg(str(IMAGES / f"{name}-{width}.svg"), title=f"planloom watch {run.id}")


async def _until(run: Run, is_so: Any) -> Progress:
    """Wait for a state of the run."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with contextlib.suppress(NoWorker):  # it has just been started
                shown = await run.progress()
                if is_so(shown):
                    return shown
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

"""A real headless Chromium, driven by its own protocol: what a page shows, logs and asks the network for."""

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

START_S = 60.0
ANSWER_S = 60.0


class Page:
    """One tab. Everything happens in calls: events are taken while a call waits for its answer."""

    def __init__(self, events: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._events, self._socket, self._numbers = events, socket, itertools.count(1)
        self.complaints: list[str] = []
        """What went to the console as warning or error, exceptions that nothing caught, and what the policy blocked."""
        self.requested: list[str] = []
        """Addresses that were asked for, web sockets included."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        return self._events.run_until_complete(asyncio.wait_for(self._call(method, parameters), ANSWER_S))

    def open(self, url: str) -> None:
        """Begin to load an address."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)

    def size(self, width: int, height: int, *, scale: float = 1.0, is_phone: bool = False) -> None:
        """Size of the window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone
        )

    def value(self, script: str) -> Any:
        """Value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression in the page is true."""
        deadline = time.monotonic() + ANSWER_S
        while not self.value(script):
            assert time.monotonic() < deadline, script
            time.sleep(0.02)

    def picture_png(self) -> bytes:
        """What the window shows."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            if "method" in message:
                self._note(message["method"], message["params"])

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
        elif event == "Network.webSocketCreated":
            self.requested.append(told["url"])
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
            self.complaints.append(told["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("warning", "error", "assert"):
            self.complaints.append(str(told["args"]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))


@contextmanager
def chromium_page(profile: Path) -> Iterator[Page]:
    """A tab of a Chromium of its own, whose profile is in that folder; skips where there is no Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    aiohttp = pytest.importorskip("aiohttp", reason="the browser is driven through aiohttp: install edgeseg[live]")
    options = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses to be root's with it
    process = subprocess.Popen(
        [program, *options, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    events = asyncio.new_event_loop()
    try:
        port = _port(process, profile / "DevToolsActivePort")

        async def connect() -> tuple[Any, Any]:
            session = aiohttp.ClientSession()
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
            return session, await session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0)

        session, socket = events.run_until_complete(connect())
        yield Page(events, socket)
        events.run_until_complete(session.close())
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        events.close()


def _port(process: subprocess.Popen, file: Path) -> int:
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, "Chromium ended at once"
        assert time.monotonic() < deadline, "Chromium does not start"
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            return int(lines[0])
        time.sleep(0.02)

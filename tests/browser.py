"""A headless Chromium, driven over its DevTools protocol."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websocket import WebSocket, create_connection

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COMMAND = f"{BROWSER} --headless --no-sandbox --disable-gpu --disable-dev-shm-usage".split()


class Tab:
    """A page in the browser, and what it reported since it was opened: ``events`` of the protocol, in order."""

    def __init__(self, connection: WebSocket) -> None:
        self.connection, self.events, self.calls = connection, [], 0
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return what a command of the protocol answers."""
        self.calls += 1
        self.connection.send(json.dumps({"id": self.calls, "method": method, "params": params}))
        while (message := json.loads(self.connection.recv())).get("id") != self.calls:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, address: str) -> None:
        """Go to an address, and wait until all of the page is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in {event["method"] for event in self.events}:
            self.events.append(json.loads(self.connection.recv()))

    def run(self, script: str) -> Any:
        """Return the value of JavaScript, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """Return the value of JavaScript as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"after {seconds} s still not: {script}"
            time.sleep(0.05)
        return value

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key; ``modifiers`` is 2 for Ctrl, 8 for Shift."""
        for kind in ("rawKeyDown", "keyUp"):
            code = {"windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}.get(key, ord(key[0].upper()))}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers, **code)

    def resize(self, width: int, height: int) -> None:
        """Give the page the size of another screen, in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def problems(self) -> list[str]:
        """Return what the page said on its console as errors, and the resources that it did not get."""
        kinds = {"Runtime.exceptionThrown", "Network.loadingFailed"}
        bad = [e for e in self.events if e["method"] in kinds or e["params"].get("entry", {}).get("level") == "error"]
        bad += [e for e in self.events if e["method"] == "Runtime.consoleAPICalled" and e["params"]["type"] == "error"]
        return [json.dumps(event["params"])[:500] for event in bad]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def browser(profile: Path, kind: type[Tab] = Tab) -> Iterator[Tab]:
    """Start a browser with its profile in the folder ``profile``, and give its page, as a ``kind`` of tab."""
    if BROWSER is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    options = [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--force-prefers-reduced-motion"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*COMMAND, *options, "about:blank"], **quiet) as process:
        try:
            port, pages = profile / "DevToolsActivePort", []
            for _ in range(1200):
                with suppress(OSError, IndexError):
                    listed = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
                    with urllib.request.urlopen(listed, timeout=60) as answer:
                        pages = json.load(answer)
                    break
                assert process.poll() is None, "Chromium ended by itself"
                time.sleep(0.1)
            page = next(page for page in pages if page["type"] == "page")
            connection = create_connection(page["webSocketDebuggerUrl"], timeout=120, suppress_origin=True)
            yield kind(connection)
            connection.close()
        finally:
            process.terminate()

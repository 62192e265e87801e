"""A headless Chromium, driven over a pipe by its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu"),
    *("--no-first-run", "--disable-dev-shm-usage"),  # containers have little /dev/shm
)
# The browser reads from its file 3 and writes to its file 4. Both are moved out of the way first.
AS_3_AND_4 = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
TEXT = "document.body?.innerText"
TIMEOUT = 60.0


def find_browser() -> str | None:
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def opened(url: str, profile: Path, size: tuple[int, int] = (1280, 900)) -> Iterator["Page"]:
    """A page of a fresh browser, whose window has this (width, height)."""
    to_browser, to_us = os.pipe(), os.pipe()
    flags = [*FLAGS, f"--user-data-dir={profile}"]
    ours = to_browser[0], to_us[1]
    started = subprocess.Popen(
        [sys.executable, "-c", AS_3_AND_4, *map(str, ours), find_browser(), *flags, "about:blank"],
        pass_fds=ours,
        stderr=subprocess.DEVNULL,
    )
    for end in ours:
        os.close(end)
    with open(to_browser[1], "wb", buffering=0) as writing, open(to_us[0], "rb") as reading:
        try:
            page = Page(writing, reading)
            page.resize(*size)
            page.load(url)
            yield page
        finally:
            started.terminate()
            started.wait(TIMEOUT)


class Page:
    """The first page of a browser."""

    def __init__(self, writing, reading):
        self._writing, self._reading, self._number, self._session = writing, reading, 0, None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(target for target in targets if target["type"] == "page")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]
        self.errors = []  # exceptions of the page's scripts, and the browser's own log
        self.urls = []  # that the page asked for
        for domain in ("Page", "Runtime", "DOM", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        """The result of a command of the protocol."""
        number = self._send(method, parameters)
        answer = self._next(lambda message: message.get("id") == number)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def load(self, url: str) -> None:
        """Opens an address and waits until all of it is there."""
        self._send("Page.navigate", {"url": url})
        self._next(lambda message: message.get("method") == "Page.loadEventFired")

    def _send(self, method: str, parameters: dict) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writing.write(json.dumps(message).encode() + b"\0")
        return self._number

    def _next(self, is_wanted: Callable[[dict], bool]) -> dict:
        while not is_wanted(message := self._read()):
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(message["params"])
            elif message.get("method") == "Network.requestWillBeSent":
                self.urls.append(message["params"]["request"]["url"])
        return message

    def _read(self) -> dict:
        content = bytearray()
        while (byte := self._reading.read(1)) != b"\0":
            assert byte, "the browser has ended"
            content += byte
        return json.loads(content)

    def run(self, script: str):
        """The value of an expression in the page; promises are waited for."""
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        answer = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str):
        """The value of an expression once it is true."""
        end = time.monotonic() + TIMEOUT
        while not (value := self.run(condition)):
            assert time.monotonic() < end, f"never true: {condition}\n{self.run(TEXT)}"
            time.sleep(0.05)
        return value

    def choose(self, selector: str, file: Path) -> None:
        """Chooses a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def press(self, key: str, code: int) -> None:
        """Presses a key, such as ("Tab", 9)."""
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **keys)
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def move(self, x: float, y: float) -> None:
        """Moves the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def resize(self, width: int, height: int, scheme: str = "light") -> None:
        """Another window, and light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """An image of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

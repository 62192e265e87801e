"""A headless Chromium, driven over a pipe by its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu"),
    *("--no-first-run", "--disable-dev-shm-usage"),  # containers have little /dev/shm
)
TIMEOUT = 60.0


def find_browser() -> str | None:
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def opened(url: str, profile: Path, size: tuple[int, int] = (1280, 900)) -> Iterator["Page"]:
    """A page of a fresh browser, whose window has this (width, height)."""
    to_browser, to_us = os.pipe(), os.pipe()
    flags = [*FLAGS, f"--user-data-dir={profile}"]
    # The browser reads from its file 3 and writes to its file 4.
    shell = ["sh", "-c", f'exec "$@" 3<&{to_browser[0]} 4>&{to_us[1]}', "sh"]
    started = subprocess.Popen(
        [*shell, find_browser(), *flags, "about:blank"],
        pass_fds=(to_browser[0], to_us[1]),
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(to_us[1])
    with open(to_browser[1], "wb", buffering=0) as writing, open(to_us[0], "rb") as reading:
        try:
            page = Page(writing, reading)
            page.resize(*size)
            page.call("Page.navigate", url=url)
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
        self.faults = []  # what the page's script did wrong, and what it was refused
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        """The result of a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writing.write(json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.faults.append(answer["params"])
        assert "error" not in answer, answer["error"]
        return answer["result"]

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
            shown = self.run("document.body.innerText")
            assert time.monotonic() < end, f"never true: {condition}\n{shown}"
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
        """A picture of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

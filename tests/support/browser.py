"""A real Chromium without a window, spoken to in its DevTools protocol through two pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["Page", "browser", "chromium"]

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip
#: Chromium reads from descriptor 3 and answers on 4; duplicates above both cannot clobber each other.
_START = """\
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 16) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
#: Keys that are not a character: their virtual key codes.
_CODES = {
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
_TEXTS = {"Enter": "\r", " ": " "}


def chromium() -> str | None:
    """The browser's program, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


@dataclass
class _Wire:
    """Messages to and from the browser, each JSON that ends in a NUL."""

    write: BinaryIO
    read: int
    events: list[dict[str, Any]] = field(default_factory=list)
    _count: int = 0
    _rest: bytes = b""

    def call(self, method: str, session: str | None, timeout: float, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self.write.write(json.dumps(message).encode() + b"\0")
        self.write.flush()
        until = time.monotonic() + timeout
        while True:
            answer = self.next(until, method)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def next(self, until: float, what: str) -> dict[str, Any]:
        """The next message; one without an id is an event, and kept."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self.read], [], [], max(until - time.monotonic(), 0))
            data = os.read(self.read, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError(f"no answer from the browser to {what}")
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        if "method" in found:
            self.events.append(found)
        return found


@dataclass(frozen=True)
class Page:
    """A tab. ``problems`` and ``requests`` are what it has said and loaded since it was opened."""

    wire: _Wire
    session: str

    def call(self, method: str, timeout: float = 60.0, **params: Any) -> dict[str, Any]:
        """A command of the protocol."""
        return self.wire.call(method, self.session, timeout, **params)

    def goto(self, path: Path, fragment: str = "") -> None:
        """Load a file, afresh also where it is there already, and wait until it has loaded."""
        for url in ("about:blank", path.absolute().as_uri() + fragment):
            self._load("Page.navigate", url=url)

    def reload(self) -> None:
        """Load the same again."""
        self._load("Page.reload")

    def _load(self, method: str, **params: Any) -> None:
        self.wire.events.clear()
        self.call(method, **params)
        until = time.monotonic() + 60
        while not self._events("Page.loadEventFired"):
            self.wire.next(until, "loading")

    def wait(self, expression: str) -> None:
        """Until this is true, for ten seconds at most."""
        until = time.monotonic() + 10
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"not yet: {expression}"
            time.sleep(0.02)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, a promise's when it is there.

        Raises:
            AssertionError: it threw.
        """
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def key(self, key: str) -> None:
        """Press a key and let it go."""
        code = _CODES.get(key, ord(key[0].upper()))
        text = _TEXTS.get(key, key if len(key) == 1 else "")
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        """A click with the mouse into the middle of the first element."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def wheel(self, x: float, y: float, down: float) -> None:
        """Turn the wheel over a point of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=down)

    def dark(self, on: bool) -> None:
        """What the system is said to prefer."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def size(self, width: int, height: int) -> None:
        """The size of the window in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """What a printer would get."""
        answer = self.call("Page.printToPDF", timeout=120, printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(answer["data"])

    @property
    def problems(self) -> list[str]:
        """Errors and warnings on the console, exceptions, and what was refused."""
        logged = [event["entry"]["text"] for event in self._events("Log.entryAdded")]
        said = [
            str(event["args"]) for event in self._events("Runtime.consoleAPICalled") if event["type"] != "log"
        ]
        return logged + said + [str(e["exceptionDetails"]) for e in self._events("Runtime.exceptionThrown")]

    @property
    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        return [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]

    def _events(self, method: str) -> list[dict[str, Any]]:
        return [e["params"] for e in self.wire.events if e["method"] == method]


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with one tab; its profile is kept in ``folder``, and all of it ends with the block."""
    program = chromium()
    assert program is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = [
        sys.executable, "-c", _START, str(theirs_in), str(theirs_out),
        program, *_FLAGS, f"--user-data-dir={folder}",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(theirs_in)
    os.close(theirs_out)
    with os.fdopen(ours_out, "wb") as write:
        try:
            wire = _Wire(write, ours_in)
            yield _tab(wire)
            wire.call("Browser.close", None, 10)
        finally:
            os.close(ours_in)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _tab(wire: _Wire) -> Page:
    target = wire.call("Target.createTarget", None, 60, url="about:blank")["targetId"]
    session = wire.call("Target.attachToTarget", None, 60, targetId=target, flatten=True)["sessionId"]
    page = Page(wire, session)
    for domain in ("Page", "Runtime", "Log", "Network"):
        page.call(f"{domain}.enable")
    page.size(1280, 900)
    return page

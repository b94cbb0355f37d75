"""A headless Chromium driven over the pipe of its DevTools protocol; no further package."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_SECONDS = 120.0  # of one answer, on a busy machine


def find_chromium() -> str | None:
    """Return the program, or None where none is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Chromium:
    """One page. `messages` holds what the console, uncaught errors and the page's policy said."""

    def __init__(self, program: str, profile: Path):
        """Start it with an empty profile in a folder."""
        to_read, to_write = os.pipe(), os.pipe()  # as seen from Chromium, which uses 3 and 4
        flags = [
            *("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu"),
            *("--no-first-run", "--mute-audio", "--hide-scrollbars", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            "--disable-features=OptimizationHints,OptimizationGuideOnDeviceModel",
            *("--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}"),
        ]
        script = f'exec "$@" 3<&{to_read[0]} 4>&{to_write[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *flags, "about:blank"],
            pass_fds=(to_read[0], to_write[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read[0])
        os.close(to_write[1])
        self._out, self._in = to_read[1], to_write[0]
        self._numbers = itertools.count(1)
        self._rest = b""
        self._is_loaded = False
        self.messages: list[str] = []
        self._session: str | None = None
        [target] = [
            one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"
        ]
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *exception) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(TIMEOUT_SECONDS)
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **parameters) -> dict:
        """Return the result of a method of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _receive(self) -> dict:
        """Return the next message; what it says of faults is kept."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        self._is_loaded |= message.get("method") == "Page.loadEventFired"
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                said = message["params"]["args"]
                self.messages.append(" ".join(str(one.get("value")) for one in said))
            case "Runtime.exceptionThrown":
                self.messages.append(json.dumps(message["params"]["exceptionDetails"]))
            case "Log.entryAdded":
                self.messages.append(message["params"]["entry"]["text"])
        return message

    def show(self, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """Set the size of the window, in CSS pixels, and the colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file and wait for it."""
        self.call("Page.navigate", url="about:blank")  # or another fragment would not load it
        while self.run("location.href") != "about:blank":
            time.sleep(0.02)
        self._is_loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        while not self._is_loaded:
            self._receive()

    def run(self, expression: str):
        """Return the value of an expression of JavaScript; a promise is awaited."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key: a character or a name as Tab, Enter, ArrowDown."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

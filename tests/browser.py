"""A real browser, by the DevTools protocol, that reaches this machine only."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.toy import SECONDS, eventually

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTH, HEIGHT = 1600, 1000


class Page:
    """A page of a browser, by the DevTools protocol."""

    def __init__(self, url: str) -> None:
        # comes with Prefect; imported here, so that all but this needs no Prefect
        from websockets.sync.client import connect

        self._socket = connect(url, max_size=None)
        self._number = 0
        self.hosts: set[str] = set()  # that it has asked for something
        self.resize(WIDTH)
        self._do("Network.enable")

    def close(self) -> None:
        self._socket.close()

    def resize(self, width: int) -> None:
        """Make the window so many pixels wide."""
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self._do("Emulation.setDeviceMetricsOverride", **size)

    def _do(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=SECONDS))
            if answer.get("method") == "Network.requestWillBeSent":
                self.hosts.add(urlsplit(answer["params"]["request"]["url"]).hostname or "")
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                result: dict[str, Any] = answer["result"]
                return result

    def run(self, script: str) -> Any:
        """The value of some JavaScript."""
        answer = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url: str, *words: str) -> None:
        """Open `url`, and wait until all of `words` can be read there and nothing moves any more."""
        self._do("Page.navigate", url=url)
        self.wait(*words, url=url)

    def wait(self, *words: str, url: str = "") -> None:
        assert eventually(lambda: self._rests(words, url)), (words, url, self.text())

    def _rests(self, words: Sequence[str], url: str) -> bool:
        try:
            text, before = self.text(), self.picture()
            if not self.run("location.href").startswith(url) or not all(word in text for word in words):
                return False
            time.sleep(1)
            return self.picture() == before
        except RuntimeError:  # between two pages
            return False

    def text(self) -> str:
        return str(self.run("document.body ? document.body.innerText : ''"))

    def picture(self) -> bytes:
        return base64.b64decode(self._do("Page.captureScreenshot", format="png")["data"])


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a browser without a past, which reaches this machine only."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
            *("--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
            *(f"--user-data-dir={folder}", "--remote-debugging-port=0", f"--window-size={WIDTH},{HEIGHT}"),
        ]
        process = subprocess.Popen(
            [CHROMIUM, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            port = Path(folder) / "DevToolsActivePort"
            assert eventually(lambda: port.is_file() and "\n" in port.read_text())
            with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list") as answer:
                target = next(entry for entry in json.load(answer) if entry["type"] == "page")
            page = Page(target["webSocketDebuggerUrl"])
            try:
                yield page
            finally:
                page.close()
        finally:
            process.terminate()
            process.wait()

"""Debian's chromium without a window, driven through its debugging pipe: pages as people see them."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = (
  "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
  "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Browser:
  """A browser with one page.

  Attributes:
    messages: errors and warnings of the console, and exceptions that nobody caught.
    requests: the addresses that the page asked for.
  """

  def __init__(self, process, send, receive):
    self._process, self._send, self._receive = process, send, receive
    self._numbers, self._buffer, self._session = itertools.count(1), b"", None
    self.messages, self.requests = [], []
    target = self._call("Target.createTarget", url="about:blank")["targetId"]
    self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
      self._call(f"{domain}.enable")

  def open(self, path, width=1280, height=900, dark=False):
    """Opens a file, or an address of this machine, in a window of some width."""
    self.messages, self.requests = [], []
    self.resize(width, height)
    self.theme(dark)
    self._call("Page.navigate", url=path if str(path).startswith("http") else Path(path).absolute().as_uri())
    for _ in range(400):
      if self.run("document.readyState") == "complete":
        return self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
      time.sleep(0.02)
    raise TimeoutError(f"{path} has not loaded")

  def resize(self, width, height=900):
    """Changes the size of the window."""
    self._call(
      "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
    )

  def theme(self, dark):
    """Makes the system's theme dark or light."""
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    self._call("Emulation.setEmulatedMedia", features=features)

  def run(self, script):
    """Returns the value of a JavaScript expression; a promise is waited for."""
    found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    if "exceptionDetails" in found:
      raise RuntimeError(found["exceptionDetails"]["exception"].get("description", "error"))
    return found["result"].get("value")

  def wait(self, script, seconds=60):
    """Waits until a JavaScript expression is true."""
    until = time.monotonic() + seconds
    while not self.run(script):
      if time.monotonic() > until:
        raise TimeoutError(script)
      time.sleep(0.05)

  def choose_files(self, selector, files):
    """Gives files to an input of the page."""
    root = self._call("DOM.getDocument")["root"]["nodeId"]
    node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

  def key(self, key):
    """Presses a key."""
    for kind in ("keyDown", "keyUp"):
      self._call("Input.dispatchKeyEvent", type=kind, key=key)

  def picture(self, path, whole=False, clip=None):
    """Writes a PNG file of the window, of the whole page, or of a part: left, top, width and height."""
    options = {"captureBeyondViewport": whole or clip is not None}
    if whole:
      size = self._call("Page.getLayoutMetrics")["cssContentSize"]
      clip = 0, 0, size["width"], size["height"]
    if clip:
      options["clip"] = dict(zip(("x", "y", "width", "height"), clip, strict=True), scale=1)
    Path(path).write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png", **options)["data"]))

  def medium(self, name):
    """Makes the page as it is on a medium, such as `print`; '' for the screen."""
    self._call("Emulation.setEmulatedMedia", media=name)

  def pdf(self):
    """Returns the page as it is printed."""
    return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])

  def _call(self, method, **parameters):
    number = next(self._numbers)
    message = {"id": number, "method": method, "params": parameters}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._send, json.dumps(message).encode() + b"\0")
    while True:
      found = self._next()
      if found.get("id") == number:
        if "error" in found:
          raise RuntimeError(f"{method}: {found['error']}")
        return found["result"]
      self._event(found.get("method"), found.get("params", {}))

  def _next(self):
    while b"\0" not in self._buffer:
      part = os.read(self._receive, 2**20)
      if not part:
        raise RuntimeError("the browser has ended")
      self._buffer += part
    line, _, self._buffer = self._buffer.partition(b"\0")
    return json.loads(line)

  def _event(self, method, about):
    if method == "Runtime.exceptionThrown":
      self.messages.append(about["exceptionDetails"]["exception"].get("description", "exception"))
    if method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
      self.messages.append(str([part.get("value") for part in about["args"]]))
    if method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
      self.messages.append(about["entry"]["text"])
    if method == "Network.requestWillBeSent":
      self.requests.append(about["request"]["url"][:200])


@contextlib.contextmanager
def browser():
  """Yields a browser."""
  theirs_in, send = os.pipe()
  receive, theirs_out = os.pipe()
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    # The pipe is of the descriptors 3 and 4, which a shell sets: a fork of this process would carry JAX's threads.
    script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
      ["bash", "-c", script, "-", PROGRAM, *_FLAGS, f"--user-data-dir={profile}"],
      pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
      yield Browser(process, send, receive)
    finally:
      process.terminate()
      process.wait(20)
      os.close(send)
      os.close(receive)

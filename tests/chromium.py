"""Debian's chromium, headless, driven over its own pipe; for tests of pages."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time


class Page:
  """One page of a browser.

  Attributes:
    errors: what the console, or a script, has said to be wrong.
  """

  def __init__(self, read, write):
    self._read, self._write, self._numbers, self._rest = read, write, itertools.count(1), b""
    self._session, self.errors = None, []
    target = self.send("Target.createTarget", url="about:blank")["targetId"]
    self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "DOM"):
      self.send(f"{domain}.enable")

  def send(self, method, **params):
    """Returns the result of a command of the DevTools protocol."""
    number = next(self._numbers)
    message = {"id": number, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._write, json.dumps(message).encode() + b"\0")
    while True:
      found = self._next()
      if found.get("id") == number:
        assert "error" not in found, f"{method}: {found['error']}"
        return found["result"]

  def _next(self):
    while b"\0" not in self._rest:
      assert select.select([self._read], [], [], 60)[0], "the browser does not answer"
      self._rest += os.read(self._read, 2**20)
    line, _, self._rest = self._rest.partition(b"\0")
    found = json.loads(line)
    params = found.get("params", {})
    if found.get("method") == "Runtime.exceptionThrown":
      self.errors.append(str(params["exceptionDetails"]))
    elif found.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
      self.errors.append(params["entry"]["text"])
    elif found.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
      self.errors.append(str(params["args"]))
    return found

  def show(self, width, height=900, dark=False):
    """Sets the size of the window in pixels, and the theme."""
    self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    self.send("Emulation.setEmulatedMedia", features=[feature])

  def go(self, address):
    """Opens an address."""
    self.send("Page.navigate", url=address)
    self.wait("document.readyState === 'complete'")

  def value(self, expression):
    """Returns the value of JavaScript."""
    found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in found, found["exceptionDetails"]
    return found["result"].get("value")

  def wait(self, expression, seconds=60):
    """Waits until JavaScript is true."""
    until = time.monotonic() + seconds
    while not self.value(expression):
      assert time.monotonic() < until, f"not within {seconds} s: {expression}"
      time.sleep(0.05)

  def choose_files(self, selector, files):
    """Gives files to an input."""
    root = self.send("DOM.getDocument")["root"]["nodeId"]
    node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

  def picture(self, path):
    """Writes what the window shows as a PNG."""
    path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


def found():
  """Returns where the browser is; None where it is not installed."""
  return shutil.which("chromium")


@contextlib.contextmanager
def opened(profile):
  """Yields a page; `profile` is a new folder for the browser's files."""
  to_browser, write = os.pipe()
  read, from_browser = os.pipe()
  flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
  ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
  shell = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'  # the browser's ends of the pipes are 3 and 4
  process = subprocess.Popen(
    ["bash", "-c", shell, "bash", found(), *flags, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
    pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
  )  # fmt: skip
  for end in (to_browser, from_browser, *ends):
    os.close(end)
  try:
    yield Page(read, write)
  finally:
    process.kill()
    process.wait()
    os.close(read), os.close(write)

r"""Latency and throughput of `hierjax serve`, by clients at the same time; prints Markdown.

  python -m benchmarks.serve lite0 PHOTOS
  python -m benchmarks.serve runs/exported PHOTOS --requests 1000 --at-once 32

The server is a process of its own on this machine, so it shares the cores with the clients. A request sends one
photograph, as it is on the disk. A latency is the time from the first byte sent to the last one received, with the
reading of the photograph and the time in the queue.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from benchmarks.spatial import load_average, machine, table_head, table_row
from hierjax.inference.predictor import find_images


class Load(NamedTuple):
  """What clients measured.

  Attributes:
    seconds: `f64[n]` of each request that was answered with status 200.
    others: the statuses of the others.
    whole: the seconds of all together.
  """

  seconds: np.ndarray
  others: Sequence[int]
  whole: float


def load(address: str, images: Sequence[bytes], requests: int, at_once: int) -> Load:
  """Sends requests of one image each, so many at a time, and returns what they took."""

  def client(number: int) -> list[tuple[float, int]]:
    with contextlib.closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=300)) as connection:
      return [request(connection, images[i % len(images)]) for i in range(number, requests, at_once)]

  start = time.perf_counter()
  with ThreadPoolExecutor(at_once) as pool:
    found = list(itertools.chain.from_iterable(pool.map(client, range(at_once))))
  whole = time.perf_counter() - start
  seconds = np.array([second for second, status in found if status == 200])
  return Load(seconds, [status for _, status in found if status != 200], whole)


def request(connection: http.client.HTTPConnection, image: bytes) -> tuple[float, int]:
  """Returns the seconds of a request and its status."""
  start = time.perf_counter()
  connection.request("POST", "/predict", image, {"Content-Type": "application/octet-stream"})
  reply = connection.getresponse()
  answers = json.loads(reply.read())
  assert reply.status != 200 or len(answers["answers"]) >= 1
  return time.perf_counter() - start, reply.status


@contextlib.contextmanager
def served(model: str, *flags: str) -> Iterator[str]:
  """Yields the address of a server that is ready."""
  command = [sys.executable, "-m", "hierjax", "serve", model, "--port", "0", *flags]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      lines: Any = process.stdout
      ready = next((line for line in lines if line.startswith("ready: ")), "")
      if not ready:
        raise SystemExit(f"{' '.join(command)} ended")
      yield ready.split()[1]
    finally:
      process.terminate()


def counter(address: str, name: str) -> float:
  """Returns the value of a counter of the server."""
  with contextlib.closing(http.client.HTTPConnection(address.removeprefix("http://"))) as connection:
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
  return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def table(model: str, images: Sequence[bytes], requests: int, loads: Sequence[int], *flags: str) -> list[str]:
  """Returns lines of Markdown: a row a number of clients."""
  rows = [table_head(["clients", "requests", "lost", "p50, ms", "p95, ms", "p99, ms", "images/s", "images a batch"])]
  with served(model, *flags) as address:
    for at_once in loads:
      before = [counter(address, f"hierjax_batch_images_{part}") for part in ("sum", "count")]
      found = load(address, images, requests, at_once)
      after = [counter(address, f"hierjax_batch_images_{part}") for part in ("sum", "count")]
      p50, p95, p99 = np.percentile(found.seconds, [50, 95, 99]) * 1000
      numbers = [f"{p:.0f}" for p in (p50, p95, p99)] + [f"{len(found.seconds) / found.whole:.1f}"]
      batch = (after[0] - before[0]) / (after[1] - before[1])
      rows.append(table_row([str(at_once), f"{requests:,}", str(len(found.others)), *numbers, f"{batch:.1f}"]))
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("model", help="a run, an export or a name, as for `hierjax serve`")
  parser.add_argument("images", help="a folder of photographs")
  parser.add_argument("--requests", type=int, default=1000)
  parser.add_argument("--at-once", type=int, nargs="*", default=[1, 8, 32])
  args = parser.parse_args()
  images = [path.read_bytes() for path in find_images([args.images])[:200]]
  size = sum(map(len, images)) / len(images) / 1024
  print(f"{machine()}; {load_average()} at the start; {args.model}, photographs of {size:.0f} KiB\n", flush=True)
  print("\n".join(table(args.model, images, args.requests, args.at_once)))


if __name__ == "__main__":
  main()

"""The server: its answers, and what it refuses."""

import argparse
import contextlib
import dataclasses
import io
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from serving import ask, connect, form, model_of, picture, read, serving

from hierjax.cli import serve
from hierjax.errors import UserError
from hierjax.serve.limits import Limits, Refusal, Room
from hierjax.serve.server import Server
from hierjax.tree.label_tree import LabelTree

RAW = {"Content_Type": "image/png"}


@pytest.fixture(scope="module")
def tree():
  return LabelTree.from_children(["animal", "thing", "dog", "cat", "cup"], [2, 2, 1, 0, 0, 0])


@pytest.fixture(scope="module")
def server(tree):
  limits = dict(bytes=200_000, images=5, pixels=10_000, seconds=2.0, waiting=100)
  with serving(model_of(tree), **limits) as server:
    yield server


def test_one_image_and_many_get_their_own_answers(server, tree):
  status, found = ask(server, "POST", "/predict", picture(1), **RAW)
  assert status == 200 and found == {
    "answers": [
      {
        "image": "image 0",
        "path": "animal/cat",
        "probability": 0.75,
        "rank": 1,
        "node_probabilities": [0.75, 0.75],
        "log_probability": -0.5,
        "why": {"rule": "the grey of the image", "threshold": 0.0, "nodes": {"animal": 0.75, "animal/cat": 0.75}},
        "error": "",
      }
    ]
  }
  body, kind = form([("a.png", picture(2)), ("b.png", b"no image"), ("ü <b>.png", picture(0))])
  status, found = ask(server, "POST", "/predict?nodes=0.5", body, Content_Type=kind)
  assert status == 200
  assert [(row["image"], row["path"]) for row in found["answers"]] == [
    ("a.png", "thing/cup"), ("b.png", ""), ("ü <b>.png", "animal/dog"),
  ]  # fmt: skip
  assert "b.png: not an image in one of the formats" in found["answers"][1]["error"]
  assert found["nodes"] == [{"1": 0.75, "4": 0.75}, {}, {"0": 0.75, "2": 0.75}]


def test_health_tree_page_and_counters(server, tree):
  status, found = ask(server, "GET", "/health")
  assert status == 200 and found["status"] == "ready" and (found["nodes"], found["leaves"], found["step"]) == (5, 3, 7)
  assert ask(server, "GET", "/tree") == (
    200,
    {"names": list(tree.names), "parents": [-1, -1, 0, 0, 1], "levels": ["level 1", "level 2"]},
  )
  before = counters(server)
  ask(server, "POST", "/predict", picture(1), **RAW)
  ask(server, "POST", "/predict", b"nothing", **RAW)
  after = counters(server)
  changed = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
  assert changed['hierjax_requests_total{status="200"}'] == changed['hierjax_requests_total{status="422"}'] == 1
  assert changed['hierjax_images_total{outcome="answered"}'] == changed["hierjax_batch_images_sum"] == 1
  assert changed['hierjax_images_total{outcome="unreadable"}'] == 1 and after["hierjax_ready"] == 1
  assert after["hierjax_waiting_images"] == 0
  status, page = ask(server, "GET", "/")
  assert status == 200 and "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page


def counters(server):
  _, text = ask(server, "GET", "/metrics")
  lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#") and "_created" not in line]
  return {name: float(value) for name, value in lines}


def bomb(side):
  """A PNG of few bytes and many pixels."""
  chunk = lambda name, data: (  # noqa: E731
    len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)
  )
  header = side.to_bytes(4) + side.to_bytes(4) + bytes([8, 0, 0, 0, 0])
  pixels = zlib.compress(bytes((side + 1) * 50), 9)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


MANY = form([(f"{i}.png", picture(0)) for i in range(6)])
REFUSED = {
  "no image": (b"GIF89a but no more", "image/gif", 422, "no image could be read: image 0: "),
  "nothing": (b"", "image/png", 422, "the body is empty"),
  "another type": (b"{}", "application/json", 415, "curl -F image=@photo.jpg"),
  "a form of curl's default": (picture(0), "application/x-www-form-urlencoded", 415, "--data-binary"),
  "no type": (picture(0), "", 415, "not given"),
  "no boundary": (b"--xyz", "multipart/form-data", 422, "boundary"),
  "a torn form": (b"--xyz\r\nContent-Disp\0", "multipart/form-data; boundary=xyz", 422, "no multipart/form-data"),
  "a form without files": (b"--xyz--\r\n", "multipart/form-data; boundary=xyz", 422, "no file"),
  "a field": (
    b'--xyz\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n--xyz--\r\n',
    "multipart/form-data; boundary=xyz",
    422,
    "a field that is no file",
  ),
  "too many images": (*MANY, 413, "more than 5 images"),
  "too many bytes": (bytes(200_001), "image/png", 413, "more than 200,000 bytes"),
  "too many pixels": (picture(0, side=101), "image/png", 422, "101 x 101 pixels; 10000 are allowed"),
  "a bomb": (bomb(40_000), "image/png", 422, "allowed"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(name, server):
  body, kind, wanted, sentence = REFUSED[name]
  start = time.monotonic()
  status, found = ask(server, "POST", "/predict", body, Content_Type=kind)
  assert status == wanted and sentence in found["error"], found
  assert time.monotonic() - start < 10


@pytest.mark.parametrize(
  ("method", "path", "status", "sentence"),
  [
    ("GET", "/predict", 405, "POST /predict"),
    ("POST", "/", 405, "POST /predict"),
    ("GET", "/../../etc/passwd", 404, "are there"),
    ("POST", "/predict?top=3", 422, "no parameter 'top'"),
    ("POST", "/predict?nodes=2", 422, "a probability"),
    ("POST", "/predict?nodes=nan", 422, "a probability"),
  ],
)
def test_other_paths_and_parameters(method, path, status, sentence, server):
  body = picture(0) if method == "POST" else None
  found = ask(server, method, path, body, **RAW)
  assert found[0] == status and sentence in found[1]["error"]


def test_a_stream_of_100_mb_holds_no_more_than_the_limit(server, monkeypatch):
  held = []
  take = Room.take
  monkeypatch.setattr(Room, "take", lambda self, number: (take(self, number), held.append(self.taken))[0])
  connection, sent = connect(server), 0
  with contextlib.closing(connection), contextlib.suppress(BrokenPipeError, ConnectionResetError):
    connection.putrequest("POST", "/predict")
    for name, value in (("Content-Type", "image/png"), ("Transfer-Encoding", "chunked")):
      connection.putheader(name, value)
    connection.endheaders()
    piece = b"%x\r\n%s\r\n" % (2**16, bytes(2**16))
    while sent < 100 * 2**20:
      connection.send(piece)
      sent += 2**16
    connection.send(b"0\r\n\r\n")
    status, found = read(connection)
    assert status == 413 and "200,000 bytes" in found["error"]
  assert 0 < max(held) <= 200_000
  assert ask(server, "POST", "/predict", picture(0), **RAW)[0] == 200
  assert server.service._bytes.taken == server.service._requests.taken == 0


def test_slow_senders_are_ended_and_hold_nobody_up(server):
  """One sends a head without end, one a body, a byte at a time."""
  address = tuple(server.address.removeprefix("http://").split(":"))
  ended, sent = {}, {}

  def drip(name, first):
    with socket.create_connection(address, timeout=30) as connection:
      connection.sendall(first)
      with contextlib.suppress(OSError):
        for number in range(150):
          sent[name] = number
          connection.sendall(b"a")
          time.sleep(0.1)
          connection.settimeout(0.01)
          with contextlib.suppress(TimeoutError):
            if not (found := connection.recv(2000)):
              break
            ended[f"{name} said"] = found
          connection.settimeout(30)

  head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n"
  slow = [threading.Thread(target=drip, args=args) for args in (("head", head), ("body", head + b"\r\n"))]
  for thread in slow:
    thread.start()
  for number in range(20):
    before = time.monotonic()
    assert ask(server, "POST", "/predict", picture(number % 3), **RAW)[0] == 200
    assert time.monotonic() - before < 10
  for thread in slow:
    thread.join()
  assert sent["head"] < 100 and sent["body"] < 100  # of 150 bytes, ten a second or fewer, in 2 s and 1 s to be dropped
  assert b"408" in ended["body said"] and b"within 2 seconds" in ended["body said"]
  assert server.service._bytes.taken == 0


def test_a_thousand_requests_at_32_at_a_time(tree, capsys):
  model, seconds = model_of(tree, seconds=0.002), []
  with serving(model) as server:

    def worker(numbers):
      with contextlib.closing(connect(server)) as connection:
        for number in numbers:
          start = time.perf_counter()
          connection.request("POST", "/predict", picture(number % 3), {"Content-Type": "image/png"})
          status, found = read(connection)
          seconds.append(time.perf_counter() - start)
          assert status == 200
          yield found["answers"][0]["path"] == tree.path_text(tree.leaves[number % 3])

    with ThreadPoolExecutor(32) as pool:
      right = sum(pool.map(lambda i: sum(worker(range(i, 1000, 32))), range(32)))
    counted = counters(server)
  assert right == len(seconds) == 1000 == counted['hierjax_requests_total{status="200"}']
  assert counted["hierjax_batch_images_sum"] == 1000 > 2 * counted["hierjax_batch_images_count"]
  p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1000
  with capsys.disabled():
    print(f" p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms", end="")


def test_a_full_queue_is_503_and_a_late_answer_504(tree):
  model, held, go = model_of(tree, sizes=(1,)), threading.Event(), threading.Event()
  compute = model.compute
  slow = lambda images: (not held.is_set() or go.wait(120), compute(images))[1]  # noqa: E731
  with serving(dataclasses.replace(model, compute=slow), images=2, waiting=2, seconds=2.0) as server:
    held.set()
    body, kind = form([("a", picture(0)), ("b", picture(1))])
    with ThreadPoolExecutor(1) as pool:
      late = pool.submit(ask, server, "POST", "/predict", body, Content_Type=kind)
      wait(lambda: server.service._waiting.taken == 2)
      status, found = ask(server, "POST", "/predict", picture(0), **RAW)
      assert (status, late.done()) == (503, False) and "try again" in found["error"]
      status, found = late.result()
    assert status == 504 and "within 2 seconds" in found["error"]
    assert server.service._waiting.taken == 0
    go.set()
    assert ask(server, "POST", "/predict", picture(2), **RAW)[0] == 200


def wait(holds, seconds=60):
  """Waits until something holds."""
  until = time.monotonic() + seconds
  while not holds():
    assert time.monotonic() < until
    time.sleep(0.01)


def test_before_the_model_is_compiled_nothing_is_predicted(tree):
  model, go = model_of(tree), threading.Event()
  compute = model.compute
  slow = lambda images: (go.wait(60), compute(images))[1]  # noqa: E731
  server = Server(dataclasses.replace(model, compute=slow), Limits())
  with server.listen("127.0.0.1", 0) as listening:
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    assert ask(server, "GET", "/health")[0] == 503
    status, found = ask(server, "POST", "/predict", picture(0), **RAW)
    assert status == 503 and "compiling" in found["error"]
    go.set()
    until = time.monotonic() + 30
    while ask(server, "GET", "/health")[0] == 503 and time.monotonic() < until:
      time.sleep(0.02)
    assert ask(server, "POST", "/predict", picture(0), **RAW)[0] == 200
    server.should_exit = True
    thread.join()


def test_a_model_that_fails_is_500_and_the_next_request_is_answered(tree):
  model = model_of(tree)
  compute, fails = model.compute, []

  def sometimes(images):
    if fails:
      raise RuntimeError(fails.pop())
    return compute(images)

  with serving(dataclasses.replace(model, compute=sometimes)) as server:
    fails.append("out of memory")
    status, found = ask(server, "POST", "/predict", picture(0), **RAW)
    assert status == 500 and "RuntimeError" in found["error"]
    assert ask(server, "POST", "/predict", picture(0), **RAW)[0] == 200


def test_limits_are_checked_and_room_is_given_back():
  for change, flag in (
    ({"bytes": 0}, "--most-bytes 0"),
    ({"seconds": 0.0}, "--seconds 0"),
    ({"waiting": 1}, "--most-"),
  ):
    with pytest.raises(UserError, match=flag):
      Limits(**change)
  room = Room(10, "full")
  room.take(8)
  with pytest.raises(Refusal, match="full") as refused:
    room.take(3)
  assert refused.value.status == 503 and room.taken == 8
  room.give_back(8)
  room.take(10)


def test_images_are_turned_and_made_grey_as_predict_does(tree):
  buffer = io.BytesIO()
  exif = Image.Exif()
  exif[0x0112] = 3  # upside down
  image = Image.new("RGB", (8, 8), (20, 20, 20))
  image.paste((100, 100, 100), (0, 4, 8, 8))
  image.save(buffer, "PNG", exif=exif)
  with serving(model_of(tree)) as server:
    assert ask(server, "POST", "/predict", buffer.getvalue(), **RAW)[1]["answers"][0]["path"] == "thing/cup"


def test_the_help_says_the_limits_that_hold():
  for name, _, about in serve._LIMITS:
    assert about.endswith(f"(default {getattr(Limits(), name):,})")
  parser = argparse.ArgumentParser()
  serve.add_arguments(parser)
  assert f"again for its answer (default {Limits().seconds:g})" in " ".join(parser.format_help().split())

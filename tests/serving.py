"""Servers of a model without weights, in a thread, and requests to them."""

import contextlib
import http.client
import io
import json
import threading
import time

import numpy as np
from PIL import Image

from hierjax.inference.answers import Answer
from hierjax.serve.limits import Limits
from hierjax.serve.models import ServedModel
from hierjax.serve.server import Server

RULE = {"rule": "the grey of the image", "threshold": 0.0}


def model_of(tree, seconds=0.0, sizes=(1, 4, 16)):
  """Returns a model whose answer is the leaf of the number that the grey of an image is, in steps of 40."""

  def compute(images):
    time.sleep(seconds)
    leaves = tree.leaves[images[:, 0, 0, 0] // 40]
    paths = tree.encode(leaves)[:, None]
    node_prob = np.stack([np.isin(np.arange(tree.num_nodes), path) * 0.75 for path in paths[:, 0]])
    return Answer(paths, np.full((len(images), 1), -0.5), node_prob, paths)

  return ServedModel("grey", "run", 7, tree, RULE, (8, 8, 3), "crop", "bilinear", sizes, compute)


def picture(number, side=8):
  """Returns the bytes of a PNG whose answer is the leaf of a number."""
  buffer = io.BytesIO()
  Image.new("RGB", (side, side), (40 * number + 20,) * 3).save(buffer, "PNG")
  return buffer.getvalue()


@contextlib.contextmanager
def serving(model, **limits):
  """Yields a server that is ready."""
  server = Server(model, Limits(**limits))
  with server.listen("127.0.0.1", 0) as listening:
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
      until = time.monotonic() + 120
      while server.service.state == "compiling":
        assert time.monotonic() < until
        time.sleep(0.01)
      yield server
    finally:
      server.should_exit = True
      thread.join()


def connect(server, timeout=60):
  """Returns a connection to a server."""
  return http.client.HTTPConnection(*server.address.removeprefix("http://").rsplit(":", 1), timeout=timeout)


def ask(server, method, path, body=None, **headers):
  """Returns the status and the content of an answer, JSON as data."""
  connection = connect(server)
  with contextlib.closing(connection):
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return read(connection)


def read(connection):
  """Returns the status and the content of the answer that comes next."""
  reply = connection.getresponse()
  content = reply.read()
  is_json = reply.headers["Content-Type"] == "application/json"
  return reply.status, json.loads(content) if is_json else content.decode()


def form(images, field="image"):
  """Returns the body of a form with files by name, and its type."""
  parts = [
    f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
    for name, data in images
  ]
  return b"".join(parts) + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"

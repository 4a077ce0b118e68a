"""The application: predictions, health, counters, the tree and the page, each under its path."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hierjax.data.images.read_image import BadImageError
from hierjax.inference.answers import Answer, Row, paths_of, without_path
from hierjax.inference.image_inputs import ImageInput
from hierjax.serve import meters, page
from hierjax.serve.batching import Batches
from hierjax.serve.bodies import body_of
from hierjax.serve.limits import Limits, Refusal, Room
from hierjax.serve.models import Pixels, ServedModel

_BUSY = "the server has as much to do as it may take on: try again in a second"
_REQUESTS = 512  # at the same time
_READERS = max(2, min(8, os.cpu_count() or 1))


class Service:
  """A served model with its queue, its counters and its limits.

  Attributes:
    state: `compiling`, then `ready`; or `failed`.
  """

  def __init__(self, model: ServedModel, limits: Limits, failed: Callable[[Exception], None] = lambda error: None):
    """Makes the service; `failed` is called where the model cannot be compiled."""
    self.state = "compiling"
    self._model, self._limits, self._failed = model, limits, failed
    self._bytes = Room(limits.bytes_of_all, _BUSY)
    self._waiting = Room(limits.waiting, _BUSY)
    self._requests = Room(_REQUESTS, _BUSY)
    self._meters = meters.Meters(lambda: self._waiting.taken, lambda: self.state == "ready")
    self._batches = Batches(model.answers, model.sizes[-1], self._meters.batches.observe)

  @contextlib.asynccontextmanager
  async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
    """Compiles the model in the background, and answers while the context is open."""
    with ThreadPoolExecutor(_READERS, "images") as self._readers:
      async with self._batches.running():
        compiling = asyncio.create_task(self._warm_up())
        yield
        compiling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
          await compiling

  async def _warm_up(self) -> None:
    try:
      await asyncio.to_thread(self._model.warm_up)
    except Exception as error:
      self.state = "failed"
      self._failed(error)
    else:
      self.state = "ready"

  async def predict(self, request: Request) -> Response:
    """POST /predict: the paths of one image or many."""
    start, headers = time.perf_counter(), {}
    with body_of(request, self._limits, self._bytes) as body:
      try:
        self._requests.take(1)
        try:
          status, content = await self._answer(request, await self._images_of(request, body.images))
        finally:
          self._requests.give_back(1)
        self._meters.seconds.observe(time.perf_counter() - start)
      except Refusal as refusal:
        await body.drain()
        status, content = refusal.status, {"error": refusal.sentence}
        headers = {"Retry-After": "1"} if status == 503 else {}
      except ClientDisconnect:
        status, content = 499, {"error": "the sender went away"}  # for the counter; nobody reads it
      except Exception:
        self._meters.requests.labels("500").inc()
        raise
    self._meters.requests.labels(str(status)).inc()
    return _json(content, status, headers)

  async def _images_of(self, request: Request, read: Callable[[], Any]) -> list[ImageInput]:
    if self.state != "ready":
      raise Refusal(503, f"the model is {self.state}: ask /health until it says ready")
    _least(request)
    images: list[ImageInput] = await read()
    return images

  async def _answer(self, request: Request, images: Sequence[ImageInput]) -> tuple[int, dict[str, Any]]:
    """Returns the status and the content of the answer for images."""
    self._waiting.take(len(images))
    try:
      async with asyncio.timeout(self._limits.seconds):
        pixels = await asyncio.gather(*map(self._read, images))
        good = [one for one in pixels if not isinstance(one, str)]
        answers = await self._batches.answers(good)
    except TimeoutError:
      raise Refusal(504, f"there was no answer within {self._limits.seconds:g} seconds: send fewer images") from None
    finally:
      self._waiting.give_back(len(images))
    self._meters.images.labels("answered").inc(len(good))
    self._meters.images.labels("unreadable").inc(len(pixels) - len(good))
    return self._content(images, pixels, answers, _least(request))

  async def _read(self, image: ImageInput) -> Pixels | str:
    """Returns the pixels of an image, or why there are none."""
    read = asyncio.get_running_loop().run_in_executor(self._readers, self._model.pixels, image, self._limits.pixels)
    try:
      return await read
    except BadImageError as error:
      return str(error)

  def _content(
    self, images: Sequence[ImageInput], pixels: Sequence[Pixels | str], answers: Sequence[Answer], least: float | None
  ) -> tuple[int, dict[str, Any]]:
    """Returns the status and the content of an answer; that of images of which none could be read is an error."""
    rows, nodes, found = list[Row](), list[dict[str, float]](), iter(answers)
    for image, own in zip(images, pixels, strict=True):
      if isinstance(own, str):
        rows.append(Row(image.name, error=own))
        nodes.append({})
        continue
      answer, model = next(found), self._model
      paths = list(paths_of(image.name, model.tree, answer, model.rule))
      rows += paths or [without_path(image.name, model.tree, answer, model.rule)]
      likely = np.flatnonzero(answer.node_prob >= least).tolist() if least is not None else []
      nodes.append({str(node): float(answer.node_prob[node]) for node in likely})
    content: dict[str, Any] = {"answers": [row._asdict() for row in rows]}
    if least is not None:
      content["nodes"] = nodes
    if not answers:
      return 422, {"error": f"no image could be read: {rows[0].error}", **content}
    return 200, content

  async def health(self, request: Request) -> Response:
    """GET /health: whether the model is ready, status 503 where it is not, and what it is."""
    model = self._model
    about = {
      "status": self.state,
      "model": model.name,
      "kind": model.kind,
      "step": model.step,
      "nodes": model.tree.num_nodes,
      "leaves": len(model.tree.leaves),
      "levels": list(model.tree.named_levels),
      **model.rule,
      "batches": list(model.sizes),
    }
    return _json(about, 200 if self.state == "ready" else 503)

  async def metrics(self, request: Request) -> Response:
    """GET /metrics: the counters, for Prometheus."""
    return Response(self._meters.text(), headers={"Content-Type": meters.CONTENT_TYPE})

  async def tree(self, request: Request) -> Response:
    """GET /tree: the names of the nodes, breadth-first, and the number of each one's parent, -1 for the root."""
    tree = self._model.tree
    return _json({"names": list(tree.names), "parents": tree.parent.tolist(), "levels": list(tree.named_levels)})

  async def page(self, request: Request) -> Response:
    """GET /: the page that sends photographs and shows their answers."""
    return Response(page.HTML, headers=page.HEADERS)


def application(service: Service) -> Starlette:
  """Returns the application of a service."""
  routes = [
    Route("/", service.page),
    Route("/health", service.health),
    Route("/metrics", service.metrics),
    Route("/tree", service.tree),
    Route("/predict", service.predict, methods=["POST"]),
  ]
  return Starlette(
    routes=routes,
    lifespan=service.lifespan,
    middleware=[Middleware(_CloseUnread)],
    exception_handlers={HTTPException: _no_such, Exception: _broken},
  )


def _least(request: Request) -> float | None:
  """Returns the least probability of nodes to list, of `?nodes=0.01`; None where it is not asked for."""
  for key in request.query_params:
    if key != "nodes":
      raise Refusal(422, f"there is no parameter {key!r}: ?nodes=0.01 is the only one")
  text = request.query_params.get("nodes")
  with contextlib.suppress(ValueError):
    if text is None or 0 <= float(text) <= 1:
      return None if text is None else float(text)
  raise Refusal(422, f"?nodes={text}: give a probability, 0 to 1")


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
  text = json.dumps(content, allow_nan=False)
  return Response(text, status, {"X-Content-Type-Options": "nosniff", **(headers or {})}, "application/json")


async def _no_such(request: Request, error: Exception) -> Response:
  status = error.status_code if isinstance(error, HTTPException) else 500
  wanted = "GET /, /health, /metrics and /tree, and POST /predict are there"
  return _json({"error": f"{request.method} {request.url.path}: {wanted}"}, status)


async def _broken(request: Request, error: Exception) -> Response:
  return _json({"error": f"the model failed with {type(error).__name__}; the server's log has more"}, 500)


class _CloseUnread:
  """Middleware: where a request is answered before all of its body has come, its connection is closed."""

  def __init__(self, app: ASGIApp):
    self._app = app

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request."""
    if scope["type"] != "http":
      return await self._app(scope, receive, send)
    headers = Headers(scope=scope)
    whole = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"

    async def received() -> Message:
      nonlocal whole
      message = await receive()
      whole = whole or (message["type"] == "http.request" and not message.get("more_body", False))
      return message

    async def sent(message: Message) -> None:
      if message["type"] == "http.response.start" and not whole:
        message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
      await send(message)

    await self._app(scope, received, sent)

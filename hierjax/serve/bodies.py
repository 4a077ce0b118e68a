"""The bodies of requests: their images, read within the limits of the server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from hierjax.inference.image_inputs import ImageInput
from hierjax.serve.limits import Limits, Refusal, Room

_FORM, _RAW = "multipart/form-data", ("image/", "application/octet-stream")
_DRAIN = 1.0  # seconds in which the rest of a refused body is dropped, so that its sender reads the answer


class Body:
  """The body of a request, read piece by piece; the bytes that it holds count in the room of all requests.

  Attributes:
    whole: whether all of it has been received.
  """

  def __init__(self, request: Request, limits: Limits, room: Room):
    self._request, self._limits, self._room = request, limits, room
    self._until = time.monotonic() + limits.seconds
    self._held = 0
    self.whole = False

  async def images(self) -> list[ImageInput]:
    """Returns the images of the body, unread.

    Raises:
      Refusal: it is too large, too slow, of another type, or has no image or too many.
      ClientDisconnect: the sender went away.
    """
    declared = self._request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > self._limits.bytes:
      raise self._too_large()
    kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM:
      return await self._of_form()
    if kind.startswith(_RAW):
      data = b"".join([piece async for piece in self._counted()])
      if not data:
        raise Refusal(422, "the body is empty: send an image")
      return [ImageInput("image 0", data)]
    raise Refusal(
      415,
      f"the type of the body is {kind or 'not given'}: send images as files of {_FORM} (curl -F image=@photo.jpg), or "
      "one image as image/jpeg, image/png or the like (curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg)",
    )

  async def drain(self) -> None:
    """Drops what is still sent, for a second at most: a sender that is cut off may miss the answer."""
    self._until = time.monotonic() + _DRAIN
    with contextlib.suppress(Refusal, ClientDisconnect):
      while await self._next():
        pass

  def close(self) -> None:
    """Gives the room of its bytes back."""
    self._room.give_back(self._held)
    self._held = 0

  async def _of_form(self) -> list[ImageInput]:
    most = self._limits.images
    parser = _FormInMemory(self._request.headers, self._counted(), max_files=most, max_fields=0)
    parser.spool_max_size = self._limits.bytes + 1
    try:
      form = await parser.parse()
    except MultiPartException as error:
      if error.message.startswith("Too many files"):
        raise Refusal(413, f"the body has more than {most} images, which is the limit: send fewer at once") from None
      if error.message.startswith("Too many fields"):
        raise Refusal(422, "the form has a field that is no file: send images alone, as files") from None
      raise Refusal(422, f"the body is no {_FORM}: {error.message}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
      raise Refusal(422, "the form has no file: send at least one image")
    names = [file.filename or f"image {number}" for number, file in enumerate(files)]
    inputs = [ImageInput(name, await file.read()) for name, file in zip(names, files, strict=True)]
    await form.close()
    return inputs

  async def _counted(self) -> AsyncGenerator[bytes, None]:
    """Yields the pieces of the body; raises Refusal where they are too many or too late."""
    while piece := await self._next():
      if self._held + len(piece) > self._limits.bytes:
        raise self._too_large()
      self._room.take(len(piece))
      self._held += len(piece)
      yield piece

  async def _next(self) -> bytes:
    """Returns the next piece; b'' at the end."""
    while not self.whole:
      try:
        async with asyncio.timeout(self._until - time.monotonic()):
          message = await self._request.receive()
      except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {self._limits.seconds:g} seconds") from None
      if message["type"] == "http.disconnect":
        raise ClientDisconnect
      self.whole = not message.get("more_body", False)
      if message.get("body"):
        return bytes(message["body"])
    return b""

  def _too_large(self) -> Refusal:
    return Refusal(413, f"the body has more than {self._limits.bytes:,} bytes, which is the limit: send fewer images")


class _FormInMemory(MultiPartParser):
  """Starlette's parser with a limit of its own for files in memory; larger ones would go to the disk."""

  spool_max_size: int


@contextlib.contextmanager
def body_of(request: Request, limits: Limits, room: Room) -> Iterator[Body]:
  """Yields the body of a request; in the end its bytes are given back."""
  body = Body(request, limits, room)
  try:
    yield body
  finally:
    body.close()

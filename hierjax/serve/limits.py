"""What one request, and all requests together, may cost the server; and the refusal of what costs more."""

from __future__ import annotations

import dataclasses

from hierjax.data.images.read_image import MAX_PIXELS
from hierjax.errors import UserError

_AHEAD = 4  # bodies of the largest size that may be in memory at the same time


@dataclasses.dataclass(frozen=True)
class Limits:
  """The limits of a server, each of them a flag of `hierjax serve`.

  Attributes:
    bytes: of the body of a request. The bodies of all requests together may hold 4 times as many.
    images: of a request.
    pixels: of an image, before it is decoded; at most 89,478,485.
    seconds: for the head and the body of a request to arrive, and again for its answer.
    waiting: images of all requests that may wait for the model.
  """

  bytes: int = 32 * 2**20
  images: int = 64
  pixels: int = 50_000_000
  seconds: float = 30.0
  waiting: int = 256

  def __post_init__(self) -> None:
    """Raises UserError for a limit out of range."""
    laws = {
      "bytes": (1 <= self.bytes <= 2**32, "1 to 4,294,967,296 bytes"),
      "images": (1 <= self.images <= 10_000, "1 to 10,000 images"),
      "pixels": (1 <= self.pixels <= MAX_PIXELS, f"1 to {MAX_PIXELS:,} pixels"),
      "seconds": (0 < self.seconds <= 86_400, "above 0, and at most 86,400 seconds"),
      "waiting": (self.images <= self.waiting <= 1_000_000, f"--most-images {self.images} to 1,000,000 images"),
    }
    for name, (holds, allowed) in laws.items():
      if not holds:
        flag = "--seconds" if name == "seconds" else f"--most-{name}"
        raise UserError(f"{flag} {getattr(self, name)}: must be {allowed}")

  @property
  def bytes_of_all(self) -> int:
    """Bytes of the bodies that may be in memory at the same time."""
    return _AHEAD * self.bytes


class Refusal(Exception):
  """A request is refused: the status of HTTP, and a sentence that says why and what to do."""

  def __init__(self, status: int, sentence: str):
    super().__init__(sentence)
    self.status = status
    self.sentence = sentence


class Room:
  """A number of bytes, or of images, that all requests share; used by one thread."""

  def __init__(self, size: int, full: str):
    """Makes room for `size`; `full` is the sentence of the refusal with status 503 where more is wanted."""
    self.size, self.taken = size, 0
    self._full = full

  def take(self, number: int) -> None:
    """Takes a part; raises Refusal where so much is not left."""
    if self.taken + number > self.size:
      raise Refusal(503, self._full)
    self.taken += number

  def give_back(self, number: int) -> None:
    """Gives a part back."""
    self.taken -= number

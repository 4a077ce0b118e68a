"""What a server counts, as `/metrics` shows it to Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Meters:
  """The counters of one server.

  Attributes:
    requests: to /predict, by the status of their answers.
    images: by `outcome`: answered, or unreadable.
    seconds: of requests to /predict that were answered with status 200.
    batches: the images of each batch that the model computed.
  """

  def __init__(self, waiting: Callable[[], int], ready: Callable[[], bool]):
    """Makes the counters; the functions return the number of images that wait, and whether the model is compiled."""
    own = self._registry = CollectorRegistry()
    self.requests = Counter(
      "hierjax_requests", "Requests to /predict by the status of the answer", ["status"], registry=own
    )
    self.images = Counter("hierjax_images", "Images of requests by outcome", ["outcome"], registry=own)
    self.seconds = Histogram(
      "hierjax_request_seconds", "Seconds until the answer of a request", buckets=_SECONDS, registry=own
    )
    self.batches = Histogram("hierjax_batch_images", "Images of a batch", buckets=_IMAGES, registry=own)
    gauges = (
      ("hierjax_waiting_images", "Images that wait for the model or are in it", waiting),
      ("hierjax_ready", "1 where the model is compiled", ready),
    )
    for name, text, value in gauges:
      Gauge(name, text, registry=own).set_function(value)

  def text(self) -> bytes:
    """Returns all counters in the format of Prometheus."""
    return generate_latest(self._registry)

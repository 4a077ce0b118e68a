"""The features of a frozen backbone: computed once for the images of a split, and kept by their content."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int
from tqdm import tqdm

from hierjax.data.images import cache
from hierjax.data.images.decode import parallel, read_or_skip
from hierjax.data.source import Source, View
from hierjax.data.sources.frozen import FrozenFeatures
from hierjax.errors import UserError
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.estimate import Estimate
from hierjax.runs.run import Run
from hierjax.types import Examples, Method, Variables

_CHUNK = 256  # images that are hashed at once
_VIEWS_KEY = 0  # the views do not depend on the run's seed, so that runs of several seeds share them


def frozen_features(loaded: LoadedRun, source: Source, views: int = 0) -> Source:
  """Returns the features of images in place of the images, where `config.frozen.keep` asks for it.

  They are looked up in `config.data.cache_folder` by the pixels, the weights of the backbone and the settings of
  preprocessing, and computed if they are not there. A run of several processes passes its images through the backbone
  at each step instead: the result is `source`.

  Args:
    loaded: the run, with the weights of its backbone.
    source: the images.
    views: augmented views of each image, beside the one of evaluation.

  Raises:
    UserError: features are not finite.
  """
  if not loaded.run.config.frozen["keep"] or jax.process_count() > 1 or isinstance(source, FrozenFeatures):
    return source
  name, place = f"features {loaded.run.config.backbone['name']} {views}", loaded.run.data.cache_place
  fingerprint = _fingerprint(loaded, source, views)
  name = f"{name} {fingerprint[:16]}"  # other splits' and other weights' features are kept beside these
  shape = (len(source), 1 + views, *(None,) * loaded.run.method.module.kept.ndim)
  features = cache.load(name, fingerprint, shape, np.float32, place)
  if features is None:
    features = _computed(loaded, source, views)
    if (path := cache.save(name, fingerprint, features, place)) is not None:
      print(f"features of {len(source):,} images are kept for the next run: {path}", file=sys.stderr)
  return FrozenFeatures(source, features)


def read_by(loaded: LoadedRun, source: Source) -> Source:
  """Returns what a run evaluates: features, where it keeps them and looks at one view, or else the images."""
  return frozen_features(loaded, source) if reads_features(loaded.run) else source


def reads_features(run: Run) -> bool:
  """Returns whether a run evaluates the features that it keeps; of several views of an image there are none."""
  return bool(run.config.frozen["keep"]) and run.options.views == 1


def _fingerprint(loaded: LoadedRun, source: Source, views: int) -> str:
  """Returns a digest of all that the features depend on."""
  run = loaded.run
  transform = run.data.transform if views else run.data.transform.in_evaluation
  found = hashlib.blake2b()
  kept = repr(run.method.module.kept)
  settings = [run.config.backbone, dataclasses.asdict(transform), run.config.dtype, views, kept]
  found.update(json.dumps(settings, default=list, sort_keys=True).encode())
  for collection, parts in sorted(loaded.variables.items()):
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts.get("backbone", {})):
      found.update(f"{collection}{jax.tree_util.keystr(path)}".encode())
      found.update(np.ascontiguousarray(jax.device_get(leaf)).data)
  for digest in _digests(run, source):
    found.update(digest)
  return found.hexdigest()


def _digests(run: Run, source: Source) -> list[bytes]:
  """Returns a digest of every 256 images; computed once for each selection of a split that `run.opened` keeps."""
  root, indices = source, np.arange(len(source), dtype=np.int64)
  while isinstance(root, View):
    indices, root = root.indices[indices], root.source
  key = f"{id(root)} {hashlib.blake2b(np.asarray(indices, np.int64).tobytes()).hexdigest()}"
  kept = run.opened.digests if any(root is one for one in run.opened.sources.values()) else {}
  if key not in kept:
    kept[key] = list(
      parallel(lambda rows: _digest(source, rows, run.data.on_bad_image), _chunks(source), run.data.threads)
    )
  return kept[key]


def _chunks(source: Source) -> Iterator[Int[np.ndarray, "m"]]:
  return (np.arange(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK))


def _digest(source: Source, rows: Int[np.ndarray, "m"], on_bad_image: str) -> bytes:
  images, bad = read_or_skip(source, rows, on_bad_image)
  return hashlib.blake2b(images.tobytes() + repr(sorted(bad)).encode()).digest()


def _computed(loaded: LoadedRun, source: Source, views: int) -> Float32[np.ndarray, "n v *d"]:
  """Returns the features of all images, with a progress bar and an estimate of the time."""
  loaded = loaded.on_all_devices()
  run, key = loaded.run, jax.random.key(_VIEWS_KEY)
  blocks: list[np.ndarray] = []

  @jax.jit
  def features(method: Method, variables: Variables, examples: Examples) -> Float[Array, "b v *d"]:
    def seen(inputs: Array) -> Float[Array, "b *d"]:
      found: Any = method.module.apply(variables, inputs, method="kept_array")
      return found

    def augmented(view: Int[Array, ""]) -> Float[Array, "b *d"]:
      draw = examples.draw.at[:, 0].set(view)
      return seen(run.augment(dataclasses.replace(examples, draw=draw), key).inputs)

    first = seen(run.preprocess(examples).inputs)[None]
    others = jax.lax.map(augmented, jnp.arange(1, views + 1)) if views else first[:0]
    return jnp.concatenate([first, others]).swapaxes(0, 1)

  label = f"features, {1 + views} views an image" if views else "features"
  bar = tqdm(total=len(source), desc=label, unit=" images", delay=2, leave=False, disable=None)
  estimate = Estimate(f"features of {len(source):,} images", len(source))
  with contextlib.closing(loaded.map(features, source)) as found, bar:
    for examples, batch in found:
      rows, real = np.asarray(batch), np.asarray(examples.mask) > 0
      if not blocks:
        _check_size(rows.nbytes // len(rows) * len(source), len(source))
      _check_finite(rows, real, source, len(blocks) * len(rows))
      blocks.append(np.where(np.expand_dims(real, tuple(range(1, rows.ndim))), rows, np.nan))
      bar.update(len(rows))
      estimate.count(len(rows))
  return np.concatenate(blocks)[: len(source)]


def _check_size(size: int, images: int) -> None:
  """Raises UserError where features are too large for the memory, in which they are for a moment twice."""
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  if 2 * size > memory:
    raise UserError(
      f"config.frozen.keep = True: the features of {images:,} images have {size / 2**30:.1f} GiB, and half of this "
      f"machine's memory is {memory / 2**31:.1f} GiB; set fewer config.frozen.views, a smaller config.data.size, or "
      "config.frozen.keep = False"
    )


def _check_finite(rows: Float32[np.ndarray, "b v *d"], real: Bool[np.ndarray, "b"], source: Source, first: int) -> None:
  bad = real & ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
  if bad.any():
    name = source.name_of(first + int(np.argmax(bad)))
    raise UserError(f"{name}: its features are not finite; the weights of the backbone, config.init, may be damaged")

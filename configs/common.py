"""The base of all configs, and the variants that several share.

A config file has a function `get_config(variant)`. It takes `base()`, sets the values of its experiment, and applies
the words of `FILE.py:WORD,WORD`. Fields that it does not set have the defaults of hierjax, and each can be set on the
command line. The steps and the learning rate for another batch size are computed when training starts, so
`--config.batch_size=64` changes both.
"""

from collections.abc import Callable, Mapping, Sequence

import ml_collections as mlc

from hierjax.errors import UserError, did_you_mean
from hierjax.training.sections import defaults

Edit = Callable[[mlc.ConfigDict], None]


def base() -> mlc.ConfigDict:
  """Returns all keys but those of the parts; `hierjax config show` prints them all, with their descriptions."""
  c = mlc.ConfigDict(defaults())
  c.backbone = dict(name="small_resnet")
  c.head = dict(name="path_rnn", width=128, softmax="nodes")
  c.optim.lr_batch = 128
  c.optim.nesterov = True
  c.optim.decay = (("(bias|scale)$", 0.0), (".*", 5e-4))
  c.decode.beam = 5
  return c


def smoke(c: mlc.ConfigDict) -> None:
  """Seconds on a laptop: generated images of 32 pixels over the same tree, a few steps, a small network."""
  c.data.name = "noise"
  c.data.examples = 96
  c.data.validation = 0.1
  c.data.resize = c.data.crop = 32
  c.data.sides = ()
  c.decode.views = 1  # the crop is the whole image
  c.batch_size = 16
  c.epochs = 2.0
  c.log_every = 4


def apply(c: mlc.ConfigDict, variant: str, kinds: Sequence[Mapping[str, Edit]]) -> mlc.ConfigDict:
  """Applies the words of a variant, in the order of the kinds, and locks the config.

  Args:
    c: the config.
    variant: words joined by commas; '' for none.
    kinds: tables from a word to what it changes; a variant may have at most one word of each.

  Raises:
    UserError: a word is in no table, or two are of one kind.
  """
  words = [word for word in variant.split(",") if word]
  known = sorted(word for kind in kinds for word in kind)
  for word in words:
    if word not in known:
      choices = ", ".join(known) or "none"
      raise UserError(f"unknown variant {word!r}; choose from: {choices}{did_you_mean(word, known)}")
  for kind in kinds:
    chosen = [word for word in words if word in kind]
    if len(chosen) > 1:
      raise UserError(f"variants {' and '.join(chosen)} exclude each other")
    for word in chosen:
      kind[word](c)
  return c.lock()


# Shared by several configs.


def flat(c: mlc.ConfigDict) -> None:
  """A softmax over the leaves in place of the head."""
  c.head = dict(name="flat")


def plain(c: mlc.ConfigDict) -> None:
  """No augmentation."""
  c.data.pad = 0
  c.data.mirror = False


def cifar100() -> mlc.ConfigDict:
  """CIFAR-100 with its 20 superclasses, trained on all 50,000 images; the last weights count (READINGS G9)."""
  c = base()
  c.tree.source = "cifar100"
  c.data.name = "cifar100"
  c.data.validation = 0.0
  c.data.mean = (0.5071, 0.4865, 0.4409)  # of the training images
  c.data.std = (0.2673, 0.2564, 0.2762)
  cifar100_wrn(c)
  return c


def cifar100_cnn7(c: mlc.ConfigDict) -> None:
  """CNN-7 with its own schedule (READINGS G10): 240 epochs of 500 steps."""
  c.backbone = dict(name="cnn7")
  c.batch_size = 100
  c.epochs = 240.0
  c.optim.lr = 0.1
  c.optim.lr_batch = 100
  c.optim.nesterov = False
  c.optim.decay = ((".*", 1e-4),)
  c.schedule.name = "step"
  c.schedule.boundaries = (80.0, 160.0)
  c.schedule.factor = 0.1


def cifar100_wrn(c: mlc.ConfigDict) -> None:
  """WRN-28-10 with dropout and the schedule of Guo et al.: 280 epochs of 250 steps (READINGS G9, G14)."""
  c.backbone = dict(name="wide_resnet", depth=28, width=10, dropout=0.3)
  c.batch_size = 200
  c.epochs = 280.0
  c.optim.lr = 0.1
  c.optim.lr_batch = 200
  c.optim.decay = ((".*", 5e-4),)
  c.schedule.name = "step"
  c.schedule.boundaries = (80.0, 160.0, 240.0)
  c.schedule.factor = 0.2


def cifar100_wider(c: mlc.ConfigDict) -> None:
  """The wider-ResNet of Guo et al., Table 3: as WRN-28-10, but for plain momentum and a rate divided by 10, twice."""
  cifar100_wrn(c)
  c.backbone = dict(name="wider_resnet")
  c.optim.nesterov = False
  c.schedule.boundaries = (160.0, 240.0)
  c.schedule.factor = 0.1


def cifar100_cpu(c: mlc.ConfigDict) -> None:
  """About 3 minutes on 2 idle cores."""
  c.backbone = dict(name="small_resnet", widths=(32, 64, 256), blocks=1, stem_stride=2)
  c.batch_size = 64
  c.epochs = 4.0
  c.optim.lr = 0.1
  c.optim.lr_batch = 64
  c.optim.nesterov = True
  c.optim.decay = (("kernel$", 5e-4), (".*", 0.0))
  c.schedule.name = "cosine"
  c.schedule.warmup = 0.5
  c.log_every = 100


def cifar100_cpu_long(c: mlc.ConfigDict) -> None:
  """About 16 minutes on 2 idle cores."""
  cifar100_cpu(c)
  c.epochs = 26.0


def cifar100_smoke(c: mlc.ConfigDict) -> None:
  """`smoke`, with a backbone that compiles quickly."""
  smoke(c)
  c.backbone = dict(name="small_resnet", widths=(8, 16), blocks=1)


CIFAR100_NETWORKS = {
  "cnn7": cifar100_cnn7,
  "wrn": cifar100_wrn,
  "wider": cifar100_wider,
  "cpu": cifar100_cpu,
  "cpu_long": cifar100_cpu_long,
  "smoke": cifar100_smoke,
}

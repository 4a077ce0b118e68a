"""The parts shared by the configs of Zuo et al. 2016: the networks of Table I and section IV-C, and their training.

Variants of chrnn_imagenet, chrnn_places205, chrnn_sun397 and chrnn_mit67, at most one of each line:
  hlstm (the default) | hsrn | mlstm | msrn (no links between the scales) | spp (SPP-net) | alex (AlexNet)
  directions1 (from the upper left: Table VI) | directions1_se | directions1_sw | directions1_ne (from the others) |
    directions2 (nw and sw) | directions2_se_ne | modified_cnn (the same number of weights, no context: section IV-C2) |
    modified_cnn_relu (of which all count: READINGS Z14)
  path: a CNN-RNN head in place of the softmax over the leaves
  ten_crops: training takes the ten fixed crops, as the paper's (READINGS Z16), in place of random ones
  smoke: generated images, seconds
"""

from functools import partial

import ml_collections as mlc

from configs import common


def neck() -> dict:
  """The neck of C-HRNN, with all its fields, so that a command line can change them."""
  return dict(
    name="context",
    cell="lstm",
    channels=0,
    scales=(1, 2, 3, 6),
    directions=("nw", "ne", "sw", "se"),
    links=True,
    neighbours="states",
    resample="overlap",
    hidden=(4096, 4096),
    dropout=0.5,
  )


def hlstm(c: mlc.ConfigDict) -> None:
  """C-HLSTM."""
  c.neck.cell = "lstm"


def hsrn(c: mlc.ConfigDict) -> None:
  """C-HSRN."""
  c.neck.cell = "srn"


def mlstm(c: mlc.ConfigDict) -> None:
  """C-MLSTM: no links between the scales."""
  c.neck.cell = "lstm"
  c.neck.links = False


def msrn(c: mlc.ConfigDict) -> None:
  """C-MSRN: no links between the scales."""
  c.neck.cell = "srn"
  c.neck.links = False


def spp(c: mlc.ConfigDict) -> None:
  """SPP-net: the pyramid without recurrences."""
  c.neck.cell = "none"


def alex(c: mlc.ConfigDict) -> None:
  """AlexNet: its own first layers, and one scale, the 6 x 6 cells of its last pool."""
  c.backbone = dict(name="alexnet")
  c.neck.cell = "none"
  c.neck.scales = (6,)


def modified_cnn(c: mlc.ConfigDict) -> None:
  """The modified CNN of section IV-C2: as many weights, each matrix on the cell's own input (READINGS Z14)."""
  c.neck.neighbours = "input"


def modified_cnn_relu(c: mlc.ConfigDict) -> None:
  """The same with a ReLU after each matrix: in the sum of `modified_cnn`, many count as one (READINGS Z14)."""
  c.neck.neighbours = "relu"


def directions(c: mlc.ConfigDict, corners: tuple[str, ...]) -> None:
  """The recurrences that start from these corners alone: a row of Table VI."""
  c.neck.directions = corners


def path(c: mlc.ConfigDict) -> None:
  """A CNN-RNN in place of the softmax over the leaves."""
  c.head = dict(name="path_rnn", width=512, softmax="nodes")


def ten_crops(c: mlc.ConfigDict) -> None:
  """The centre, the corners and their mirror images, one of the ten at random each time (READINGS Z16)."""
  c.data.crops = "ten"


def smoke(c: mlc.ConfigDict) -> None:
  """Seconds on a laptop, see `common.smoke`."""
  common.smoke(c)
  c.init.skip = ()  # no run is given
  c.data.test_split = ""
  if c.tree.source == "images":
    c.tree.source = "shapes"
  if c.tree.source == "imagenet1k":  # 96 images lack most classes
    c.data.validation = 0.0
    c.schedule.name = "cosine"
  if len(c.neck.scales) > 1:
    c.neck.scales = (1, 2)
  c.backbone = dict(name="small_resnet", widths=(8, 16), blocks=1, stem_stride=2)
  c.neck.hidden = (32,)


NETWORKS = {"hlstm": hlstm, "hsrn": hsrn, "mlstm": mlstm, "msrn": msrn, "spp": spp}
CORNERS = {
  "directions1": ("nw",),
  "directions1_se": ("se",),
  "directions1_sw": ("sw",),
  "directions1_ne": ("ne",),
  "directions2": ("nw", "sw"),
  "directions2_se_ne": ("se", "ne"),
}
DIRECTIONS = {name: partial(directions, corners=corners) for name, corners in CORNERS.items()}
ABLATIONS = DIRECTIONS | {"modified_cnn": modified_cnn, "modified_cnn_relu": modified_cnn_relu}
HEADS = {"path": path}
KINDS = (NETWORKS | {"alex": alex}, ABLATIONS, HEADS, {"ten_crops": ten_crops}, {"smoke": smoke})


def experiment() -> mlc.ConfigDict:
  """Section IV-A: C-HLSTM on images of 256 pixels, cropped to 224; batch 256, learning rate .01, divided on plateau."""
  c = common.base()
  c.backbone = dict(name="sppnet")
  c.neck = neck()
  c.head = dict(name="flat")
  c.data.resize = 256
  c.data.crop = 224
  c.data.fit = "stretch"
  c.data.pad = 0
  c.data.mean = (0.485, 0.456, 0.406)  # of ImageNet
  c.data.std = (0.225, 0.225, 0.225)  # one value: the paper only subtracts the mean
  c.batch_size = 256
  c.epochs = 90.0
  c.optim.lr = 0.01
  c.optim.lr_batch = 256
  c.optim.momentum = 0.9
  c.optim.nesterov = False
  c.optim.decay = (("bias$", 0.0), (".*", 5e-4))
  c.schedule.name = "plateau"
  c.schedule.monitor = "accuracy"
  c.schedule.factor = 0.1
  return c


def fine_tuning(c: mlc.ConfigDict) -> None:
  """Section IV-B3: fine-tuning of a run with other classes; the recurrent layers have 10 times the learning rate."""
  c.init.skip = ("^head/",)
  c.optim.lr_groups = (("^neck/context/", 10.0), (".*", 1.0))

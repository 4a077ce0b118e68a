r"""CNN-RNN on your own images, in folders with the names of their labels.

  python train.py --config=configs/folder.py --config.data.root=PHOTOS --workdir=runs/mine

PHOTOS/animal/dog/basenji/7.jpg is an image of the path animal > dog > basenji. PHOTOS/animal/dog/8.jpg has a partial
label, animal > dog. If PHOTOS has the folders train, and test or validation, or other words for them, those are the
splits; otherwise a tenth of the images of each label is kept for validation. With --config.data.labels=FILE.csv the
labels come from a CSV file, whose columns are found by their header. `hierjax data check PHOTOS` prints the splits, the
tree and the errors before training.

Images are resized to 72 pixels and cropped to 64. Larger ones show finer details and take longer:
--config.data.resize=256 --config.data.crop=224.

Variants, at most one of each line:
  flat: a softmax over the leaves in place of the CNN-RNN head
  context: a C-HRNN neck (Zuo et al. 2016) on the backbone's last map, which has 4 x 4 cells for crops of 64 pixels
  smoke: generated images, seconds
"""

import ml_collections as mlc

from configs import chrnn, common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "images"
  c.data.name = "folder"
  c.data.resize = 72
  c.data.crop = 64
  c.data.pad = 0
  c.data.mean = (0.485, 0.456, 0.406)  # of ImageNet
  c.data.std = (0.229, 0.224, 0.225)
  c.batch_size = 64
  c.epochs = 30.0
  c.backbone = dict(name="small_resnet", widths=(32, 64, 128, 256), blocks=1, stem_stride=2)
  c.head = dict(name="path_rnn", width=256, softmax="nodes")
  c.schedule.warmup = 1.0
  return common.apply(c, variant, KINDS)


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  c.tree.source = "shapes"
  c.backbone = dict(name="small_resnet", widths=(8, 16), blocks=1)
  c.head.width = 16


def context(c: mlc.ConfigDict) -> None:
  c.neck = chrnn.neck()
  c.neck.scales = (1, 2, 4)
  c.neck.hidden = (512,)


KINDS = ({"context": context}, {"smoke": smoke}, {"flat": common.flat})

r"""C-HRNN on SUN 397, fine-tuned from a trained run (Zuo et al. 2016, Table IV and section IV-B3).

  python train.py --config=configs/chrnn_sun397.py --config.init.run=runs/hlstm-places --workdir=runs/hlstm-sun

The run must have the same network, so give the same variant. The images are TFDS's, in one of the set's own ten
partitions of 50 training and 50 test images a scene, or your own folders: --config.data.name=folder
--config.data.root=IMAGES. The paper uses "the general splittings" and does not say whether its numbers are means over
them: 49.02 (spp) to 52.78 (hlstm) from ILSVRC 2012, and 57.23 to 60.34 from Places. The config has not been run.

Variants, at most one of each line:
  part1 (the default) | part2 | part3 | part4 | part5 | part6 | part7 | part8 | part9 | part10: the partition

Further variants, such as hsrn or hsrn,path: see configs/chrnn.py.
"""

from functools import partial

import ml_collections as mlc

from configs import chrnn, common


def partition(c: mlc.ConfigDict, number: int) -> None:
  if c.data.name != "noise":
    c.data.name = f"sun397/standard-part{number}-120k"


PARTITIONS = {f"part{number}": partial(partition, number=number) for number in range(1, 11)}
KINDS = (*chrnn.KINDS, PARTITIONS)


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = chrnn.experiment()
  chrnn.fine_tuning(c)
  c.tree.source = "images"
  c.data.name = "sun397/standard-part1-120k"
  c.data.validation = 0.1
  c.epochs = 40.0
  return common.apply(c, variant, KINDS)

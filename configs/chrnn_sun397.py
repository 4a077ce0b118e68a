r"""C-HRNN on SUN 397, fine-tuned from a trained run (Zuo et al. 2016, Table IV and section IV-B3).

  python train.py --config=configs/chrnn_sun397.py --config.init.run=runs/hlstm-places --workdir=runs/hlstm-sun

The run must have the same network, so give the same variant. The images are TFDS's, in the first of the set's own
partitions of 50 training and 50 test images a scene, or your own folders: --config.data.name=folder
--config.data.root=IMAGES. The config has not been run. The paper has 49.02 (spp) to 52.78 (hlstm) from ILSVRC 2012, and
57.23 to 60.34 from Places.

Variants, such as hsrn or hsrn,path: see configs/chrnn.py.
"""

import ml_collections as mlc

from configs import chrnn, common

KINDS = chrnn.KINDS


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = chrnn.experiment()
  chrnn.fine_tuning(c)
  c.tree.source = "images"
  c.data.name = "sun397/standard-part1-120k"
  c.data.validation = 0.1
  c.epochs = 40.0
  return common.apply(c, variant, KINDS)

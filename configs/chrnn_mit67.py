r"""C-HRNN on MIT's 67 indoor scenes, fine-tuned from a trained run (Zuo et al. 2016, Table V).

  python train.py --config=configs/chrnn_mit67.py --config.init.run=runs/hlstm-places --config.data.root=INDOOR \
    --workdir=runs/hlstm-indoor

The run must have the same network, so give the same variant. INDOOR has the folders train and test, and in each a
folder for every scene, after the set's own lists of images. The config has not been run. The paper has 66.32 (spp) to
69.25 (hlstm) from ILSVRC 2012, and 72.09 to 75.67 from Places.

Variants, such as hsrn or hsrn,path: see configs/chrnn.py.
"""

import ml_collections as mlc

from configs import chrnn, common

KINDS = chrnn.KINDS


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = chrnn.experiment()
  chrnn.fine_tuning(c)
  c.tree.source = "images"
  c.data.name = "folder"
  c.data.validation = 0.1
  c.epochs = 60.0
  return common.apply(c, variant, KINDS)

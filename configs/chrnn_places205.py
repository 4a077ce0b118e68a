r"""C-HRNN on Places 205 (Zuo et al. 2016, Table III), or on any set of scenes in folders.

  python train.py --config=configs/chrnn_places205.py --config.data.root=PLACES --workdir=runs/hlstm-places

PLACES has the folders train and val, and in each a folder for every scene. TFDS has the successor of the set:
--config.data.name=places365_small --config.data.test_split=validation. The config needs GPUs or TPUs and has not been
run. The paper's top-1 accuracies are 51.57 (spp), 52.70 (msrn), 53.16 (hsrn), 53.75 (mlstm) and 53.91 (hlstm).

Variants, such as hsrn or hsrn,path: see configs/chrnn.py.
"""

import ml_collections as mlc

from configs import chrnn, common

KINDS = chrnn.KINDS


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = chrnn.experiment()
  c.tree.source = "images"
  c.data.name = "folder"
  c.data.test_split = "val"
  c.data.validation = 0.02  # of the training images; the schedule depends on it
  c.epochs = 40.0
  return common.apply(c, variant, KINDS)

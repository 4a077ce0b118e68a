r"""C-HRNN on ILSVRC 2012 (Zuo et al. 2016, Table II): the networks of Table I, and the ablations of section IV-C.

  python train.py --config=configs/chrnn_imagenet.py --workdir=runs/hlstm-imagenet
  hierjax evaluate runs/hlstm-imagenet --views 10

The images are TFDS's imagenet2012, which `hierjax data prepare` makes, or your own folders:
--config.data.name=folder --config.data.root=IMAGES. The config needs GPUs or TPUs and has not been run. The paper's
top-1 errors with one view are 38.21 (spp), 36.90 (msrn), 36.38 (hsrn), 36.01 (mlstm) and 35.85 (hlstm).

Variants, such as hsrn or hsrn,path: see configs/chrnn.py.
"""

import ml_collections as mlc

from configs import chrnn, common

KINDS = chrnn.KINDS


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = chrnn.experiment()
  c.tree.source = "imagenet1k"
  c.data.name = "imagenet2012"
  c.data.test_split = "validation"
  c.data.validation = 0.02  # of the training images; the schedule depends on it
  return common.apply(c, variant, KINDS)

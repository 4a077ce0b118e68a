"""C-HRNN on ILSVRC 2012, with the paper's schedule (Zuo et al. 2016, Table II, one view).

  hierjax study zuo_imagenet --config.data.root=TFDS --config.data.threads=32 --minutes 9 --workdir=runs/zuo_imagenet

The same command goes on until all runs are done. It needs a GPU, and ImageNet as TFDS's imagenet2012 (`hierjax data
prepare`) or as folders (--config.data.name=folder --config.data.root=IMAGES); see docs/how_to/studies.md for the
minutes. Set `threads` to the cores that decode: the GPU takes more images than a few cores give. With ten views,
the only ones that Table II has for AlexNet:

  hierjax evaluate runs/zuo_imagenet/C-HLSTM/seed0 --views 10

The paper gives neither epochs nor the rule by which the rate falls: ours are 90, and READINGS Z17. The accuracy is
`leaf top-1`, 100% less the paper's error.
"""

from hierjax.study.plan import Row, Study

CONFIG = "chrnn_imagenet"

ROWS = (
  Row("SPP-net", f"{CONFIG}:spp"),
  Row("AlexNet", f"{CONFIG}:alex"),
  Row("C-MSRN", f"{CONFIG}:msrn"),
  Row("C-HSRN", f"{CONFIG}:hsrn"),
  Row("C-MLSTM", f"{CONFIG}:mlstm"),
  Row("C-HLSTM", f"{CONFIG}:hlstm"),
)


def get_study() -> Study:
  return Study("Zuo et al. 2016 on ILSVRC 2012", ROWS, baseline="SPP-net", seeds=(0, 1, 2))

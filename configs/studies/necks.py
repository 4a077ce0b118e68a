"""Necks on the maps of a frozen EfficientNet-Lite0: what the recurrences of C-HRNN (Zuo et al. 2016) add, if anything.

  hierjax study necks --config.data.root=PHOTOS --workdir=runs/necks

All rows have the flat head; `photos:flat` reads the mean of the map, the others the outputs of the neck. A 1 x 1
convolution makes 128 channels of the map's 1,280. `C-HLSTM, relu` is the fair control: as many weights in use as
C-HLSTM, and no cell that depends on another.
"""

from hierjax.study.plan import Row, Study

CONFIG = "photos:flat"
NECK = ("neck.name=context", "neck.channels=128", "neck.scales=(1,2,4)", "neck.hidden=(512,)")

ROWS = (
  Row("none", CONFIG),
  Row("SPP", CONFIG, (*NECK, "neck.cell=none")),
  Row("C-MSRN", CONFIG, (*NECK, "neck.cell=srn", "neck.links=False")),
  Row("C-HSRN", CONFIG, (*NECK, "neck.cell=srn")),
  Row("C-MLSTM", CONFIG, (*NECK, "neck.links=False")),
  Row("C-HLSTM", CONFIG, NECK),
  Row("C-HLSTM, relu", CONFIG, (*NECK, "neck.neighbours=relu")),
)


def get_study() -> Study:
  return Study("Necks on frozen maps", ROWS, baseline="SPP", seeds=(0, 1, 2))

"""CNN-RNN on a frozen EfficientNet-Lite0: normalised features, initial values of W_v, and the width of the state.

  hierjax study cnn_rnn --config.data.root=PHOTOS --workdir=runs/cnn_rnn

The third row is `photos`. The second is the head as it trains from random weights: features as they are, and W_v twice
as large as usual at first.
"""

from hierjax.study.plan import Row, Study

NORM, SMALL = "head.norm=layer", "head.image_gain=0.5"
PLAIN, LARGE = "head.norm=none", "head.image_gain=2.0"

ROWS = (
  Row("flat", "photos:flat"),
  Row("W_v large", "photos", (PLAIN, LARGE)),
  Row("layer norm, W_v small", "photos", (NORM, SMALL)),
  Row("layer norm, W_v small, 512 wide", "photos", (NORM, SMALL, "head.width=512")),
  Row("layer norm, W_v large", "photos", (NORM, LARGE)),
  Row("W_v small", "photos", (PLAIN, SMALL)),
)


def get_study() -> Study:
  return Study("CNN-RNN on frozen features", ROWS, baseline="flat", seeds=(0, 1, 2))

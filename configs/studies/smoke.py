"""A study of a minute: two heads on generated images, to see what a study is."""

from hierjax.study.plan import Row, Study

ROWS = (
  Row("flat", "quickstart:flat,smoke"),
  Row("CNN-RNN", "quickstart:smoke", tuned={"optim.lr": ("0.02", "0.05")}),
)


def get_study() -> Study:
  return Study("Smoke", ROWS, baseline="flat", seeds=(0, 1))

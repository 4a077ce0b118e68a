import numpy as np

from hierjax.training.optim import ScheduleConfig
from hierjax.training.state import Plateau


def test_the_plateau_drops_after_its_patience_and_only_then():
  config = ScheduleConfig(name="plateau", factor=0.5, patience=2, min_delta=0.1)
  plateau = Plateau(np.float32(1), np.float32(np.inf), np.int32(0))
  seen = []
  for loss in (2.0, 1.5, 1.45, 1.46, 1.0, 1.0, 0.95, 0.96, 0.97):
    plateau = plateau.after(loss, config)
    seen.append((float(plateau.scale), float(plateau.best)))
  best = [2.0, 1.5, 1.5, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0]
  scale = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
  np.testing.assert_allclose(seen, np.stack([scale, best], axis=1), rtol=1e-6)

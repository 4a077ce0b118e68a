import pytest

from hierjax import disk
from hierjax.errors import UserError
from hierjax.runs.folder import RunFolder
from hierjax.training.logs.console import Progress
from hierjax.training.logs.metrics_log import ImageRate, MetricsLog


def test_the_rate_counts_the_images_and_the_seconds_since_its_last_start_without_pauses():
  now = [100.0]
  rate = ImageRate(batch_size=32, step=10, clock=lambda: now[0])
  now[0] += 4
  assert rate.per_second(12) == 2 * 32 / 4
  with rate.paused():
    now[0] += 1000
  now[0] += 4
  assert rate.per_second(13) == 3 * 32 / 8
  rate.restart(13)
  now[0] += 2
  assert rate.per_second(14) == 32 / 2


def test_a_full_disk_is_one_sentence_with_path_needed_and_free_bytes(tmp_path, monkeypatch):
  monkeypatch.setattr(disk, "WAIT_S", 0)
  log = MetricsLog(RunFolder(tmp_path), Progress(10, 4))
  log._file.close()
  with open("/dev/full", "w") as log._file:
    with pytest.raises(UserError, match=r"metrics\.jsonl: the disk is full: \d+ bytes are needed, .* are free"):
      log.write(1, "train", {"loss": 1.0})
    log.close()

from hierjax.training.log import ImageRate


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

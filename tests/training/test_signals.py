"""Signals that stop a run, and minutes after which it saves."""

import os
import signal

import jax
import pytest

from hierjax.training.loop.minutes import Minutes
from hierjax.training.loop.signals import stop_signals

STOPPING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]


@pytest.fixture
def heard():
  """SIGHUP is not ignored, as it is where the tests were started with nohup."""
  usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, usual)


@pytest.mark.parametrize("number", STOPPING)
def test_each_signal_asks_to_stop_and_a_second_one_has_its_usual_effect(number, heard):
  usual = signal.getsignal(number)
  with stop_signals() as signals:
    assert signals.received is None
    os.kill(os.getpid(), number)
    assert signals.received == number
    assert signal.getsignal(number) == usual
  assert signal.getsignal(number) == usual


def test_a_signal_that_the_process_ignores_stays_ignored():
  usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
  try:
    with stop_signals() as signals:
      os.kill(os.getpid(), signal.SIGHUP)
      assert signals.received is None
  finally:
    signal.signal(signal.SIGHUP, usual)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_of_several_processes_each_signal_becomes_the_one_that_jax_handles(monkeypatch, number, heard):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  received = []
  usual = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
  try:
    with stop_signals():
      os.kill(os.getpid(), number)
    assert received == [signal.SIGTERM]
  finally:
    signal.signal(signal.SIGTERM, usual)


def test_a_checkpoint_is_due_after_minutes_since_the_last():
  now = [0.0]
  minutes = Minutes(2.0, lambda: now[0])
  assert not minutes.due(1)
  now[0] = 119.0
  assert not minutes.due(2)
  now[0] = 120.0
  assert minutes.due(3)
  minutes.restart()
  assert not minutes.due(4)
  now[0] = 240.0
  assert minutes.due(5)
  assert not Minutes(0.0, lambda: now[0]).due(1)

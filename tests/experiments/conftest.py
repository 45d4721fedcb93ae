"""Dry runs do not measure how fast the machine is: that would take a second each."""

import pytest

from experiments.study import command_line

#: FLOP per second of a device.
RATE = 1e11


@pytest.fixture(autouse=True)
def known_rate(monkeypatch):
    monkeypatch.setattr(command_line, "matmul_rate", lambda: RATE)

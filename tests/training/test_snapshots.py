"""A training whose averaged parameters are kept at marks: those of the plain loop, also after a kill; refusals."""

import jax
import numpy as np
import pytest

from dgu.core import parallel
from dgu.core.errors import InputError
from dgu.models import EDMNetwork, TutorialUNetConfig, VESDEPreconditioning
from dgu.training import (
    TrainingConfig,
    in_turn,
    initial_state,
    snapshots,
    train_steps,
    train_with_snapshots,
    updates_done,
)

NETWORK = EDMNetwork(TutorialUNetConfig(5, 1, 1, channels=(4,), embedding=4), VESDEPreconditioning())
CONFIG = TrainingConfig(duration_kimg=0.048, batch_size=8, learning_rate=1e-2, rampup_kimg=0.0, loss="vesde", seed=3)
IMAGES = np.random.default_rng(0).normal(size=(12, 5, 5, 1)).astype(np.float32)


def kept_by(folder, kill_at=None, **options):
    """What a training hands on, by update; killed after some updates."""
    found, updates = {}, 0

    def keep(step, params):
        found[step] = jax.tree.map(np.array, params)

    given = {"marks": (2, 6), "keep": keep, "checkpoints": folder, "minutes": 0.0} | options
    for made in train_with_snapshots(NETWORK, IMAGES, CONFIG, **given):
        updates += made
        if updates == kill_at:
            break
    return found, updates


def test_it_keeps_the_average_of_the_plain_loop_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "updates_together", lambda *_: 3)  # Calls end after 2, 5 and 6 updates.
    whole, updates = kept_by(tmp_path / "whole")
    assert list(whole) == [2, 6] and updates == 6 and not (tmp_path / "whole").exists()
    for state, info in train_steps(NETWORK, initial_state(NETWORK, CONFIG), IMAGES, None, CONFIG):
        if info["step"] in whole:
            jax.tree.map(np.testing.assert_array_equal, state["ema"], whole[info["step"]])
    first, _ = kept_by(tmp_path / "cut", kill_at=5)
    assert list(first) == [2] and updates_done(tmp_path / "cut") == 2 and updates_done(tmp_path / "none") == 0
    second, updates = kept_by(tmp_path / "cut")
    assert list(second) == [6] and updates == 4
    jax.tree.map(np.testing.assert_array_equal, first | second, whole)


def test_what_cannot_be_trained_is_refused(tmp_path, monkeypatch):
    for marks in ((2,), (0, 6), (6, 7), ()):
        with pytest.raises(InputError, match=r"marks = .*: must be from 1 to the last update, 6"):
            kept_by(tmp_path / "refused", marks=marks)
    assert not (tmp_path / "refused").exists()
    monkeypatch.setattr(
        snapshots,
        "train_steps",
        lambda *given, **options: (
            (state, info | {"loss": info["loss"] * np.nan}) for state, info in train_steps(*given, **options)
        ),
    )
    with pytest.raises(FloatingPointError, match="the training loss is nan up to step 2"):
        kept_by(tmp_path / "broken")


def test_trainings_take_turns_and_meshes():
    left, right = (parallel.data_mesh([device]) for device in jax.devices()[:2])
    log = []

    def training(name, length):
        def calls(mesh):
            log.append((name, mesh))
            return iter(f"{name}{number}" for number in range(length))

        return calls

    trainings = [training("a", 3), training("b", 1), training("c", 0), training("d", 2)]
    assert list(in_turn(trainings, [left, right])) == ["a0", "b0", "a1", "a2", "d0", "d1"]
    assert log == [("a", left), ("b", right), ("c", right), ("d", right)]
    assert list(in_turn([], [left])) == [] and list(in_turn([training("e", 2)], [left, right])) == ["e0", "e1"]

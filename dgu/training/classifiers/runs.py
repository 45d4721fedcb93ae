"""Inputs and outputs of batched classifier training."""

import dataclasses
from functools import partial
from typing import Any

import jax
from jax import Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "seed", "learning_rate", "classes", "initial"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Runs:
    """Trainings to be done together; every leaf has the leading axis R.

    Attributes:
        rows: (R, n) integer rows of the pool that a run trains on, -1 after the last of a smaller training set.
        seed: (R,) integers; the order of the data and a random initialisation depend on this and the epoch alone.
        learning_rate: (R,) positive.
        classes: (R, K) class labels that a run tells apart, its own label being the position; ``None``: 0 .. K - 1.
        initial: (R, d, K) initial weights of linear classifiers; ``None``: as ``init`` says.
    """

    rows: Any
    seed: Any
    learning_rate: Any
    classes: Any = None
    initial: Any = None


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "model", "final", "learning_rate", "chosen_epoch", "epochs",
        "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Fit:
    """What ``fit_classifiers`` and ``fit_two_layer`` return; leading axis R except for ``epochs``.

    Attributes:
        model: classifiers of the chosen epoch; callables on features, to be used under ``vmap`` or by ``evaluate``.
        final: classifiers after the last epoch.
        learning_rate: (R,) as given.
        chosen_epoch: (R,) epochs done when the validation loss was lowest; 0, with the initial model, if never finite.
        epochs: (E,) epochs done at each point of the curves.
        train_loss, train_accuracy, validation_loss, validation_accuracy: (R, E) curves.
    """

    model: Any
    final: Any
    learning_rate: Any
    chosen_epoch: Any
    epochs: Any
    train_loss: Any
    train_accuracy: Any
    validation_loss: Any
    validation_accuracy: Any

    @property
    def weights(self) -> Array:
        """(R, d, K) weights of the chosen epoch (linear classifiers)."""
        return self.model.weights

    @property
    def bias(self) -> Array | None:
        """(R, K) biases of the chosen epoch, or None (linear classifiers)."""
        return self.model.bias

"""Ways to spoil a good class-conditional denoiser, for controls that a check must tell apart."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dgu.core.brief import short_repr
from dgu.core.typing import Denoiser, Event, Scalar


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Spoilt:
    """``factor D(x, sigma)``, D given the row ``classes[label]`` in place of a class.

    Attributes:
        denoiser: with ``given(vector)``.
        classes: ``(K, K)``: the identity is right, its rows moved on by one a wrong class, 1 / K everywhere no class.
        factor: 1 is right.
    """

    denoiser: Any
    classes: Any
    factor: Any = 1.0

    def given(self, label: ArrayLike) -> "Spoilt":
        """Given a class, in the form in which this denoiser is told of it."""
        return replace(self, denoiser=self.denoiser.given(jnp.asarray(self.classes)[label]))

    def __call__(self, x: Event, sigma: Scalar) -> Event:
        return jnp.asarray(self.factor, x.dtype) * self.denoiser(x, sigma)


def spoilt(denoiser: Denoiser, classes: int) -> dict[str, Spoilt]:
    """A denoiser of so many classes as it is, under ``"right"``, and spoilt, by what is wrong with it."""
    right = np.eye(classes, dtype=np.float32)
    one = np.float32(1)
    return {
        "right": Spoilt(denoiser, right, one),
        "0.9 D": Spoilt(denoiser, right, np.float32(0.9)),
        "wrong class": Spoilt(denoiser, np.roll(right, 1, axis=0), one),
        "averaged class": Spoilt(denoiser, np.full_like(right, 1 / classes), one),
    }

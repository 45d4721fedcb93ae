"""Guidance as a denoiser like any other: classifier-free, by a worse version of itself, in an interval of levels."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.core.brief import short_repr
from dgu.core.denoisers import denoise
from dgu.core.errors import InputError, require
from dgu.core.typing import Event, Scalar


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Guided:
    """``guide(x, sigma) + weight (main(x, sigma) - guide(x, sigma))``, a denoiser of the examples of both.

    With ``guide`` the network without a class it is classifier-free guidance (Ho and Salimans 2022), with a smaller or
    less trained network of the same task it is autoguidance (Karras et al. 2024a). Weight 1 is ``main``, 0 is
    ``guide``; both are evaluated at any weight. Outside ``interval`` it is ``main`` alone (Kynkaanniemi et al. 2024).

    What it returns is the posterior mean of no distribution where the weight is neither 0 nor 1: its flow is not that
    of ``p_main^w p_guide^(1 - w)``; see ``dgu.models.guided_gaussian``.

    Attributes:
        main, guide: denoisers; a guide without classes is left as it is by ``given``.
        weight: w, any finite number; it may be traced.
        interval: static; the lowest and the highest level that are guided, both included.
    """

    main: Any
    guide: Any
    weight: Any
    interval: tuple[float, float] = field(default=(0.0, math.inf), metadata={"static": True})

    def __post_init__(self) -> None:
        if isinstance(self.weight, int | float | np.generic | np.ndarray):
            usable = np.ndim(self.weight) == 0 and bool(np.isfinite(self.weight))
            require(usable, "weight", self.weight, "one finite number")
        ordered = len(self.interval) == 2 and 0 <= self.interval[0] < self.interval[1]
        require(ordered, "interval", self.interval, "a lowest and a higher highest noise level, 0 or more")
        shapes = [_shape(each) for each in (self.main, self.guide)]
        require(None in shapes or shapes[0] == shapes[1], "guide.shape", shapes[1], f"that of main, {shapes[0]}")

    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The guided example, of the shape and dtype of ``x``.

        Raises:
            InputError: ``main`` or ``guide`` does not take an example of this shape, or returns another.
        """
        strong = denoise(self.main, x, sigma)
        try:
            weak = denoise(self.guide, x, sigma)
        except InputError as error:
            raise InputError(f"guide: {error}") from error
        guided = weak + jnp.asarray(self.weight, x.dtype) * (strong - weak)
        if self.interval == (0.0, math.inf):
            return guided
        level = jnp.asarray(sigma, x.dtype)
        return jnp.where((level >= self.interval[0]) & (level <= self.interval[1]), guided, strong)

    @property
    def sigma_min(self) -> float:
        """The lowest level that both know."""
        return max(float(getattr(each, "sigma_min", 0.0)) for each in (self.main, self.guide))

    @property
    def sigma_max(self) -> float:
        """The highest level that both know."""
        return min(float(getattr(each, "sigma_max", math.inf)) for each in (self.main, self.guide))

    @property
    def label_dim(self) -> int | None:
        """How many classes the main network has, 0 for none; None where it does not say."""
        found: int | None = getattr(self.main, "label_dim", None if hasattr(self.main, "given") else 0)
        return found

    @property
    def needs_class(self) -> bool:
        """Whether the main network knows no image without a class."""
        return bool(getattr(self.main, "needs_class", False))

    def round_sigma(self, sigma: Any) -> Any:
        """The noise levels that the main network knows nearest to ``sigma``; ``sigma`` where it knows all."""
        rounding = getattr(self.main, "round_sigma", None)
        return sigma if rounding is None else rounding(sigma)

    def given(self, label: Any) -> "Guided":
        """Both for one class; a guide that has none, or is a ``WithoutClass``, stays what it is.

        Raises:
            InputError: the main denoiser has no such class.
        """
        guide = self.guide
        if hasattr(guide, "given") and getattr(guide, "label_dim", 1) != 0:
            guide = guide.given(label)
        require(hasattr(self.main, "given"), "label", label, "left out: the main denoiser has no classes")
        return replace(self, main=self.main.given(label), guide=guide)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class WithoutClass:
    """A conditional denoiser for images of no class, whichever is asked for: the guide of classifier-free guidance.

    Attributes:
        denoiser: with ``given(None)``.
    """

    denoiser: Any

    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The denoiser's answer without a class."""
        return denoise(self.denoiser.given(None), x, sigma)


def _shape(denoiser: Any) -> tuple[int, ...] | None:
    """The shape of an example, where the denoiser or its network says it."""
    shape = getattr(denoiser, "shape", None) or getattr(getattr(denoiser, "network", None), "shape", None)
    return shape if isinstance(shape, tuple) and callable(denoiser) else None

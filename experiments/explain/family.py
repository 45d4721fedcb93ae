"""The family of closed forms: Gaussian, mixture and training points, each seen globally, through windows at their own
place, and through windows at all places; besides windows from the data's Wiener filter, and composites of patches."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis
from dgu.core.typing import Key
from dgu.models import (
    EmpiricalDenoiser,
    GaussianDenoiser,
    LocalDenoiser,
    LocalGaussianDenoiser,
    LocalMixtureDenoiser,
    MoLRGDenoiser,
    PatchDenoiser,
    WienerDenoiser,
)
from experiments.explain.subject import Group

if TYPE_CHECKING:
    from dgu.core.typing import Denoiser

#: Families that see the whole image.
GAUSSIAN, MIXTURE, POINTS = "Gaussian", "mixture", "points"
#: Families with a window at each pixel's own place; those whose windows are at all places.
LOCAL_GAUSSIAN, LOCAL_MIXTURE, LOCAL_POINTS = "local Gaussian", "local mixture", "local points"
SHIFTED_GAUSSIAN, SHIFTED_POINTS = "equivariant Gaussian", "equivariant points"
WIENER, PATCHES = "Wiener windows", "patches"
FAMILIES = (
    *(GAUSSIAN, MIXTURE, POINTS),
    *(LOCAL_GAUSSIAN, LOCAL_MIXTURE, LOCAL_POINTS),
    *(SHIFTED_GAUSSIAN, SHIFTED_POINTS),
    *(WIENER, PATCHES),
)


@dataclass(frozen=True)
class Form:
    """One closed form.

    Attributes:
        family: one of ``FAMILIES``, or a control.
        build: makes the denoiser of a group of images.
        window: side of its window or patch; None where it has none.
    """

    family: str
    build: Callable[[Group], "Denoiser"]
    window: int | None = None

    @property
    def name(self) -> str:
        """Family and window."""
        return self.family if self.window is None else f"{self.family} {self.window}"

    @property
    def slug(self) -> str:
        """The name as that of a stage."""
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True)
class Design:
    """Which members of the family are made.

    Attributes:
        windows: sides of the windows of local forms, odd.
        shifted_windows: those of equivariant training points, among them.
        shifted_images: training images of each group of these.
        patches: sides of the patches.
        clusters: components of a mixture where classes do not tell them.
        key: of the clusters.
    """

    windows: tuple[int, ...]
    shifted_windows: tuple[int, ...]
    shifted_images: int
    patches: tuple[int, ...]
    clusters: int
    key: Key

    def components(self, group: Group) -> np.ndarray:
        """The component of each training image: its class, or where all have one class its cluster by k-means."""
        if len(np.unique(group.classes)) > 1:
            return group.classes
        marks = np.array(analysis.kmeans(group.train, self.clusters, self.key, restarts=3).labels)
        sizes = np.bincount(marks)
        marks[sizes[marks] < 2] = sizes.argmax()  # One image has no covariance.
        return marks

    def forms(self) -> list[Form]:
        """The whole family."""
        return [
            Form(GAUSSIAN, lambda group: gaussian(group.train)),
            Form(MIXTURE, self._mixture),
            Form(POINTS, lambda group: EmpiricalDenoiser(group.train)),
            *(Form(LOCAL_GAUSSIAN, _local(window), window) for window in self.windows),
            *(Form(LOCAL_MIXTURE, self._local_mixture(window), window) for window in self.windows),
            *(Form(LOCAL_POINTS, _points(window), window) for window in self.windows),
            *(Form(SHIFTED_GAUSSIAN, _local(window, equivariant=True), window) for window in self.windows),
            *(Form(SHIFTED_POINTS, _points(window, self.shifted_images), window) for window in self.shifted_windows),
            Form(WIENER, lambda group: WienerDenoiser(group.train, gaussian(group.train))),
            *(Form(PATCHES, _patches(side), side) for side in self.patches),
        ]

    def _mixture(self, group: Group) -> "Denoiser":
        marks = self.components(group)
        parts = [gaussian(group.train[marks == mark]) for mark in np.unique(marks)]
        weights = np.array([np.mean(marks == mark) for mark in np.unique(marks)], np.float32)
        shape = (len(parts), *group.train.shape[1:])
        means, bases, variances = (
            np.stack([getattr(part, name) for part in parts]) for name in ("mean", "basis", "variances")
        )
        return MoLRGDenoiser(weights, means, bases.reshape(*shape, -1), variances)

    def _local_mixture(self, window: int) -> Callable[[Group], "Denoiser"]:
        def build(group: Group) -> "Denoiser":
            found = LocalMixtureDenoiser.fit(group.train, self.components(group), window)
            return replace(found, gaussians=found.gaussians.padded(window**2 * group.train.shape[-1]))

        return build


def gaussian(images: np.ndarray) -> GaussianDenoiser:
    """The Gaussian of images, of as many components as there are pixels, so that all have one form."""
    found = GaussianDenoiser.fit(images)
    more = images[0].size - len(found.variances)
    basis, variances = np.asarray(found.basis), np.asarray(found.variances)
    return GaussianDenoiser(found.mean, np.pad(basis, ((0, 0), (0, more))), np.pad(variances, (0, more)))


def stationary(group: Group) -> "Denoiser":
    """The Wiener filter of a stationary Gaussian on a circle: one convolution for all pixels, as wide as the image."""
    h, w, _ = group.train.shape[1:]
    side = h if h == w else min(h, w) - 1 + min(h, w) % 2
    return LocalGaussianDenoiser.fit(group.train, side, equivariant=True, boundary="circular")


def _local(window: int, *, equivariant: bool = False) -> Callable[[Group], "Denoiser"]:
    def build(group: Group) -> "Denoiser":
        found = LocalGaussianDenoiser.fit(group.train, window, equivariant=equivariant)
        return found.padded(window**2 * group.train.shape[-1])

    return build


def _points(window: int, shifted: int | None = None) -> Callable[[Group], "Denoiser"]:
    return lambda group: LocalDenoiser(group.train[:shifted], window, equivariant=shifted is not None)


def _patches(side: int) -> Callable[[Group], "Denoiser"]:
    return lambda group: PatchDenoiser.square(group.train, side)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ByLevel:
    """Denoisers of different forms, each for the noise levels nearest to its own (in ``log sigma``).

    Attributes:
        sigmas: ``(L,)``, positive; ``places`` ``(L,)``, which of the denoisers each has.
        denoisers: a tuple of them.
    """

    sigmas: Any
    places: Any
    denoisers: Any

    def __call__(self, x: Any, sigma: Any) -> Any:
        """The answer of the denoiser of this level; ``sigma`` must not be mapped over, or all of them are asked."""
        away = jnp.abs(jnp.log(jnp.asarray(self.sigmas)) - jnp.log(sigma))
        branches = [lambda x, sigma, one=one: one(x, sigma) for one in self.denoisers]
        return jax.lax.switch(jnp.asarray(self.places)[jnp.argmin(away)], branches, x, sigma)

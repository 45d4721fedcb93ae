"""The gap that a finite fit leaves: classifiers on images and on mixtures fitted to n_fit of them, n_fit swept.

A Gaussian mixture is fitted to n_fit images of each class, and linear classifiers are trained and tested on its
samples; others on images that the fit has not seen. Ghane et al. (arXiv 2501.07741) put the difference they find down
to estimation. If so, it must shrink as n_fit grows, and must also appear, with the same sign, where the images are
exactly Gaussian: so the same is done with a *null*, images drawn from the mixture fitted to all of them. The published
protocol, a mixture fitted to every image, the test images included, is one more arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.universality.arms import PARTS, Task, assemble, cut_parts
from dgu.analysis.universality.recipe import Recipe
from dgu.analysis.universality.ridge import classifier_accuracy
from dgu.core.arrays import as_doubles, as_floats
from dgu.core.errors import require
from dgu.core.keys import seed_of, seeded, stream, threefry
from dgu.core.typing import Key
from dgu.data.splits import split_classes
from dgu.distributions.class_gaussians import draw_gaussians, fit_gaussians


@dataclass(frozen=True)
class FitSweep:
    """The sizes of a sweep, images per class.

    Attributes:
        n_fit: sizes of the fit, increasing, each at least 2.
        train, validation, test: images that classifiers are trained, chosen and tested on; none of them is fitted to.
        test_factor: test images of the mixtures as a multiple of ``test``: they are cheap to draw.
    """

    n_fit: tuple[int, ...]
    train: int
    validation: int
    test: int
    test_factor: int = 4

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.n_fit, self.n_fit[1:]))
        require(len(self.n_fit) >= 1 and rising and self.n_fit[0] >= 2, "n_fit", self.n_fit, "increasing, from 2 on")
        for name in ("train", "validation", "test", "test_factor"):
            least = 1 if name == "test_factor" else 2
            require(getattr(self, name) >= least, name, getattr(self, name), f"at least {least}")

    @property
    def total(self) -> int:
        """Images per class that a sweep needs."""
        return self.n_fit[-1] + self.train + self.validation + self.test

    @property
    def arms(self) -> tuple[str, ...]:
        """``images``, one mixture for each n_fit, and ``everything``, the published protocol."""
        return ("images", *(f"n_fit {n}" for n in self.n_fit), "everything")


def fit_size_accuracy(
    images: Num[np.ndarray, "classes count d"],
    sweep: FitSweep,
    recipe: Recipe | None,
    *,
    seed: int,
    replicate: int,
    null: bool = False,
) -> Float[np.ndarray, " arms"]:
    """Test accuracy of linear classifiers (softmax + MSE) on each arm of ``sweep.arms``, each tested on its own arm.

    Everything depends on ``(seed, replicate, null)`` alone. A replicate is a new split of the pool. With ``null`` the
    pool is replaced by as many samples of the mixture that is fitted to it: the true distribution is then Gaussian and
    the same in every replicate, and its samples are fresh.

    Args:
        images: (K, P, d), K at least 2, P at least ``sweep.total``.
        sweep: the sizes.
        recipe: how the classifiers are trained; rate and stopping epoch are chosen on validation images of the same
            arm. None: by ridge least squares instead, in closed form (``ridge_and_test``).
        seed: of splits, draws and classifiers.
        replicate: number of the split.

    Returns:
        Accuracies in [0, 1], in the order of ``sweep.arms``.

    Raises:
        InputError: one class, or fewer images than the sweep needs.
    """
    images = as_floats("images", images)
    k, count, _ = images.shape
    require(k >= 2, "number of classes", k, "at least 2")
    require(
        count >= sweep.total, "images per class", count, f"at least {sweep.total} (n_fit, train, validation and test)"
    )
    key = stream(seeded(seed), "fit size", replicate, "null" if null else "images")
    sgd = seed_of(seeded(seed), "fit size", replicate, "sgd")  # The same for images and null.
    if null:
        images = mixture_samples(images, stream(key, "truth"), count)
    sizes = {"fit": sweep.n_fit[-1], "train": sweep.train, "validation": sweep.validation, "test": sweep.test}
    split = split_classes(images, sizes, seed, replicate)
    parts = {"train": sweep.train, "validation": sweep.validation, "test": sweep.test * sweep.test_factor}
    fitted = {arm: split["fit"][:, :n] for arm, n in zip(sweep.arms[1:], sweep.n_fit)} | {"everything": images}
    arms = {"images": {part: split[part] for part in PARTS}}
    for arm, given in fitted.items():
        drawn = mixture_samples(given, stream(key, arm), sum(parts.values()))
        arms[arm] = cut_parts(drawn, parts)
    task = Task("fit size", np.arange(k)[None], (sweep.train,), "softmax_mse")
    accuracy = classifier_accuracy(assemble(arms), task, recipe, sgd, cross=False)
    return accuracy[:, 0, 0].astype(np.float64)


def fit_gaps(
    accuracies: Sequence[Num[np.ndarray, " arms"]] | Num[np.ndarray, "*replicates arms"],
) -> Float[np.ndarray, "*replicates mixtures"]:
    """Accuracy on the images less that on each mixture, in percentage points; arms as ``fit_size_accuracy`` returns
    them.
    """
    values = as_doubles("accuracies", accuracies)
    return 100 * (values[..., :1] - values[..., 1:])


def mixture_samples(rows: Num[ArrayLike, "classes n d"], key: Key, count: int) -> Float[np.ndarray, "classes count d"]:
    """``count`` samples of each class of the mixture fitted to its rows: number 0 .. count - 1 of ``class_key(key,
    label)``.
    """
    key = threefry(key)
    return draw_gaussians(fit_gaussians(rows), key, count)

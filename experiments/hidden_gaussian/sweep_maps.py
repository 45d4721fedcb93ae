"""Best linear maps of the networks of the sweeps: distances to the Gaussian, samples, and the course of Adam."""

import numpy as np

from dgu import analysis, training
from dgu.core.typing import Denoiser
from dgu.models import LinearDenoiser
from experiments.hidden_gaussian.arms import Arm, Design
from experiments.hidden_gaussian.trainer import load
from experiments.study import Run

#: The noise level whose singular vectors are shown, as in the paper, and how many of them.
VECTORS_AT, VECTORS = 4.0, 8


def linear_distances(design: Design, run: Run, arm: Arm, count: int, draws: int) -> dict[str, np.ndarray]:
    """Distances among the network of an arm, its best linear map and its Gaussian, on held-out images.

    The map is made of ``count`` other held-out images, ``draws`` noisy versions of each. Arrays ``(L, held out)``.
    """
    images, sigmas, used = design.images.held, design.sigmas(arm)[:-1], design.config.held_out

    def compute() -> dict[str, np.ndarray]:
        denoiser = load(design, run.directory, arm)
        maps = _best_maps(design, denoiser, arm, count, draws)
        models: dict[str, Denoiser] = {"network": denoiser, "linear": maps, "gaussian": design.gaussian(arm)}
        apart = analysis.score_distances(models, images[:used], sigmas, design.key("distances"), inputs="held-out")
        pairs = (("linear", "gaussian"), ("network", "gaussian"), ("network", "linear"))
        return {f"{a}_{b}": apart.each_image(a, b) for a, b in pairs}

    return run.stage(f"linear/{arm.name}", compute)


def linear_model(design: Design, run: Run, arm: Arm, count: int, draws: int) -> dict[str, np.ndarray]:
    """The best linear map of an arm's network as a denoiser of its own, in place of a network.

    ``cosine`` of linearity, ``(M, pairs)``; ``samples`` and ``path`` as of ``Measured``; and at the level nearest to
    ``VECTORS_AT`` the leading left singular vectors ``left`` and the principal components ``components`` of the arm's
    images, ``(k, H, W, C)`` each.
    """
    config, levels = design.config, design.levels(arm)

    def compute() -> dict[str, np.ndarray]:
        maps = _best_maps(design, load(design, run.directory, arm), arm, count, draws)
        linear = analysis.linearity(
            maps,
            design.images.held,
            levels["straight"],
            design.key("linearity"),
            pairs=config.pairs,
            batch_size=config.batch_size,
        )
        samples, paths = design.draw(maps, arm)
        at = int(np.argmin(np.abs(levels["sigmas"] - VECTORS_AT)))
        basis = np.asarray(design.gaussian(arm).basis)
        shown = min(VECTORS, basis.shape[1])
        one = LinearDenoiser(maps.sigmas[at : at + 1], maps.weights[at : at + 1], maps.biases[at : at + 1])
        left = analysis.map_spectra(one, shown).left[0]
        vectors = {"left": left, "components": basis[:, :shown]}
        return {
            "cosine": linear.each_cosine()[:, 0],
            "samples": samples,
            "path": paths[0],
            **{name: each.T.reshape(shown, *samples.shape[1:]) for name, each in vectors.items()},
        }

    return run.stage(f"linear-model/{arm.name}", compute)


def adam_course(design: Design, run: Run, arm: Arm, count: int, epochs: int, batch: int) -> dict[str, np.ndarray]:
    """Distillation of an arm's network by Adam, as in the paper: ``nmse`` of the weights to the Gaussian's and their
    ``asymmetry``, ``(snapshots, L)``, after ``epochs``, ``(snapshots,)``; ``losses`` ``(L, epochs)``."""
    images, sigmas, used = design.images.held, design.sigmas(arm)[:-1], design.config.held_out

    def compute() -> dict[str, np.ndarray]:
        reference = LinearDenoiser.of_gaussian(design.gaussian(arm), sigmas)
        found = training.distill_by_adam(
            load(design, run.directory, arm),
            images[used : used + count],
            sigmas,
            design.key("adam"),
            epochs=epochs,
            batch_size=batch,
            snapshot_every=max(1, epochs // 20),
            observe=lambda _, now: (analysis.weight_nmse(now, reference), analysis.asymmetry(now)),
        )
        done, measured = zip(*found.observed)
        nmse, asymmetry = zip(*measured)
        return {
            "epochs": np.array(done),
            "nmse": np.stack(nmse),
            "asymmetry": np.stack(asymmetry),
            "losses": found.losses,
        }

    return run.stage(f"adam/{arm.name}", compute)


def _best_maps(design: Design, denoiser: Denoiser, arm: Arm, count: int, draws: int) -> LinearDenoiser:
    images, sigmas, used = design.images.held, design.sigmas(arm)[:-1], design.config.held_out
    key = design.key("distillation")
    return training.distill_exactly(denoiser, images[used : used + count], sigmas, key, draws=draws).denoiser

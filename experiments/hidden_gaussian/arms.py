"""The trainings of the sweeps and of strong generalisation: which network on which images, and at what cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dgu.core.keys import seeded, stream
from dgu.core.typing import Denoiser, Key
from dgu.models import EDMNetwork, GaussianDenoiser
from dgu.samplers import karras_sigmas
from dgu.training import TrainingConfig
from experiments.hidden_gaussian.few_steps import sampled
from experiments.hidden_gaussian.images import Images
from experiments.hidden_gaussian.networks import Config
from experiments.study import Cost
from experiments.study.flop import network_flop
from experiments.study.memory import tree_bytes
from experiments.subjects import evaluation_cost, training_cost
from experiments.train_config import build_network


@dataclass(frozen=True)
class Arm:
    """One training: its number of images, its width and kind of network, and its seed (and so which images)."""

    size: int
    width: int
    seed: int
    family: str

    @property
    def name(self) -> str:
        """Its name in the run directory."""
        return f"{self.family}-w{self.width}-n{self.size}-s{self.seed}"


@dataclass(frozen=True, eq=False)
class Design:
    """What all arms share: the options of their networks, the images, and the seed of the study."""

    config: Config
    images: Images
    seed: int

    def arm(self, size: int, seed: int, width: int | None = None, family: str | None = None) -> Arm:
        """An arm of the configured network, or with another width or family."""
        return Arm(size, width or self.config.network.model_channels, seed, family or self.config.family)

    def network(self, arm: Arm) -> EDMNetwork:
        """The network of an arm; ``InputError`` if these channels and resolutions do not fit."""
        architecture, preconditioning = arm.family.split("-")
        chosen: Any = {"architecture": architecture, "preconditioning": preconditioning, "model_channels": arm.width}
        side, channels = self.images.train.shape[2:]
        augment = self.config.training.augment_probability > 0
        return build_network(replace(self.config.network, **chosen), side, channels, 0, augment=augment)

    def training(self, arm: Arm) -> TrainingConfig:
        """The optimisation of an arm; another preconditioning than the configured one brings its own loss."""
        base, preconditioning = self.config.training, arm.family.split("-")[1]
        seed = int(np.random.SeedSequence([base.seed, self.seed, arm.seed]).generate_state(1)[0])
        own: Any = base.loss if preconditioning == self.config.network.preconditioning else preconditioning
        return replace(base, seed=seed, loss=own)

    def sigmas(self, arm: Arm, count: int | None = None) -> np.ndarray:
        """Noise levels from 80 to 0.002, within the network's range, and the final 0."""
        known = self.network(arm).preconditioning
        return karras_sigmas(count or self.config.levels, max(0.002, known.sigma_min), min(80.0, known.sigma_max))

    def levels(self, arm: Arm) -> dict[str, np.ndarray]:
        """The noise levels of what is measured: ``sigmas`` of distances, ``straight`` of linearity scores."""
        return {"sigmas": self.sigmas(arm)[:-1], "straight": self.sigmas(arm, self.config.linearity_levels)[:-1]}

    def subset(self, arm: Arm) -> np.ndarray:
        """The images of an arm: nested over sizes; those of different seeds are disjoint up to ``1 / seeds`` of all."""
        count = len(self.images.train)
        order = np.random.default_rng([self.seed, 1]).permutation(count)
        start = arm.seed * (count // self.config.seeds)
        return self.images.train[order[(start + np.arange(arm.size)) % count]]

    @cached_property
    def whole(self) -> GaussianDenoiser:
        """The Gaussian denoiser of all images."""
        return GaussianDenoiser.fit(self.images.train)

    def gaussian(self, arm: Arm) -> GaussianDenoiser:
        """The Gaussian denoiser of the arm's images, in the shape of ``whole``."""
        return GaussianDenoiser.fit(self.subset(arm)).padded(self.whole.basis.shape[1])

    def key(self, name: str) -> Key:
        """Random keys that all arms share: of the noise of held-out images, and of the initial noise of samples."""
        return stream(seeded(self.seed), "networks", name)

    def draw(self, denoiser: Denoiser, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
        """Samples from the initial noise that all arms share, addressed by their number alone, and the denoised states
        on the way to them (``few_steps.sampled``)."""
        config = self.config
        return sampled(
            denoiser,
            self.key("samples"),
            config.samples,
            self.sigmas(arm, config.steps),
            config.method,
            shape=self.images.train.shape[1:],
            batch_size=min(config.batch_size, config.samples),
        )


def training_costs(stage: str, design: Design, arms: Sequence[Arm]) -> list[Cost]:
    """What training and measuring the arms costs, from the shapes of their networks; as if none were trained yet."""
    config, marks = design.config, len(design.config.marks)
    seen, looked = config.training.total_steps * config.training.batch_size, marks * config.evaluations
    networks = [design.network(arm) for arm in arms]
    flop = sum(network_flop(network) for network in networks)
    disk = marks * sum(tree_bytes(network.abstract_params) for network in networks)
    # Those of the largest width hold the most; the costliest of them stands for all, each counted by its own FLOP.
    most = max(arm.width for arm in arms)
    widest = max((network for network, arm in zip(networks, arms) if arm.width == most), key=network_flop)
    alike = flop / network_flop(widest)
    # Each training has a device of its own.
    training = training_cost(widest, f"{stage}: training", config.training, runs=1, devices=1)
    measuring = evaluation_cost(widest, f"{stage}: measuring", looked, config.batch_size)
    return [_of_all(training, seen, len(arms), alike, disk), _of_all(measuring, looked, len(arms), alike, 0.0)]


def _of_all(one: Cost, evaluations: int, arms: int, alike: float, disk: float) -> Cost:
    """The cost of all arms, of which ``one`` is that of the widest; they cost ``alike`` times as much as it does."""
    assert one.probe is not None
    probe = replace(one.probe, examples=alike * one.probe.examples)
    return replace(one, network_evaluations=arms * evaluations, flop=alike * one.flop, disk=disk, probe=probe)

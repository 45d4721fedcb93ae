"""How images are sampled from a network: the options of the sampler, what it evaluates, and samples in the store of a
run.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dgu.core import parallel
from dgu.core.errors import require
from experiments.study.configuration import config_to_json
from experiments.study.options import Options, added_later, option
from experiments.study.progress import Progress
from experiments.study.run_directory import RunDirectory

if TYPE_CHECKING:  # These take JAX along: not for the help of the command line.
    from dgu.core.typing import Key
    from dgu.data import SampleStore
    from dgu.models import Pretrained

#: ``make(labels, indices)``: samples by number.
Make = Callable[[np.ndarray | None, np.ndarray], np.ndarray]
#: Smallest and largest noise level of EDM's sampler.
EDM_RANGE = (0.002, 80.0)


@dataclass(frozen=True)
class SamplerConfig(Options, prefix="sampler"):
    """How images are made from noise."""

    method: Literal["edm", "ablation", "dpm-solver"] = option("edm", added_later=True)
    """edm: Algorithm 2, stochastic where churn > 0; ablation: the family below; dpm-solver: DPM-Solver++(2M), for few
    steps.
    """
    num_steps: int = option(18, ge=2)
    """Noise levels before 0; the network is evaluated twice at each but the last (by Euler and DPM-Solver++, once)."""
    sigma_min: float | None = option(None, gt=0.0)
    """Smallest noise level, one that the network takes; None is the method's (0.002 for edm), raised to the
    network's.
    """
    sigma_max: float | None = option(None, gt=0.0)
    """Largest noise level, one that the network takes; None is the method's (80 for edm), lowered to the network's."""
    rho: float = option(7.0, gt=0.0)
    """Curvature of EDM's noise levels."""
    churn: float = option(0.0, ge=0.0)
    """S_churn: noise added per step; 0 is deterministic. 2.8125 at 18 steps is the published gamma of 0.15625 (S_churn
    40 at 256 steps)."""
    s_min: float = option(0.0, ge=0.0)
    """Noise is added above this level."""
    s_max: float = option(math.inf, ge=0.0, may_be_infinite=True)
    """Noise is added below this level."""
    s_noise: float = option(1.0, ge=0.0)
    """Standard deviation of the noise added, relative to what the step removes."""
    batch_size: int = option(64, ge=1)
    """Images per device and chunk."""
    solver: Literal["heun", "euler"] = option("heun", added_later=True)
    """Of the ablation sampler: second or first order."""
    disc: Literal["vp", "ve", "iddpm", "edm"] = option("edm", added_later=True)
    """Of the ablation sampler: noise levels."""
    schedule: Literal["vp", "ve", "linear"] = option("linear", added_later=True)
    """Of the ablation sampler: noise level over time."""
    scaling: Literal["vp", "none"] = option("none", added_later=True)
    """Of the ablation sampler: scaling over time."""
    alpha: float = option(1.0, gt=0.0, le=1.0, added_later=True)
    """Of the ablation sampler: place of the second evaluation (1 Heun, 0.5 midpoint, 2/3 Ralston)."""

    def check(self) -> None:
        """The noise levels rise, and each option is one of the method."""
        # Those of the ablation sampler depend on its discretisation, which checks them itself.
        known = (0.0, math.inf) if self.method == "ablation" else EDM_RANGE
        low, high = self.sigma_min or known[0], self.sigma_max or known[1]
        require(low < high, "sampler.sigma_min", low, f"below sampler.sigma_max = {high:g}")
        churned = self.churn == 0 or self.s_min < self.s_max
        require(churned, "sampler.s_min", self.s_min, f"below sampler.s_max = {self.s_max:g}, where churn is added")
        require(self.method != "dpm-solver" or self.churn == 0, "sampler.churn", self.churn, "0 with dpm-solver")
        for field in dataclasses.fields(self):
            if field.name in ("solver", "disc", "schedule", "scaling", "alpha"):
                value = getattr(self, field.name)
                unused = self.method == "ablation" or value == field.default
                require(unused, f"sampler.{field.name}", value, "left out, or --sampler.method ablation given")
        second_order = self.solver == "heun" or self.alpha == 1.0
        require(second_order, "sampler.alpha", self.alpha, "left out: Euler's method has no second evaluation")
        curved = self.method != "ablation" or self.disc == "edm" or self.rho == 7.0
        require(curved, "sampler.rho", self.rho, f"left out: the levels of sampler.disc = {self.disc} have no rho")

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for an image: one a step, or two but for the last."""
        first_order = self.method == "dpm-solver" or (self.method == "ablation" and self.solver == "euler")
        return self.num_steps if first_order else 2 * self.num_steps - 1


@dataclass(frozen=True)
class GuidanceOptions(Options):
    """Guidance of the network by a worse one; base of the options of studies with a checkpoint."""

    guide: str | None = option(None, added_later=True)
    """Network from whose output that of --checkpoint is pushed away: another checkpoint of images of the same shape
    (autoguidance), or no-class, the network itself without a class (classifier-free guidance)."""
    guidance: float = option(1.0, added_later=True)
    """Weight w of the network, in guide + w (network - guide); above 1 with a guide."""
    guidance_interval: tuple[float, float] | None = option(None, ge=0.0, added_later=True)
    """Lowest and highest noise level that are guided; None guides all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guide is None:
            alone = "left out without a guide (--guide)"
            require(self.guidance == 1.0, "guidance", self.guidance, alone)
            require(self.guidance_interval is None, "guidance_interval", self.guidance_interval, alone)
        else:
            require(self.guidance != 1.0, "guidance", self.guidance, "other than 1, which is the network alone")
            allowed = f"left out with {self.unguided}: no network of --checkpoint is looked at"
            require(not self.unguided, "guide", self.guide, allowed)
        low, high = self.guidance_interval or EDM_RANGE
        require(low < high, "guidance_interval", (low, high), "a lowest level and a higher one")

    @property
    def unguided(self) -> str:
        """The option with which there is no network to guide; empty where there is one."""
        return ""

    @property
    def guided_by(self) -> str:
        """What reports say after the name of the network: nothing without a guide."""
        if self.guide is None:
            return ""
        where = "" if self.guidance_interval is None else " from level {:g} to {:g}".format(*self.guidance_interval)
        return f" guided by {self.guide.rstrip('/').rsplit('/', 1)[-1]} at weight {self.guidance:g}{where}"


#: Stochastic samplers with a gamma of 0.15625: of the studies, of their smoke presets, and of EDM's authors.
STUDY_SAMPLER = SamplerConfig(churn=2.8125, s_min=0.05, s_max=50.0, s_noise=1.003, batch_size=200)
SMOKE_SAMPLER = replace(STUDY_SAMPLER, num_steps=4, churn=0.625, batch_size=24)
PAPER_SAMPLER = replace(STUDY_SAMPLER, num_steps=256, churn=40.0, batch_size=128)


def noise_range(network: Any, low: float = EDM_RANGE[0], high: float = EDM_RANGE[1]) -> tuple[float, float]:
    """Smallest and largest noise level of a sampler, EDM's by default, within the range that the network takes."""
    return max(low, network.sigma_min), min(high, network.sigma_max)


def build_sampler(config: SamplerConfig, denoiser: Any) -> tuple[np.ndarray, Callable[..., Any], Any]:
    """Noise levels within the network's range, the solver of ``dgu.samplers.sample``, and the churn.

    Raises:
        InputError: a smallest or largest level asked for is not one of the network's.
    """
    from dgu import samplers
    from dgu.core.denoisers import check_range

    for name in ("sigma_min", "sigma_max"):
        asked = getattr(config, name)
        if asked is not None:
            check_range(denoiser, f"sampler.{name}", asked)
    churn = samplers.Churn(config.churn, config.s_min, config.s_max, config.s_noise)
    rounds = not np.array_equal(denoiser.round_sigma(np.asarray([0.3, 7.1])), np.asarray([0.3, 7.1]))
    if config.method == "ablation" or rounds:
        require(config.method != "dpm-solver" or not rounds, "sampler.method", config.method,
                "edm or ablation: the network rounds noise levels")  # fmt: skip
        solver = samplers.Ablation(
            solver=config.solver,
            discretization=config.disc,
            schedule=config.schedule,
            scaling=config.scaling,
            alpha=config.alpha,
            rho=config.rho,
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
            network_range=(denoiser.sigma_min, denoiser.sigma_max),
            round_sigma=(lambda sigma: denoiser.round_sigma(sigma)) if rounds else None,
        )
        return solver.sigmas(config.num_steps), solver, churn
    low, high = noise_range(denoiser, config.sigma_min or EDM_RANGE[0], config.sigma_max or EDM_RANGE[1])
    require(low < high, "sampler.sigma_min", low, f"below {high:g}, the largest level of sampler and network")
    sigmas = samplers.karras_sigmas(config.num_steps, low, high, config.rho)
    return sigmas, samplers.DPMSolver() if config.method == "dpm-solver" else samplers.heun, churn


def image_maker(
    pretrained: "Pretrained", config: SamplerConfig
) -> Callable[["Key", np.ndarray | None, np.ndarray], np.ndarray]:
    """``make(key, labels, indices)``: samples of the network by number, from the noise of a stream of keys.

    For a network without classes ``labels`` count for nothing.
    """
    from dgu import samplers

    network, denoiser = pretrained.network, pretrained.denoiser
    sigmas, solver, churn = build_sampler(config, denoiser)  # Once: a solver made anew would be compiled anew.

    def make(key: "Key", labels: np.ndarray | None, indices: np.ndarray) -> np.ndarray:
        return samplers.sample(
            denoiser,
            key,
            indices,
            sigmas,
            shape=network.shape,
            labels=labels if network.unet.label_dim else None,
            churn=churn,
            solver=solver,
            batch_size=config.batch_size,
        )

    return make


def fill_class(store: "SampleStore", make: Make, label: int, count: int, batch_size: int, bar: Progress) -> None:
    """Samples 0 to ``count`` - 1 of a class, made where the store lacks them, each process its share."""
    import jax

    before = bar.done

    def report(done: int, total: int) -> None:
        bar.update(before + done - bar.done)

    together = batch_size * jax.local_device_count()
    process = jax.process_index(), jax.process_count()
    store.fill(make, [label], count, batch_size=together, process=process, progress=report)
    report(count, count)


def sample_pool(
    directory: RunDirectory,
    pretrained: "Pretrained",
    config: SamplerConfig,
    *,
    labels: Sequence[int],
    count: int,
    seed: int,
) -> np.ndarray:
    """``count`` samples of each class (K, count, H, W, C) from the store ``samples/``, made where they are missing.

    A network without classes is its own only class: ``labels`` is then ``(0,)``.
    """
    from dgu.core import keys
    from dgu.data import SampleStore

    # What was sampled before there were other methods was sampled by EDM's, and is found again.
    unnamed = added_later(config) if config.method == "edm" else {}
    sampler = {name: value for name, value in config_to_json(config).items() if name not in unnamed}
    fingerprint = {"sampler": sampler, "seed": seed, "network": pretrained.sha256}
    make, shape = image_maker(pretrained, config), pretrained.network.shape
    store = SampleStore.open(directory.path / "samples", fingerprint, shape, shard_size=config.batch_size)
    with Progress("sampling", total=count * len(labels), unit="images") as bar:
        for label in labels:
            # A class never shares its noise with another: each has a stream of its own.
            own = keys.stream(keys.seeded(seed), "diffusion", int(label))
            fill_class(store, partial(make, own), label, count, config.batch_size, bar)
    parallel.barrier("sampled")
    return np.stack([store.read(label, count) for label in labels])

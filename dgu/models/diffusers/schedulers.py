"""``scheduler_config.json`` of diffusers as a preconditioning: which state and which time a network is given, and what
it predicts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from dgu.core.errors import InputError, require
from dgu.models.diffusers.config import typed, whole
from dgu.models.preconditioning import EDMPreconditioning
from dgu.models.predictions import ConsistencyPreconditioning, Prediction
from dgu.models.time_schedules import DiscreteSchedule, FlowSchedule, SigmaSchedule

#: How a network of diffusers becomes a denoiser.
Preconditioning: TypeAlias = Prediction | ConsistencyPreconditioning | EDMPreconditioning
#: How times of noise levels between those of a discrete schedule are found; see ``DiscreteSchedule``.
TimeRule: TypeAlias = Literal["interpolate", "nearest"]

#: Schedulers of DDPM's discrete process, which differ in how they sample alone, and the defaults of their betas.
_USUAL_BETAS, _LATENT_BETAS = (1e-4, 0.02), (0.00085, 0.012)
_DISCRETE = {
    **dict.fromkeys(
        """DDPM DDPMParallel DDIM DDIMParallel DDIMInverse PNDM LMSDiscrete EulerDiscrete EulerAncestralDiscrete
        DPMSolverMultistep DPMSolverMultistepInverse DPMSolverSinglestep DEISMultistep UniPCMultistep
        SASolver""".split(),
        _USUAL_BETAS,
    ),
    **dict.fromkeys("HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete DPMSolverSDE".split(), _LATENT_BETAS),
}
_FLOWS = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete")
_EDM = ("EDMEuler", "EDMDPMSolverMultistep")
_OTHERS = ("ScoreSdeVe", "CMStochasticIterative")
#: All schedulers that are read.
SCHEDULERS = tuple(f"{name}Scheduler" for name in (*_DISCRETE, *_FLOWS, *_EDM, *_OTHERS))
_PREDICTIONS: dict[str, Any] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
_MOST_TIMES = 2**20


@dataclass(frozen=True)
class Process:
    """A scheduler's process: the preconditioning, and the bound to which its sampler clips clean images, if it does."""

    preconditioning: Preconditioning
    clip: float | None = None


def process_from_config(config: Mapping[str, Any], time: TimeRule = "interpolate") -> Process:
    """The process that a ``scheduler_config.json`` describes. Keys that concern sampling alone are left aside.

    | scheduler | process |
    |---|---|
    | DDPM, DDIM, PNDM, Euler, DPM-Solver ... | ``sigma_t = sqrt((1 - abar_t) / abar_t)`` at whole t, in float64 |
    | ScoreSdeVe | the score, at time ``sigma`` |
    | FlowMatchEuler, FlowMatchHeun | the velocity at ``sigma = tau / (1 - tau)``, time ``1000 tau`` |
    | EDMEuler, EDMDPMSolver | EDM's own preconditioning |
    | CMStochasticIterative | a consistency function, which is no posterior mean |

    Args:
        config: the scheduler's configuration; what is left out has its default.
        time: the time of a noise level between two of a discrete schedule.

    Raises:
        InputError: another scheduler or schedule of betas, or an unusable value.
    """
    require(isinstance(config, Mapping), "scheduler_config", type(config).__name__, "a dictionary")
    require(time in ("interpolate", "nearest"), "time", time, "'interpolate' or 'nearest'")
    name = config.get("_class_name")
    require(isinstance(name, str) and name in SCHEDULERS, "_class_name", name, f"one of {', '.join(SCHEDULERS)}")
    kind, options = str(name).removesuffix("Scheduler"), _Options(config)
    if kind in _DISCRETE:
        return _discrete(kind, options, time)
    if kind in _FLOWS:
        return Process(_flow(options))
    if kind in _EDM:
        return Process(_edm(options))
    if kind == "ScoreSdeVe":
        levels = options.number("sigma_min", 0.01), options.number("sigma_max", 1348.0)
        return Process(Prediction("score", SigmaSchedule(*levels)))
    data, low, high = (
        options.number(*each) for each in (("sigma_data", 0.5), ("sigma_min", 0.002), ("sigma_max", 80.0))
    )
    return Process(ConsistencyPreconditioning(data, low, high), 1.0 if options.flag("clip_denoised", True) else None)


class _Options:
    """The values of a configuration, each of one type, or its default where it is left out or null."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = config

    def _typed(self, name: str, default: Any, kind: Any) -> Any:
        value = self.config.get(name)
        return default if value is None else typed(name, value, kind)

    def number(self, name: str, default: float) -> float:
        return self._typed(name, default, float)

    def times(self) -> int:
        count = self._typed("num_train_timesteps", 1000, int)
        whole("num_train_timesteps", count, _MOST_TIMES)
        return count

    def flag(self, name: str, default: bool = False) -> bool:
        return self._typed(name, default, bool)

    def name(self, name: str, default: str) -> str:
        return self._typed(name, default, str)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        value = self.config.get(name)
        return None if value is None else typed(name, value, tuple[float, ...])


def _discrete(kind: str, options: _Options, time: TimeRule) -> Process:
    # Early files say that the network predicts the example by another key.
    usual = "epsilon" if options.flag("predict_epsilon", True) else "sample"
    predicted = options.name("prediction_type", usual)
    require(predicted in _PREDICTIONS, "prediction_type", predicted, f"one of {', '.join(_PREDICTIONS)}")
    kept = options.name("timestep_type", "discrete")
    require(kept == "discrete" or predicted != "v_prediction", "timestep_type", kept, "'discrete' with v_prediction")
    require(not options.flag("use_flow_sigmas"), "use_flow_sigmas", True, "false: it is another process")
    betas = _betas(kind, options)
    abar = np.cumprod(1 - betas)
    if options.flag("rescale_betas_zero_snr"):
        # The last level becomes infinite, and DiscreteSchedule leaves it out; samplers that need a number take 2^-24.
        root = np.sqrt(abar)
        abar = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    schedule = DiscreteSchedule(tuple(abar.tolist()), time=time)
    # Those that clip do so unless they are told otherwise; the others have no such option.
    clips = options.flag("clip_sample", kind.startswith(("DDPM", "DDIM")))
    bound = options.number("clip_sample_range", 1.0) if clips else None
    return Process(Prediction(_PREDICTIONS[predicted], schedule), bound)


def _betas(kind: str, options: _Options) -> np.ndarray:
    """The variances of the noise that is added at each time, in float64."""
    count, trained = options.times(), options.numbers("trained_betas")
    if trained is not None:
        betas = np.asarray(trained)
        require(len(betas) >= 2 and bool(((betas > 0) & (betas < 1)).all()), "trained_betas", trained,
                "two or more numbers between 0 and 1")  # fmt: skip
        return betas
    low, high = (options.number(name, usual) for name, usual in zip(("beta_start", "beta_end"), _DISCRETE[kind]))
    require(0 < low < high < 1, "beta_start", low, f"above 0 and below beta_end = {high:g}, which is below 1")
    require(count >= 2, "num_train_timesteps", count, "2 or more")
    schedule = options.name("beta_schedule", "linear")
    known = ("linear", "scaled_linear", "squaredcos_cap_v2") + ("sigmoid", "laplace") * kind.startswith("DDPM")
    require(schedule in known, "beta_schedule", schedule, f"one of {', '.join(known)} with {kind}Scheduler")
    if schedule == "linear":
        return np.linspace(low, high, count)
    if schedule == "scaled_linear":
        return np.linspace(math.sqrt(low), math.sqrt(high), count) ** 2
    if schedule == "sigmoid":
        return (high - low) / (1 + np.exp(-np.linspace(-6, 6, count))) + low
    u = np.arange(count + 1) / count
    if schedule == "laplace":
        snr = np.exp(-0.5 * np.copysign(1, 0.5 - u) * np.log(1 - 2 * np.abs(0.5 - u) + 1e-6))
        kept = np.sqrt(snr / (1 + snr))
    else:
        kept = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - kept[1:] / kept[:-1], 0.999)


def _flow(options: _Options) -> Prediction:
    """``shift`` moves the grid that is sampled, and with it the lowest level, but not the process."""
    require(not options.flag("invert_sigmas"), "invert_sigmas", True, "false: it is another process")
    count, shift = options.times(), options.number("shift", 1.0)
    require(shift > 0, "shift", shift, "positive")
    lowest = shift / (count - 1 + shift)
    require(lowest < 1, "num_train_timesteps", count, "2 or more")
    return Prediction("velocity", FlowSchedule(data_at=0, time_factor=float(count), tau_min=lowest))


def _edm(options: _Options) -> EDMPreconditioning:
    predicted = options.name("prediction_type", "epsilon")
    if predicted != "epsilon":
        raise InputError(f"prediction_type = {predicted!r}: must be 'epsilon' with EDM's schedulers")
    names = (("sigma_data", 0.5), ("sigma_min", 0.002), ("sigma_max", 80.0))
    return EDMPreconditioning(*(options.number(*each) for each in names))

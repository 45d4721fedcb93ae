"""Noise grids and samplers: the Heun step, the scan over it, other solvers, many addressed samples.

Also likelihood, inversion, trajectories and their pairs, and the exact solutions for a Gaussian.
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.distributions.bases import MultivariateStudentT as MultivariateStudentT
    from dgu.distributions.bases import StudentT as StudentT
    from dgu.samplers.ablation import Ablation as Ablation
    from dgu.samplers.dpm_solver import DPMSolver as DPMSolver
    from dgu.samplers.from_noise import sample_from as sample_from
    from dgu.samplers.gaussian_flow import gaussian_flow as gaussian_flow
    from dgu.samplers.gaussian_path import churn_levels as churn_levels
    from dgu.samplers.gaussian_path import gaussian_outputs as gaussian_outputs
    from dgu.samplers.gaussian_path import gaussian_path as gaussian_path
    from dgu.samplers.guided import Guided as Guided
    from dgu.samplers.guided import WithoutClass as WithoutClass
    from dgu.samplers.heun import StepState as StepState
    from dgu.samplers.heun import heun as heun
    from dgu.samplers.heun import heun_step as heun_step
    from dgu.samplers.inversion import invert as invert
    from dgu.samplers.likelihood import bits_per_dim as bits_per_dim
    from dgu.samplers.likelihood import dequantize as dequantize
    from dgu.samplers.likelihood import log_likelihood as log_likelihood
    from dgu.samplers.likelihood import log_likelihoods as log_likelihoods
    from dgu.samplers.likelihood import pixel_bits as pixel_bits
    from dgu.samplers.pairs import pair_distances as pair_distances
    from dgu.samplers.prior import MAX_MISMATCH as MAX_MISMATCH
    from dgu.samplers.prior import prior_mismatch as prior_mismatch
    from dgu.samplers.reverse import probability_flow as probability_flow
    from dgu.samplers.reverse import reverse_sde as reverse_sde
    from dgu.samplers.sample import sample as sample
    from dgu.samplers.sample import sample_chunk as sample_chunk
    from dgu.samplers.schedules import Churn as Churn
    from dgu.samplers.schedules import karras_sigmas as karras_sigmas
    from dgu.samplers.sde import VESDE as VESDE
    from dgu.samplers.sde import VPSDE as VPSDE
    from dgu.samplers.sde import DenoiserFromScore as DenoiserFromScore
    from dgu.samplers.sde import LinearSDE as LinearSDE
    from dgu.samplers.sde import ScoreFromDenoiser as ScoreFromDenoiser
    from dgu.samplers.sde import ScoreOfDensity as ScoreOfDensity
    from dgu.samplers.sde import SubVPSDE as SubVPSDE
    from dgu.samplers.sde import as_denoiser as as_denoiser
    from dgu.samplers.sde import as_score as as_score
    from dgu.samplers.together import sample_together as sample_together
    from dgu.samplers.trajectories import Trajectories as Trajectories
    from dgu.samplers.trajectories import trace_trajectories as trace_trajectories

load_on_use(__name__)

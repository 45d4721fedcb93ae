"""Noise grids and samplers: the Heun step, the scan over it, other solvers, many addressed samples, inversion, likelihood."""

from dgu.bases import MultivariateStudentT as MultivariateStudentT
from dgu.bases import StudentT as StudentT
from dgu.samplers.ablation import Ablation as Ablation
from dgu.samplers.dpm_solver import DPMSolver as DPMSolver
from dgu.samplers.heun import StepState as StepState
from dgu.samplers.heun import heun as heun
from dgu.samplers.heun import heun_step as heun_step
from dgu.samplers.inversion import invert as invert
from dgu.samplers.likelihood import bits_per_dim as bits_per_dim
from dgu.samplers.likelihood import dequantize as dequantize
from dgu.samplers.likelihood import log_likelihood as log_likelihood
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

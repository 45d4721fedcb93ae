"""Noise grids and samplers: the Heun step, the scan over it, and many addressed samples over all devices."""

from dgu.samplers.heun import StepState as StepState
from dgu.samplers.heun import heun as heun
from dgu.samplers.heun import heun_step as heun_step
from dgu.samplers.sample import sample as sample
from dgu.samplers.sample import sample_chunk as sample_chunk
from dgu.samplers.schedules import Churn as Churn
from dgu.samplers.schedules import karras_sigmas as karras_sigmas

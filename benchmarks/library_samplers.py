"""Samplers of diffusers and azula, and a plain loop, on one PyTorch network: Heun's and Euler's steps without noise.

Each is used as its documentation shows, on the Karras levels ``sigmas`` (falling, the last 0) from a state ``x`` at the
first of them, and evaluates the network as often as the others: 2 N - 1 times for N Heun steps, N times for N Euler
steps.
"""

import itertools
from collections.abc import Callable

import azula.denoise
import azula.noise
import azula.sample
import numpy as np
import torch
from diffusers import EDMEulerScheduler, HeunDiscreteScheduler

from benchmarks.peer import Peer, make_sampler

#: ``run(x, one-hot labels)``: samples from states at the first level.
Sampler = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def plain_euler(peer: Peer, sigmas: np.ndarray) -> Sampler:
    """Euler's steps as one writes them."""

    @torch.inference_mode()
    def run(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        for now, after in itertools.pairwise(torch.tensor(sigmas, dtype=torch.float32)):
            x = x + (after - now) * (x - peer.denoise(x, now.expand(len(x)), labels)) / now
        return x

    return run


def diffusers_heun(peer: Peer, sigmas: np.ndarray) -> Sampler:
    """``HeunDiscreteScheduler``, told that the network predicts the sample.

    It has discrete levels of a variance-preserving process only, so that its levels are replaced by ours. The network
    takes states as they are: nothing is to be scaled before it.
    """
    levels = torch.tensor(sigmas, dtype=torch.float32)
    twice = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    scheduler = HeunDiscreteScheduler(prediction_type="sample", use_karras_sigmas=True)

    @torch.inference_mode()
    def run(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scheduler.set_timesteps(len(sigmas) - 1)
        scheduler.sigmas = twice
        for sigma, t in zip(twice, scheduler.timesteps):
            x = scheduler.step(peer.denoise(x, sigma.expand(len(x)), labels), t, x).prev_sample
        return x

    return run


def diffusers_euler(peer: Peer, sigmas: np.ndarray) -> Sampler:
    """``EDMEulerScheduler``, whose levels and preconditioning are EDM's: the raw network is its own part."""
    scheduler = EDMEulerScheduler(sigma_min=float(sigmas[-2]), sigma_max=float(sigmas[0]), sigma_data=peer.sigma_data)

    @torch.inference_mode()
    def run(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scheduler.set_timesteps(len(sigmas) - 1)
        for t in scheduler.timesteps:
            raw = peer.network(scheduler.scale_model_input(x, t), t.expand(len(x)), labels)
            x = scheduler.step(raw, t, x).prev_sample
        return x

    return run


class _Levels(azula.noise.Schedule):
    """Karras et al.'s levels over time 1 to 0, without a scale."""

    def __init__(self, sigma_min: float, sigma_max: float):
        self.low, self.high = sigma_min ** (1 / 7), sigma_max ** (1 / 7)

    def __call__(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones_like(t), (self.low + t * (self.high - self.low)) ** 7


class _Denoiser(azula.denoise.Denoiser):
    """The peer, with its own preconditioning."""

    def __init__(self, peer: Peer, schedule: azula.noise.Schedule):
        super().__init__()
        self.peer, self.schedule = peer, schedule

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> azula.denoise.DiracPosterior:
        _, sigma = self.schedule(t)
        return azula.denoise.DiracPosterior(mean=self.peer.denoise(x_t, sigma.expand(len(x_t)), labels))


def azula_sampler(kind: type[azula.sample.Sampler], peer: Peer, sigmas: np.ndarray) -> Sampler:
    """One of azula's samplers down to the smallest level above 0, and the posterior mean there: a step to noise 0."""
    denoiser = _Denoiser(peer, _Levels(float(sigmas[-2]), float(sigmas[0])))
    sampler = kind(denoiser, steps=len(sigmas) - 2, silent=True)
    end = torch.zeros(())

    @torch.inference_mode()
    def run(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return denoiser(sampler(x, labels=labels), end, labels=labels).mean

    return run


def library_samplers(peer: Peer, heun: np.ndarray, euler: np.ndarray) -> dict[str, Sampler]:
    """All of them by name: the library, and the method."""
    return {
        "plain, Heun": make_sampler(peer, heun),
        "diffusers, Heun": diffusers_heun(peer, heun),
        "azula, Heun": azula_sampler(azula.sample.HeunSampler, peer, heun),
        "plain, Euler": plain_euler(peer, euler),
        "diffusers, Euler": diffusers_euler(peer, euler),
        "azula, Euler": azula_sampler(azula.sample.EulerSampler, peer, euler),
    }

"""What is spread over devices, done with as many as the environment says: results, and jobs by device. Run by tests."""

import sys
from collections import Counter

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.universality.arms import gaussian_arms
from dgu.core import parallel
from dgu.models import GaussianDenoiser, LinearNetwork, SkipNetwork
from dgu.samplers import karras_sigmas
from dgu.training import LevelTraining, distill_by_adam, distill_exactly, train_stored_levels

KEY, SIGMAS = jax.random.key(0), np.array([8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05])
SHAPE = (4, 4, 1)


def results(network):
    """Arrays by name of each kind of work, under the name of the kind."""
    images = (np.random.default_rng(0).normal(size=(40, *SHAPE)) * np.linspace(0.1, 1, 16).reshape(SHAPE)).astype("f4")
    model = GaussianDenoiser.fit(images[:20])
    exact = distill_exactly(model, images, SIGMAS, KEY, groups=2, observe=lambda _, weight: {"trace": weight.trace()})
    left_out = [[group["trace"] for group in level] for level in exact.observed]
    yield "exact distillation", {"maps": exact.denoiser.weights, "left out": np.array(left_out)}
    adam = distill_by_adam(model, images, SIGMAS, KEY, epochs=4, batch_size=8, snapshot_every=2)
    yield "Adam's distillation", {"maps": adam.denoiser.weights, "losses": adam.losses}
    at_levels = analysis.level_triplets(model, images[:4], SIGMAS, 2, KEY)
    yield "Jacobians by level", {"values": at_levels.values, "right": at_levels.right}
    yield "Jacobians", {"values": analysis.singular_triplets(model, images[:16], 1.0, 2, KEY, batch_size=2).values}
    path = analysis.trace_trajectories(model, KEY, range(8), karras_sigmas(3), shape=SHAPE, batch_size=8)
    yield "contraction of steps", vars(analysis.step_expansion(model, path, key=KEY, batch_size=3))
    yield "contraction", {"values": analysis.generator_expansion(model, path, key=KEY, batch_size=1).values}
    yield "classes", gaussian_arms(images.reshape(8, 5, 16), KEY, 6, low_rank=4)
    mixture = analysis.GaussianMixtureSampler.fit(images, np.arange(40) % 8)
    roots = np.stack([np.asarray(gaussian.root) for gaussian in mixture.gaussians])
    yield "fits of classes", {"roots": roots, "samples": np.asarray(mixture.sample(KEY, 1, range(20), batch_size=4))}
    config = LevelTraining(steps=4, batch_size=8)
    trained, losses = train_stored_levels(
        network, images, SIGMAS, config, every=2, stored=lambda name, compute: compute()
    )
    leaves = {f"leaf{number}": leaf for number, leaf in enumerate(jax.tree.leaves(trained.denoisers))}
    yield "autoencoders", leaves | {"losses": losses}


def counted():
    """Has each job counted by the device that it runs on."""
    jobs, once = Counter(), parallel._result

    def counting(*given):
        jobs[str(parallel.own_devices()[0]) if parallel._within_a_job() else "here"] += 1
        return once(*given)

    parallel._result = counting
    return jobs


if __name__ == "__main__":
    parallel.initialize()
    jobs, found = counted(), {}
    networks = {"skip": SkipNetwork(4, 1, (3,)), "linear": LinearNetwork(SHAPE)}
    for name, arrays in results(networks[sys.argv[2]]):
        found |= {f"{name}, {part}": np.asarray(array) for part, array in arrays.items()}
        print(name, *(f"{device}:{count}" for device, count in sorted(jobs.items())), sep=";")
        jobs.clear()
    if parallel.is_lead():
        np.savez(sys.argv[1], **found)

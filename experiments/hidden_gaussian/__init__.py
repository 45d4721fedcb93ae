"""How much of a diffusion model is the Gaussian of its data? ``python -m experiments.hidden_gaussian``

The Gaussian has the mean and covariance of the training images. Of any denoiser (``--checkpoint``) the study measures
how linear it is over noise levels, and what it adds to the skip of its preconditioning, beside controls; its best
linear maps, found exactly and by Adam, beside those of the Gaussian; its distances to the Gaussian, linear and multi-
delta denoisers on the same noisy images; and the singular vectors of its Jacobian beside the principal components; the
same of autoencoders that it trains at one noise level each. Of networks that it trains itself: how they change from
memorising to generalising over training-set size, width and training time, and whether two that were trained on
disjoint data make the same images of the same noise. Source: Li, Dai and Qu, arXiv 2410.24060.
"""

from typing import Any

from experiments.hidden_gaussian import (
    autoencoders,
    distances,
    distillation,
    jacobians,
    linearity,
    networks,
    strong,
    sweeps,
)
from experiments.hidden_gaussian.subject import Options, describe, gather, introduce, plan
from experiments.study import Guide, Study
from experiments.subjects import FFHQ_64, UNTRAINED

#: Parts that measure the network of the checkpoint, and compile quickly.
_OF_THE_NETWORK = (linearity.PART, distillation.PART, distances.PART, jacobians.PART)
#: Parts that train networks: each takes as long to compile as all others, so that the smoke preset leaves them out.
_TRAINED = (autoencoders.PART, sweeps.PART, strong.PART)

_PAPER: dict[str, Any] = {
    "checkpoint": FFHQ_64,
    "data": "ffhq-64x64.zip",
    "heldout_data": "celeba-hq-64x64.zip",
    "heldout_split": "train",
    "size": None,
    "networks": networks.PRESETS["paper"],
}


def _on_other_images(preset: str) -> dict[str, Any]:
    """The sweeps on another of the paper's sets of images."""
    others = {part.name: part.presets["paper"] for part in (*_OF_THE_NETWORK, autoencoders.PART)}
    return {**_PAPER, **others, "parts": ("sweeps", "strong"), "networks": networks.PRESETS[preset]}


STUDY = Study(
    name="hidden_gaussian",
    title="Hidden Gaussian structure",
    question="How much of a diffusion model is the Gaussian with its data's mean and covariance?",
    options=Options,
    parts=(*_OF_THE_NETWORK, *_TRAINED),
    gather=gather,
    plan=plan,
    introduce=introduce,
    describe=describe,
    guide=Guide(
        first=("--checkpoint", "--data", "--heldout-data", "--label", "--levels", "--batch-size"),
        examples={
            "--preset smoke": "Shows in about a minute that everything runs; its numbers mean nothing.",
            "--parts linearity distances --out runs/linear": "How linear the bundled network is, and how far from "
            "Gaussian and other denoisers.",
            "--checkpoint runs/my-network --data fashion-mnist --out runs/mine": "The study of a network that you "
            "trained.",
        },
    ),
    terms={
        "network": "the denoiser that is studied, or one of those that the study trains: it estimates a clean image "
        "from a noisy one and its noise level sigma.",
        "Gaussian denoiser": "the posterior mean of the Gaussian with the mean and covariance of the training images; "
        "at each noise level it is an affine map of the noisy image.",
        "multi-delta denoiser": "the posterior mean of the training images themselves, a point mass on each: a network "
        "that has memorised them all.",
        "best linear map": "the affine map of the noisy image that comes nearest to the network at one noise level, by "
        "least squares.",
        "distance": "between two denoisers: the root mean square difference of their outputs on the same noisy images, "
        "per pixel, with pixels in [-1, 1]; between samples: likewise of two images.",
        "autoencoder, DAE-NAME": "a denoiser trained at one noise level only; NAME is its architecture.",
        "seed": "a network with its own training set, which shares no image with the others, and its own "
        "initialisation.",
        "held-out images": "images of the same source that no network was trained on.",
    },
    overrides={
        "smoke": {
            "checkpoint": UNTRAINED,
            "size": 7,
            "levels": 3,
            "steps": 3,
            "batch_size": 4,
            "train_images": 40,
            "parts": tuple(part.name for part in _OF_THE_NETWORK),
            "networks": networks.PRESETS["smoke"],
        },
        "default": {},
        "paper": _PAPER,
        **{preset: _on_other_images(preset) for preset in ("paper-cifar10", "paper-afhqv2", "paper-churches")},
    },
    renamed={"--networks.network": "--networks"},
)

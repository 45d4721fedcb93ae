"""Do diffusion models learn a mixture of low-rank Gaussians? ``python -m experiments.molrg``

Phase transitions of subspace recovery from few examples; a trained network's images beside those of the mixture fitted
to its training set; the number of examples, of mixtures and of real images, from which on networks generalise, against
the intrinsic dimension; that dimension from the numerical rank of the network's Jacobian; and edits of images along its
singular vectors. Source: Wang et al., arXiv 2409.02426.
"""

from experiments.molrg import dimension, directions, images, networks, phase, real
from experiments.molrg.subject import Options, describe, gather, plan
from experiments.study import Guide, Study
from experiments.subjects import CIFAR_10

# `dimension` also looks at a network that `networks` trains in the same run.
_PARTS = (phase.PART, images.PART, networks.PART, real.PART, dimension.PART, directions.PART)
#: Parts that take long to compile; the smoke preset leaves them out.
_SLOW_TO_COMPILE = ("networks", "real", "dimension", "directions")

STUDY = Study(
    name="molrg",
    title="Mixtures of low-rank Gaussians",
    question="Do diffusion models learn a mixture of low-rank Gaussians: when are its subspaces found, when do "
    "networks generalise, and what do the directions of their Jacobians change?",
    options=Options,
    parts=_PARTS,
    gather=gather,
    describe=describe,
    plan=plan,
    guide=Guide(
        first=("--checkpoint", "--data", "--size", "--others"),
        examples={
            "--preset smoke": "Shows in about a minute that everything runs; its numbers mean nothing.",
            "--parts phase --out runs/phase": "From how many points on subspaces are found, without any network.",
            "--parts images --checkpoint runs/my-network --data mnist --out runs/mine": "Whether the images of a "
            "network that you trained are those of the mixture.",
        },
    ),
    terms={
        "mixture of low-rank Gaussians": "each component is a Gaussian on a linear subspace of few dimensions (or, "
        "fitted to images, an affine one).",
        "d, N, K": "the dimension of each subspace, the number of points on each that a method is given, and the "
        "number of subspaces.",
        "a trial finds the subspaces": "the projectors onto the estimated and the true subspaces differ by at most 1/2 "
        "in spectral norm, in the mean over subspaces and in the order that fits best.",
        "generalisation score": "the share of samples that lie farther from the training set than a threshold, which "
        "is the distance that nearly all fresh draws of the true distribution exceed.",
        "N / ID": "the number of training examples over the intrinsic dimension of the data: the sum of the dimensions "
        "of the mixture's subspaces, or of real images the least mean numerical rank along sampling trajectories.",
        "midpoint": "of a curve: the base-2 logarithm of the size, N or N / ID, at which the fitted generalisation "
        "score is 1/2.",
        "numerical rank": "of a Jacobian: the number of its leading singular values that hold nearly all of its "
        "energy, the sum of squares.",
        "edit": "a move of a noisy image, after which it is denoised again.",
    },
    overrides={
        "smoke": {
            "parts": tuple(part.name for part in _PARTS if part.name not in _SLOW_TO_COMPILE),
            "data": "fashion-mnist-mini", "split": "test",
        },
        "default": {},
        "paper": {"checkpoint": CIFAR_10, "data": "cifar10", "size": None},
    },
)  # fmt: skip

"""Do diffusion models learn a mixture of low-rank Gaussians? ``python -m experiments.molrg``

Phase transitions of subspace recovery from few examples; a trained network's images beside those of the mixture fitted
to its training set; the number of examples from which on networks generalise, against the intrinsic dimension; that
dimension from the numerical rank of the network's Jacobian; and edits of images along its singular vectors. Source:
Wang et al., arXiv 2409.02426.
"""

from experiments.molrg import dimension, directions, images, networks, phase
from experiments.molrg.subject import Options, gather, plan
from experiments.study import Study
from experiments.subjects import CIFAR_10

STUDY = Study(
    name="molrg",
    title="Mixtures of low-rank Gaussians",
    question="Do diffusion models learn a mixture of low-rank Gaussians: when are its subspaces found, when do "
    "networks generalise, and what do the directions of their Jacobians change?",
    options=Options,
    # `dimension` also looks at a network that `networks` trains in the same run.
    parts=(phase.PART, images.PART, networks.PART, dimension.PART, directions.PART),
    gather=gather,
    plan=plan,
    overrides={
        "smoke": {"data": "fashion-mnist-mini", "split": "test"},
        "default": {},
        "paper": {"checkpoint": CIFAR_10, "data": "cifar10", "size": None},
    },
)

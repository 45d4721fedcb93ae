"""How does a diffusion model's distance from its target develop in training? ``python -m experiments.generalization``

The KL divergence between the target and the modelled distribution is followed through training, over seeds,
training-set sizes, distances of modes, capacities and optimisers, and compared with the bounds of Li et al., arXiv
2311.01797. Every statement is about the distribution over seeds, since single runs with SGD mostly show its noise.
"""

from experiments.generalization import boxes, capacity, flow, images, shift, stopping, three_ways
from experiments.generalization.subject import Options, describe, gather, plan
from experiments.study import Guide, Study

_PARTS = (
    stopping.PART, shift.PART, capacity.PART, flow.PART, boxes.PART, three_ways.PART, images.PART,
)  # fmt: skip

STUDY = Study(
    name="generalization",
    title="Generalisation in training time",
    question="How does a diffusion model's distance from its target develop in training, over seeds, training-set "
    "sizes, distances of modes and capacities? The part images runs with --preset paper, else only "
    "where --parts asks for it: it takes minutes more, and --dry-run says how many at least.",
    options=Options,
    parts=_PARTS,
    gather=gather,
    describe=describe,
    plan=plan,
    guide=Guide(
        first=("--epochs", "--seeds", "--sizes", "--width", "--batch-size"),
        examples={
            "--preset smoke": "Shows in about a minute that everything runs; its numbers mean nothing.",
            "--seeds 24 --out runs/seeds": "More trainings, and so narrower intervals.",
            "--parts images --dry-run": "What the part on images would cost.",
        },
    ),
    terms={
        "KL from data to model": "KL(p || q) in nats, p being the density of the target and q that of the learned "
        "model: summed over a grid, unless a claim says otherwise, with log q from integrating the score at one small "
        "time.",
        "modes at +-a": "the target is the equal mixture of the Gaussians N(-a, 1) and N(a, 1) on the line.",
        "seed": "a network (or gradient flow) with its own training set and initialisation. A network whose training "
        "diverged counts with a KL of 100 nats in medians of the KL, and is left out elsewhere.",
        "score, exact score": "the gradient of the log density of noisy data, as it is learned; and the target's own.",
        "gradient flow": "training in continuous time of a score that is linear in its parameters, of random features, "
        "on the loss over the n training examples. Its population loss is that over all data there can be.",
        "Theorem 1": "of the paper: a bound on the KL in terms of training time, n and the number of random features.",
        "nearest, farthest pair": "of clusters that k-means finds in real images; a network is trained on each pair. "
        "Each seed splits the clusters' images anew into training and held-out ones; intervals are over seeds, and "
        "about these clusters, whatever other images there may be.",
    },
    overrides={
        "default": {"parts": tuple(part.name for part in _PARTS if part is not images.PART)},
        # Trainings of the same shapes, eight at once, so that each optimiser is compiled once; a hundred examples
        # everywhere.
        "smoke": {"epochs": 4, "evaluations": 2, "seeds": 8, "sizes": (100,), "chunk_size": 8},
        "paper": {"seeds": 100, "evaluations": 100, "parts": tuple(part.name for part in _PARTS)},
    },
    renamed={
        "--shift-points": "--shift.points",
        "--modes": "--shift.modes",
        "--shift-seeds": "--shift.seeds",
        "--remark-epochs": "--shift.remark-epochs",
        "--remark-seeds": "--shift.remark-seeds",
        "--mode-widths": "--shift.mode-widths",
        "--input-scales": "--shift.input-scales",
        "--widths": "--capacity.widths",
        "--capacity-seeds": "--capacity.seeds",
        "--capacity-epochs": "--capacity.epochs",
        "--box-dimensions": "--boxes.dimensions",
        "--box-seeds": "--boxes.seeds",
        "--box-epochs": "--boxes.epochs",
        "--box-width": "--boxes.width",
        "--box-examples": "--boxes.examples",
        "--flow-sizes": "--flow.sizes",
        "--flow-features": "--flow.features",
        "--flow-seeds": "--flow.seeds",
        "--divergence-examples": "--three-ways.examples",
        "--divergence-networks": "--three-ways.networks",
    },
)

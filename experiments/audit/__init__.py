"""Do generated images match those that their model was trained on?

``python -m experiments.audit --samples A --reference B``

One report about two sets: memorisation, first and second moments, spectra, tails, Frechet distance and KID, precision,
recall, density and coverage, class balance, universality, the noise level below which a memorising model copies and,
given the network, membership inference and U-turns. Every number has an interval, and where it can beside it stands the
same number for real images that the model never saw (``--holdout``, or a part of the reference): what a perfect model
would show.
"""

from experiments.audit import balance, clocks, fidelity, images, membership, memorisation, moments, tails, universality
from experiments.audit.subject import Options, describe, gather, plan
from experiments.sampling import SMOKE_SAMPLER
from experiments.study import Guide, Study

_PARTS = (
    images.PART,
    memorisation.PART,
    moments.PART,
    tails.PART,
    fidelity.PART,
    balance.PART,
    universality.PART,
    membership.PART,
    clocks.PART,
)


STUDY = Study(
    name="audit",
    title="Audit of generated images",
    question="Do generated images match the images that their model was trained on, and does it repeat them?",
    options=Options,
    parts=_PARTS,
    gather=gather,
    describe=describe,
    plan=plan,
    guide=Guide(
        first=("--samples", "--reference", "--holdout", "--checkpoint", "--features", "--per-class"),
        examples={
            "--samples my_images.npz --reference my_training_images.npz --out runs/mine": "The audit of images from "
            "any model.",
            "--preset smoke": "Shows in about a minute that everything runs; its numbers mean nothing.",
        },
    ),
    terms={
        "samples": "the generated images that are audited.",
        "reference": "the images that the model was trained on.",
        "held-out images": "images of the reference's source that the model was not trained on: a perfect model's "
        "samples are like these. Where none are given, a part of the reference is set aside in their place.",
        "near-duplicate": "a sample that is much nearer to a reference image than that image's nearest neighbour is, "
        "or differs from it by hardly more than rounding.",
        "features": "the numbers by which images are compared for Frechet distance, precision and coverage: those "
        "given, or principal components of the reference's pixels.",
        "level of collapse": "the noise level below which the exact denoiser of the reference, the best one for a "
        "model that knows nothing but these images, settles on one of them.",
        "sub-Gaussian norm": "of a function f of the images: the least K with E exp((f - E f)^2 / K^2) <= 2; it is "
        "large where f has heavy tails.",
    },
    overrides={
        "smoke": {
            "reference": "fashion-mnist-mini",
            "reference_split": "test",
            "holdout": None,
            "per_class": 24,
            "sampler": SMOKE_SAMPLER,
        },
        "default": {},
        "paper": {"per_class": 1000},
    },
    renamed={
        "--copy-fraction": "--memorisation.copy-fraction",
        "--copy-rms": "--memorisation.copy-rms",
        "--pca": "--fidelity.pca",
        "--most-features": "--fidelity.most-images",
        "--judge.images": "--balance.images",
        "--judge.epochs": "--balance.epochs",
    },
)

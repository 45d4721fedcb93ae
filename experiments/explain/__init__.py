"""Which closed form is your network? ``python -m experiments.explain``

Any denoiser with its training images beside one family of closed forms, {Gaussian, mixture, training points} x {whole
image, window, window at all places}, level by level, pixel by pixel and on images from the same noises; and what theory
predicts before anything is trained: errors of finite samples, the order of learning, noise levels of collapse and of
speciation; with a law that is far from Gaussian as a control. Kamb and Ganguli, arXiv 2412.20292; Niedoba et al.,
arXiv 2411.19339; Lukoianov et al., arXiv 2509.09672; arXiv 2602.02908; arXiv 2503.03206; arXiv 2402.18491; arXiv
2402.16991.
"""

from dgu.training import TrainingConfig
from experiments.explain import clocks, finite, forms_report, hierarchy, identities, learning, samples
from experiments.explain.subject import Options, SecondConfig, describe, gather, plan
from experiments.study import Study
from experiments.study.guide import Guide
from experiments.train_config import NetworkConfig

_PARTS = (forms_report.PART, samples.PART, finite.PART, learning.PART, clocks.PART, identities.PART, hierarchy.PART)
#: Parts that take long to compile; the smoke preset leaves them out.
_SLOW_TO_COMPILE = ("samples", "clocks", "identities", "hierarchy")

STUDY = Study(
    name="explain",
    title="Which closed form is the network?",
    question="Which closed form is a network, at which noise level and at which pixels, and what does theory predict "
    "of it?",
    options=Options,
    parts=_PARTS,
    gather=gather,
    describe=describe,
    plan=plan,
    guide=Guide(
        first=("--checkpoint", "--data", "--split", "--images"),
        examples={
            "--preset smoke": "Shows in about a minute that everything runs; its numbers mean nothing.",
            "--checkpoint runs/my-network --data mnist --out runs/mine": "Which closed forms a network is that you "
            "trained.",
            "--parts clocks hierarchy --out runs/laws": "What the data alone say, and a law that is far from Gaussian.",
        },
    ),
    terms={
        "network": "the denoiser of --checkpoint. Where it is given the class of an image, so are the closed forms, "
        "which are then made of training images of this class alone.",
        "Gaussian, mixture, training points": "posterior means of the Gaussian with the mean and covariance of the "
        "training images, of a mixture of Gaussians (one a class, or a cluster of the images of one class), and of the "
        "training images themselves.",
        "local": "each pixel has its own posterior mean, given the window around it and not the whole image.",
        "equivariant": "windows at all places of the training images count, not those at the pixel's own place alone.",
        "share missed, NMSE": "|D - D_net|^2 / |D_net - c_skip x|^2: the squared distance of a denoiser to the "
        "network, over the squared size of what the network adds to the skip of its preconditioning; 1 for the bare "
        "skip.",
        "r^2": "one minus the squared distance of two images over the squared size of the network's, less its mean "
        "over pixels.",
    },
    overrides={
        "smoke": {
            "parts": tuple(part.name for part in _PARTS if part.name not in _SLOW_TO_COMPILE),
            "data": "fashion-mnist-mini", "split": "test", "images": 30,
            "second": SecondConfig(
                network=NetworkConfig("ddpmpp", model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=()),
                training=TrainingConfig(
                    duration_kimg=0.128, batch_size=16, learning_rate=2e-3, rampup_kimg=0.01, ema_halflife_kimg=50.0
                ),
                marks=3,
            ),
        },
        "default": {},
        "paper": {"images": 6000},
    },
)  # fmt: skip

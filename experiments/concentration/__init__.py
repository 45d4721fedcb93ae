"""Do a diffusion model's samples obey concentration of measure? ``python -m experiments.concentration``

Studies a trained denoiser, or given images (``--samples``): norms along the sampler, whether its steps contract, tails
under 1-Lipschitz functions, heavy-tailed initial noise, spectra, the assumptions of the universality theorem, the
theorem itself, and what it predicts. Source: Ghane et al., arXiv 2501.07741.
"""

from experiments.concentration import (
    contraction,
    fit_size,
    norms,
    prediction,
    representations,
    spectra,
    starts,
    tails,
    theorem,
)
from experiments.concentration.subject import Options, gather, plan
from experiments.sampling import PAPER_SAMPLER, SMOKE_SAMPLER
from experiments.study import Study
from experiments.subjects import UNTRAINED

#: Parts that take long to compile; the smoke preset leaves them out.
_SLOW_TO_COMPILE = ("contraction", "tails", "starts", "representations")
_MODULES = (norms, contraction, tails, starts, spectra, representations, theorem, prediction, fit_size)
_PARTS = tuple(module.PART for module in _MODULES)
#: The twenty ImageNet classes of the paper.
_PUBLISHED_CLASSES = (
    *(0, 11, 25, 217, 281, 371, 429, 497, 566, 569),
    *(614, 671, 727, 732, 751, 871, 938, 963, 973, 980),
)

STUDY = Study(
    name="concentration",
    title="Concentration of measure",
    question="Do these samples obey concentration of measure, is the sampler a contraction, how heavy are the tails, "
    "and how far do Gaussian predictions carry?",
    options=Options,
    parts=_PARTS,
    gather=gather,
    plan=plan,
    overrides={
        "smoke": {
            "checkpoint": UNTRAINED,
            "per_class": 64,
            "parts": tuple(part.name for part in _PARTS if part.name not in _SLOW_TO_COMPILE),
            "sampler": SMOKE_SAMPLER,
        },
        "default": {},
        "paper": {
            "checkpoint": "edm-imagenet-64x64-cond-adm.pkl",
            "real": None,
            "size": None,
            "classes": _PUBLISHED_CLASSES,
            "per_class": 10240,
            "sampler": PAPER_SAMPLER,
        },
    },
)

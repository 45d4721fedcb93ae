"""Do linear classifiers trained on a diffusion model's images do as well as on a Gaussian mixture with the same class
means and covariances? ``python -m experiments.universality``

The study samples a class-conditional model (or takes given images, ``--samples``), splits the images again and again
into those that a Gaussian mixture is fitted to and those that classifiers are trained, chosen and tested on, and
compares arms: *diffusion*, *mixture*, *null* (a mixture fitted again, with the same n, to samples of the mixture: the
effect of the finite fit alone), *low rank* (a mixture fitted to fewer images than pixels) and *real*. Source: Ghane et
al., arXiv 2501.07741, Figs 5 to 8.
"""

from dgu.analysis.universality.arms import Recipe
from dgu.data.splits import SplitSizes
from experiments import train
from experiments.sampling import PAPER_SAMPLER, SMOKE_SAMPLER
from experiments.study import Study
from experiments.universality import accuracy, controls, samples, spectra, two_layer
from experiments.universality.options import Options
from experiments.universality.subject import gather, introduce, plan

STUDY = Study(
    name="universality",
    title="Gaussian universality of diffusion samples",
    question="Do linear classifiers do as well on a diffusion model's images as on a Gaussian mixture with the same "
    "class means and covariances?",
    options=Options,
    parts=(samples.PART, accuracy.PART, spectra.PART, two_layer.PART, controls.PART),
    gather=gather,
    plan=plan,
    introduce=introduce,
    overrides={
        "smoke": {
            "training": train.PRESETS["smoke"],
            "sampler": SMOKE_SAMPLER,
            "splits": SplitSizes(fit=10, train=8, validation=2, test=4),
            "low_rank_fit": 5,
            "replicates": 2,
            "training_ratios": (0.1, 0.3),
            "two_layer_ratio": 0.1,
            "subsets": 1,
            "pairs": 1,
            "recipe": Recipe(epochs=4, learning_rates=(1.0,), eval_interval=2, width=8),
            "max_predicted_dimension": 64,
        },
        "default": {},
        "paper": {
            "training": train.PRESETS["paper"],
            "checkpoint": "edm-imagenet-64x64-cond-adm.pkl",
            "real": None,
            "size": None,
            "classes": (0, 11, 25, 217, 281, 371, 429, 497, 566, 569, 614, 671, 727, 732, 751, 871, 938, 963, 973, 980),
            "sampler": PAPER_SAMPLER,
            "splits": SplitSizes(fit=4096, train=4096, validation=1024, test=1024),
            "low_rank_fit": 1024,
            "gaussian_test_factor": 1,
            "subset_sizes": (4, 10),
            "recipe": Recipe(
                epochs=600, learning_rates=(0.01, 0.03, 0.1), batch_size=128, momentum=0.0, eval_interval=5
            ),
            "pixel_range": (0.0, 1.0),
        },
    },
)

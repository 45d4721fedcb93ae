"""Distributions that samples, classes and initial noise are drawn from: Student's t, boxes, class-wise Gaussians."""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.distributions.bases import MultivariateStudentT as MultivariateStudentT
    from dgu.distributions.bases import StudentT as StudentT
    from dgu.distributions.boxes import BoxMixture as BoxMixture
    from dgu.distributions.boxes import two_boxes as two_boxes
    from dgu.distributions.class_gaussians import GaussianMixtureSampler as GaussianMixtureSampler
    from dgu.distributions.class_gaussians import class_key as class_key
    from dgu.distributions.class_gaussians import draw_gaussian as draw_gaussian
    from dgu.distributions.class_gaussians import draw_gaussians as draw_gaussians
    from dgu.distributions.class_gaussians import fit_gaussian as fit_gaussian
    from dgu.distributions.class_gaussians import fit_gaussians as fit_gaussians
    from dgu.distributions.draws import draw_examples as draw_examples
    from dgu.distributions.draws import log_densities as log_densities
    from dgu.distributions.equal_moments import equal_moments as equal_moments

load_on_use(__name__)

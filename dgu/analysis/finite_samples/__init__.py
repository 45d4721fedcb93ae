"""Theory of the Gaussian denoiser that is fitted to finitely many images.

How much do its gains differ from those of the true covariance, how much from split to split, what does that do to its
loss, to the images it makes and to the distance between the images of two fits, and how far is the fitted Gaussian
from the true one?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.finite_samples.divergence import gaussian_fit_kl as gaussian_fit_kl
    from dgu.analysis.finite_samples.effective_noise import effective_noise as effective_noise
    from dgu.analysis.finite_samples.gains import FittedGains as FittedGains
    from dgu.analysis.finite_samples.gains import fitted_gains as fitted_gains
    from dgu.analysis.finite_samples.gains import fitted_loss as fitted_loss
    from dgu.analysis.finite_samples.sampling import FittedSampling as FittedSampling
    from dgu.analysis.finite_samples.sampling import fitted_sampling as fitted_sampling

load_on_use(__name__)

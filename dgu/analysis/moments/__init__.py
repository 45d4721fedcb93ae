"""First and second moments of sets of images.

What are the mean, covariance, spectrum and principal directions of a set? Do its eigenvalues follow a power law? Do
two sets have the same moments and the same spectrum?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.moments.power_laws import power_law_fit as power_law_fit
    from dgu.analysis.moments.principal import principal_images as principal_images
    from dgu.analysis.moments.spectra import covariance_spectrum as covariance_spectrum
    from dgu.analysis.moments.spectra import gram_spectrum as gram_spectrum
    from dgu.analysis.moments.spectra import marchenko_pastur_density as marchenko_pastur_density
    from dgu.analysis.moments.spectra import marchenko_pastur_edges as marchenko_pastur_edges
    from dgu.analysis.moments.spectra import power_law as power_law
    from dgu.analysis.moments.spectra import squared_singular_values as squared_singular_values
    from dgu.analysis.moments.streaming import MomentState as MomentState
    from dgu.analysis.moments.streaming import moments as moments
    from dgu.analysis.moments.two_sample import compare_spectra as compare_spectra
    from dgu.analysis.moments.two_sample import frechet_interval as frechet_interval
    from dgu.analysis.moments.two_sample import moment_distances as moment_distances

load_on_use(__name__)

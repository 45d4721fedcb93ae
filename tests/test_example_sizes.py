"""Examples whose squares or spread have no room in the precision that they are computed in are refused, not turned to
0.
"""

import jax
import numpy as np
import pytest

from dgu import analysis as A
from dgu.analysis.concentration.tails import sub_gaussian_norm
from dgu.analysis.moments.principal import principal_images
from dgu.core.arrays import as_examples, as_jax_floats, check_squares
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser

KEY = jax.random.key(0)
ROWS = np.random.default_rng(0).standard_normal((300, 3)) * [3, 2, 1]
LABELS = np.arange(300) % 2

SINGLE = {
    "covariance_spectrum": A.covariance_spectrum,
    "squared_singular_values": lambda x: A.squared_singular_values(x, centre=True),
    "fit_gaussian": lambda x: A.fit_gaussian(x).root,
    "moments": lambda x: A.moments(x).covariance(),
    "concentration_scale": A.concentration_scale,
    "sub_gaussian_norm": sub_gaussian_norm,
    "principal_images": lambda x: principal_images(x, 2),
    "fit_mixture": lambda x: A.fit_mixture(x, 2, 1, KEY),
    "GaussianMixtureSampler": lambda x: A.GaussianMixtureSampler.fit(x, LABELS),
}
DOUBLE = {
    "knn_kl": lambda x: A.knn_kl(x, x[::-1] + 0.1 * np.abs(x).max()),
    "variance_ratio": lambda x: A.variance_ratio(x, LABELS, x, LABELS, KEY),
    "relative_distance": lambda x: A.relative_distance(x, np.ones(len(x))),
    "frechet_interval": lambda x: A.frechet_interval(x, x, KEY),
    "compare_spectra": lambda x: A.compare_spectra(x, x, KEY),
    "moment_distances": lambda x: A.moment_distances(x, x, KEY),
    "PCAFeatures": lambda x: A.PCAFeatures.fit(x, 2),
    "GaussianDenoiser": GaussianDenoiser.fit,
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_spread_that_single_precision_rounds_away_is_refused(name):
    with pytest.raises(InputError, match=r"must have their mean subtracted first \(or set jax_enable_x64\)$") as error:
        SINGLE[name](ROWS + 1e9)
    assert "differ by up to" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_squares_out_of_the_range_of_single_precision_are_refused(name, scale):
    with pytest.raises(
        InputError, match=r"^(class number 0: )?largest absolute value of \w+ = .* from 1e-15 to 1e\+15"
    ):
        SINGLE[name](ROWS * scale)


@pytest.mark.parametrize("name", DOUBLE)
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_squares_out_of_the_range_of_double_precision_are_refused(name, scale):
    with pytest.raises(InputError, match=r"^largest absolute value of \w+ = .* leave the range of float"):
        DOUBLE[name](ROWS * scale)


def test_what_single_precision_holds_passes():
    for rows in (
        ROWS,
        ROWS + 1e3,
        (ROWS * 8).round() + 2.0**20,  # Exact in float32.
        np.full((4, 2), 1e9),
        1e9 * (1 + np.finfo(float).eps * np.arange(4.0))[:, None],  # Equal but for rounding.
        np.zeros((3, 2)),
        np.array([[np.nan, 1e9], [1e9, 2e9]]),
        np.array([[1.0, 1e9], [1.0 + 1e-9, -1e9]]),  # The other column spreads.
    ):
        assert as_jax_floats("rows", rows).dtype == np.float32 and as_examples("rows", rows) is rows
    check_squares(rows=np.zeros(3), others=[1, 2], empty=np.zeros(0), infinite=[np.inf])
    with pytest.raises(InputError, match="from 1e-75 to 1e\\+75"):
        check_squares(np.float64, power=4, rows=[1e80])


def test_in_double_precision_the_spread_is_kept(x64):
    np.testing.assert_allclose(A.covariance_spectrum(ROWS + 1e9), A.covariance_spectrum(ROWS), rtol=1e-5)
    check_squares(rows=ROWS * 1e100)

"""Property checks to run on any denoiser: one's own network, a closed form, somebody's checkpoint.

``check_denoiser`` measures whether a callable keeps the denoiser contract: one example in, one example out,
deterministic, finite, traced once, blind to the rest of its batch. ``check_posterior_mean`` measures, besides, what
only a true posterior mean ``D(x, sigma) = E[x0 | x0 + sigma * eps = x]`` has. No trained network is one:
``check_network`` measures on held-out images how far off it is, beside networks known to be good. All return what they
measured and raise ``DenoiserCheckError``, which carries the same report, when a bound is passed.

    report = check_denoiser(denoiser, (32, 32, 3), jax.random.key(0))
    check_posterior_mean(denoiser, (32, 32, 3), jax.random.key(0), sample_prior=draw, asymmetry=0.2)
    print(check_network(network, held_out, jax.random.key(0), labels=classes))
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.testing.contract import Sampler as Sampler
    from dgu.testing.contract import check_denoiser as check_denoiser
    from dgu.testing.network import check_network as check_network
    from dgu.testing.network_measures import NetworkMeasures as NetworkMeasures
    from dgu.testing.network_measures import network_measures as network_measures
    from dgu.testing.network_report import NetworkReport as NetworkReport
    from dgu.testing.network_scale import NetworkScale as NetworkScale
    from dgu.testing.posterior_mean import check_posterior_mean as check_posterior_mean
    from dgu.testing.reports import DenoiserCheckError as DenoiserCheckError
    from dgu.testing.reports import DenoiserReport as DenoiserReport
    from dgu.testing.reports import PosteriorMeanReport as PosteriorMeanReport

load_on_use(__name__)

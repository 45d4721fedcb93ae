"""EDM preconditioning: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (Karras et al. 2022, Table 1)."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


class Coefficients(NamedTuple):
    """The four functions of sigma in ``D(x; sigma) = skip * x + out * F(inp * x; noise)``."""

    skip: Array
    out: Array
    inp: Array
    noise: Array


def edm_coefficients(sigma: Float[Array, "*b"], sigma_data: float = 0.5) -> Coefficients:
    """EDM's coefficients.

    ``c_skip = sd^2 / (s^2 + sd^2)``, ``c_out = s sd / sqrt(s^2 + sd^2)``, ``c_in = 1 / sqrt(s^2 + sd^2)``,
    ``c_noise = ln(s) / 4`` with ``sd = sigma_data``, the standard deviation of the data.
    """
    total = jnp.square(sigma) + sigma_data**2
    return Coefficients(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / jnp.sqrt(total),
        inp=1 / jnp.sqrt(total),
        noise=jnp.log(sigma) / 4,
    )

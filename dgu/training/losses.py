"""EDM's denoising loss for one image (Karras et al. 2022, Table 1, last rows)."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from dgu.models.edm import EDMNetwork
from dgu.typing import Event, Key, PyTree, Scalar


def edm_sigma(normal: Float[ArrayLike, "*b"], p_mean: float = -1.2, p_std: float = 1.2) -> Float[Array, "*b"]:
    """Training noise levels from standard normal draws: ``ln sigma = p_mean + p_std * normal``."""
    return jnp.exp(jnp.asarray(normal) * p_std + p_mean)


def edm_loss(
    network: EDMNetwork,
    params: PyTree,
    image: Event,
    normal: Scalar,
    noise: Event,
    labels: ArrayLike | None = None,
    augment_labels: ArrayLike | None = None,
    *,
    key: Key | None = None,
    p_mean: float = -1.2,
    p_std: float = 1.2,
) -> Event:
    """Elementwise ``w(sigma) (D(y + sigma eps; sigma, label) - y)^2`` with ``w = (sigma^2 + sd^2) / (sigma sd)^2``.

    Args:
        network: the network; its ``sigma_data`` is ``sd``.
        params: its parameters.
        image: ``y``, one image (H, W, C) in [-1, 1].
        normal: the standard normal draw behind ``sigma`` (see ``edm_sigma``).
        noise: ``eps``, standard normal, shaped like ``image``.
        labels: class index or label vector, or None.
        augment_labels: augmentation labels or None.
        key: randomness of dropout and label dropout; None evaluates the network without them.
        p_mean: mean of ``ln sigma``.
        p_std: standard deviation of ``ln sigma``.
    """
    sigma = edm_sigma(normal, p_mean, p_std).astype(image.dtype)
    sd = network.sigma_data
    weight = (sigma**2 + sd**2) / (sigma * sd) ** 2
    denoised = network.apply(params, image + sigma * noise, sigma, labels, augment_labels, key=key)
    return weight * jnp.square(denoised - image)


def sampled_edm_loss(
    network: EDMNetwork,
    params: PyTree,
    image: Event,
    labels: ArrayLike | None,
    key: Key,
    *,
    p_mean: float,
    p_std: float,
) -> Event:
    """``edm_loss`` in training mode with its noise level, noise and dropout drawn from ``key``."""
    sigma_key, noise_key, dropout_key = jax.random.split(key, 3)
    normal = jax.random.normal(sigma_key, (), image.dtype)
    noise = jax.random.normal(noise_key, (image.size,), image.dtype).reshape(image.shape)  # compiles sooner as a vector
    return edm_loss(network, params, image, normal, noise, labels, key=dropout_key, p_mean=p_mean, p_std=p_std)

"""The denoising losses for one image: EDM's three (Karras et al. 2022, Table 1, last rows), EDM2's, and that of Song's
tutorial.

Each is ``w(sigma) (D(y + sigma eps; sigma, labels) - y)^2``, elementwise; they differ in how a draw becomes ``sigma``,
and in ``w``:

    EDM    ln sigma = p_mean + p_std n                              w = (sigma^2 + sd^2) / (sigma sd)^2
    VP     sigma^2 = exp(beta_d t^2 / 2 + beta_min t) - 1, t = 1 + u (epsilon_t - 1)     w = 1 / sigma^2
    VE     sigma = sigma_min (sigma_max / sigma_min)^u              w = 1 / sigma^2
    VESDE  sigma^2 = (base^(2 t) - 1) / (2 ln base), t = epsilon_t + u (1 - epsilon_t)   w = 1 / sigma^2
    EDM2   as EDM, but w e^-u (D - y)^2 + u with the network's own log variance u(sigma) (arXiv 2312.02696, eq. 21)

with ``n`` standard normal and ``u`` uniform on [0, 1). Any of them trains a network of any preconditioning.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.keys import threefry
from dgu.core.typing import Event, Key, PyTree, Scalar
from dgu.models.edm import EDMNetwork
from dgu.training.augment import augment
from dgu.training.config import LossName


def edm_sigma(normal: Num[ArrayLike, "*b"], p_mean: float = -1.2, p_std: float = 1.2) -> Float[Array, "*b"]:
    """Training noise levels from standard normal draws: ``ln sigma = p_mean + p_std * normal``."""
    return jnp.exp(as_jax_floats("normal", normal) * p_std + p_mean)


def vp_sigma(
    uniform: Num[ArrayLike, "*b"], beta_d: float = 19.9, beta_min: float = 0.1, epsilon_t: float = 1e-5
) -> Float[Array, "*b"]:
    """Training noise levels of a variance-preserving SDE, from uniform draws: high levels for draws near 0.

    ``sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1`` at the time ``t = 1 + uniform (epsilon_t - 1)``.
    """
    time = 1 + as_jax_floats("uniform", uniform) * (epsilon_t - 1)
    return jnp.sqrt(jnp.expm1(beta_d / 2 * jnp.square(time) + beta_min * time))


def ve_sigma(uniform: Num[ArrayLike, "*b"], sigma_min: float = 0.02, sigma_max: float = 100.0) -> Float[Array, "*b"]:
    """Training noise levels of a variance-exploding SDE, from uniform draws: uniform in ``ln sigma``."""
    return jnp.exp(math.log(sigma_max / sigma_min) * as_jax_floats("uniform", uniform)) * sigma_min


def vesde_sigma(uniform: Num[ArrayLike, "*b"], base: float = 25.0, epsilon_t: float = 1e-5) -> Float[Array, "*b"]:
    """Training noise levels of ``dx = base^t dW``, from uniform draws: ``t`` is uniform from ``epsilon_t`` to 1."""
    rate = 2 * math.log(base)
    return jnp.sqrt(jnp.expm1(rate * (epsilon_t + (1 - epsilon_t) * as_jax_floats("uniform", uniform))) / rate)


def _weighted_error(
    network: EDMNetwork,
    params: PyTree,
    image: Event,
    sigma: Scalar,
    weight: Scalar,
    noise: Event,
    labels: ArrayLike | None,
    augment_labels: ArrayLike | None,
    key: Key | None,
) -> Event:
    """``weight (D(image + sigma noise; sigma, labels) - image)^2``."""
    denoised = network.apply(params, image + sigma * noise, sigma, labels, augment_labels, key=key)
    return jnp.square(denoised - image) * weight


def edm_loss(
    network: EDMNetwork,
    params: PyTree,
    image: Num[ArrayLike, "*event"],
    normal: Scalar,
    noise: Num[ArrayLike, "*event"],
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
    key = None if key is None else threefry(key)
    image, noise = as_jax_floats("image", image), as_jax_floats("noise", noise)
    sigma = edm_sigma(normal, p_mean, p_std).astype(image.dtype)
    sd = network.sigma_data
    weight = (sigma**2 + sd**2) / (sigma * sd) ** 2
    return _weighted_error(network, params, image, sigma, weight, noise, labels, augment_labels, key)


def edm2_loss(
    network: EDMNetwork,
    params: PyTree,
    image: Num[ArrayLike, "*event"],
    normal: Scalar,
    noise: Num[ArrayLike, "*event"],
    labels: ArrayLike | None = None,
    augment_labels: ArrayLike | None = None,
    *,
    key: Key | None = None,
    p_mean: float = -0.4,
    p_std: float = 1.0,
) -> Event:
    """Elementwise ``w e^-u (D - y)^2 + u``: EDM's loss, weighted by the network's own log variance ``u(sigma)``.

    At the optimum ``e^u`` is the mean of the weighted square ``w (D - y)^2`` at the level, so that every level
    contributes alike. Args are those of ``edm_loss``; the defaults of ``p_mean`` and ``p_std`` are EDM2's for latents
    of ImageNet-512 (arXiv 2312.02696, equation 21 and Table 6).

    Raises:
        InputError: a network of another architecture than EDM2's.
    """
    key = None if key is None else threefry(key)
    given = (image, normal, noise, labels, augment_labels)
    squares = edm_loss(network, params, *given, key=key, p_mean=p_mean, p_std=p_std)
    u = network.log_variance(params, edm_sigma(normal, p_mean, p_std).astype(squares.dtype))
    return squares * jnp.exp(-u) + u


def vp_loss(
    network: EDMNetwork,
    params: PyTree,
    image: Num[ArrayLike, "*event"],
    uniform: Scalar,
    noise: Num[ArrayLike, "*event"],
    labels: ArrayLike | None = None,
    augment_labels: ArrayLike | None = None,
    *,
    key: Key | None = None,
    beta_d: float = 19.9,
    beta_min: float = 0.1,
    epsilon_t: float = 1e-5,
) -> Event:
    """Elementwise ``(D(y + sigma eps; sigma, label) - y)^2 / sigma^2`` with ``sigma`` from ``vp_sigma(uniform, ...)``.

    Args are those of ``edm_loss``, but for the draw behind ``sigma``, ``uniform`` on [0, 1), and the process:
    ``beta_d``, ``beta_min``, and the earliest time ``epsilon_t``.
    """
    key = None if key is None else threefry(key)
    image, noise = as_jax_floats("image", image), as_jax_floats("noise", noise)
    sigma = vp_sigma(uniform, beta_d, beta_min, epsilon_t).astype(image.dtype)
    return _weighted_error(network, params, image, sigma, sigma**-2.0, noise, labels, augment_labels, key)


def ve_loss(
    network: EDMNetwork,
    params: PyTree,
    image: Num[ArrayLike, "*event"],
    uniform: Scalar,
    noise: Num[ArrayLike, "*event"],
    labels: ArrayLike | None = None,
    augment_labels: ArrayLike | None = None,
    *,
    key: Key | None = None,
    sigma_min: float = 0.02,
    sigma_max: float = 100.0,
) -> Event:
    """Elementwise ``(D(y + sigma eps; sigma, label) - y)^2 / sigma^2`` with ``sigma`` from ``ve_sigma(uniform, ...)``.

    Args are those of ``edm_loss``, but for the draw behind ``sigma``, ``uniform`` on [0, 1), and the range of
    ``sigma``.
    """
    key = None if key is None else threefry(key)
    image, noise = as_jax_floats("image", image), as_jax_floats("noise", noise)
    sigma = ve_sigma(uniform, sigma_min, sigma_max).astype(image.dtype)
    return _weighted_error(network, params, image, sigma, sigma**-2.0, noise, labels, augment_labels, key)


def vesde_loss(
    network: EDMNetwork,
    params: PyTree,
    image: Num[ArrayLike, "*event"],
    uniform: Scalar,
    noise: Num[ArrayLike, "*event"],
    labels: ArrayLike | None = None,
    augment_labels: ArrayLike | None = None,
    *,
    key: Key | None = None,
    base: float = 25.0,
    epsilon_t: float = 1e-5,
) -> Event:
    """Elementwise ``(std score + eps)^2 = (D(y + sigma eps; sigma) - y)^2 / sigma^2`` with ``sigma`` from
    ``vesde_sigma``.

    Equation 5 of arXiv 2311.01797 with ``lambda = std^2``, elementwise. Args are those of ``vp_loss``, but for the
    process.
    """
    key = None if key is None else threefry(key)
    image, noise = as_jax_floats("image", image), as_jax_floats("noise", noise)
    sigma = vesde_sigma(uniform, base, epsilon_t).astype(image.dtype)
    return _weighted_error(network, params, image, sigma, sigma**-2.0, noise, labels, augment_labels, key)


def sampled_loss(
    network: EDMNetwork,
    params: PyTree,
    image: Event,
    labels: ArrayLike | None,
    key: Key,
    *,
    loss: LossName = "edm",
    p_mean: float = -1.2,
    p_std: float = 1.2,
    augment_probability: float = 0.0,
) -> Event:
    """A loss in training mode, with its noise level, noise, dropout and augmentation drawn from ``key``.

    Args:
        network: the network; it takes augmentation labels if ``augment_probability`` is positive.
        params: its parameters.
        image: one image (H, W, C) in [-1, 1].
        labels: class index or label vector, or None.
        key: key of this image.
        loss: name of the loss; all but EDM's and EDM2's use their default processes.
        p_mean: mean of ``ln sigma`` for EDM and EDM2.
        p_std: standard deviation of ``ln sigma`` for EDM and EDM2.
        augment_probability: see ``dgu.training.augment``; with 0 the image stays as it is and no labels are given.
    """
    key = threefry(key)
    sigma_key, noise_key, dropout_key, augment_key = jax.random.split(key, 4)
    augment_labels = None
    if augment_probability:
        image, augment_labels = augment(image, augment_key, augment_probability)
    noise = jax.random.normal(noise_key, (image.size,), image.dtype).reshape(image.shape)  # compiles sooner as a vector
    given = (noise, labels, augment_labels)
    if loss in ("edm", "edm2"):
        normal = jax.random.normal(sigma_key, (), image.dtype)
        one = edm_loss if loss == "edm" else edm2_loss
        return one(network, params, image, normal, *given, key=dropout_key, p_mean=p_mean, p_std=p_std)
    uniform = jax.random.uniform(sigma_key, (), image.dtype)
    kinds: dict[str, Callable[..., Any]] = {"vp": vp_loss, "ve": ve_loss, "vesde": vesde_loss}
    return kinds[loss](network, params, image, uniform, *given, key=dropout_key)

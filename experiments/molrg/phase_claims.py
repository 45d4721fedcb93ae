"""What the study says of subspace recovery: closed forms, phase transitions, bounds on errors, samples of a mixture."""

import numpy as np

from experiments.molrg import phase_equivalence
from experiments.molrg.phase_arms import LONG, SHORT, WEIGHTS, Config
from experiments.study import Claim, all_of, at_least, at_most, equivalent, within

#: Name of the phase map for each number of subspaces, and the paper's figure.
MAPS = {1: ("one", "Fig 2"), 2: ("two", "Fig 3"), 3: ("three", "Fig 6")}
#: Id of the claim on each kind of random initial columns, and the kind in words.
RANDOM_CLAIMS = {
    SHORT: ("phase-random-start", "columns of unit length"),
    LONG: ("phase-random-start-long", "columns with standard normal entries"),
}
_SUCCESSES = "(value: the share of trials that find the subspaces)"
_EXCEPTIONS = "(value: the share of trials that contradict this)"
#: Largest relative difference of the denoising loss from its closed form, and distances up to which subspaces agree.
_LOSS, _APART = 0.01, 0.01
#: Shares of exceptions and of successes: of PCA, the K-subspaces method, and SGD from columns near the truth or random.
_PCA, _K_SUBSPACES, _SGD, _RANDOM = (0.005, 0.95, 0.01), (0.01, 0.9), (0.05, 0.8), 0.2
#: Share of cells in which the dimension of the space may matter; gain in successes by orthonormal columns.
_OTHER, _GAIN = 0.05, 0.2
#: Ratio of the distance of projectors to sqrt(2 (d - N)).
_RATIO = (0.9, 1.02)


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        *_closed_form_claims(),
        *transition_claims(config),
        bound_claim("phase-bound-one", "Theorem 2", "PCA"),
        bound_claim("phase-bound-many", "Theorem 4", "the K-subspaces method (K = 2)"),
        _samples_claim(config.samples),
        phase_equivalence.claim(),
    )


def _closed_form_claims() -> tuple[Claim, ...]:
    """Tweedie's identity, and what the minimum of the denoising loss is."""
    tweedie = (
        "The closed forms of posterior mean and density, for a mixture of low-rank Gaussians that differ in "
        "rank, mean and variances, satisfy Tweedie's identity, s E[x0 | x] = x + sigma^2 grad log p(x) with s the "
        "scale of the process, in float64 (value: the largest deviation)."
    )
    drawn = (
        "The denoising loss of a single subspace, averaged over drawn noise, equals its closed form, within "
        f"{100 * _LOSS:g} % (value: drawn over closed form, minus 1)."
    )
    minimum = (
        "Gradient descent over orthonormal columns on the closed form of the denoising loss converges to the subspace "
        "that PCA finds (value: the largest spectral norm of the projectors' difference over random starts)."
    )
    parts = all_of(
        Claim("phase-exact-loss-drawn", drawn, equivalent(_LOSS), "Theorem 1"),
        Claim("phase-exact-loss-minimum", minimum, at_most(_APART), "Theorem 1"),
    )
    pca = (
        "Training the denoiser of a single subspace is principal component analysis (PCA). (Two parts: the loss "
        f"averaged over drawn noise is its closed form, within {100 * _LOSS:g} %; gradient descent on the closed form "
        f"ends at most {_APART:g}, in the largest distance of the projectors, from the subspace that PCA finds.)"
    )
    return (
        Claim("phase-tweedie", tweedie, at_most(1e-10), "equation 4", check=True),
        Claim("phase-exact-loss", pca, parts, "Theorem 1"),
    )


def transition_claims(config: Config) -> tuple[Claim, ...]:
    """Where each method succeeds."""
    noise, steps = f"noise of standard deviation {config.noise:g}", f"{config.steps:,} steps of SGD"
    noisy, one = f"With {noise},", MAPS[1][1]
    clean = f"Without noise, PCA succeeds exactly where N >= d {_EXCEPTIONS}."
    exceptions, above, below = _PCA
    pca = (
        Claim("phase-pca-clean", clean, at_most(exceptions), one, check=True),
        Claim("phase-pca-above", f"{noisy} PCA succeeds at N = d + 2 {_SUCCESSES}.", at_least(above), one),
        Claim("phase-pca-below", f"{noisy} PCA fails where N < d {_SUCCESSES}.", at_most(below), one),
    )
    if_pca = (
        "PCA finds a subspace of dimension d from N points on it if and only if N >= d. (Three parts: without noise, "
        f"the share of trials that are exceptions is at most {exceptions:g}; with {noise}, the share of trials that "
        f"find it is at least {above:g} at N = d + 2 and at most {below:g} where N < d.)"
    )
    k_subspaces, sgd = [], []
    for k in (2, 3):
        method, source = f"K-subspaces with K = {k}", MAPS[k][1]
        exact = f"Without noise, {method} and d >= 3 succeeds exactly where N >= d {_EXCEPTIONS}."
        two_more = f"{noisy} {method} succeeds at N = d + 2 {_SUCCESSES}."
        k_subspaces += [
            Claim(f"phase-k-subspaces-{k}-clean", exact, at_most(_K_SUBSPACES[0]), source),
            Claim(f"phase-k-subspaces-{k}-noisy", two_more, at_least(_K_SUBSPACES[1]), source),
        ]
    if_k = (
        "The K-subspaces method finds K subspaces of dimension d from N points on each if and only if N >= d. (Two "
        "parts for K = 2 and two for K = 3: without noise and for d >= 3, the share of trials that are exceptions is "
        f"at most {_K_SUBSPACES[0]:g}; with {noise}, at N = d + 2, the share that find them is at least "
        f"{_K_SUBSPACES[1]:g}.)"
    )
    for k, (_, source) in MAPS.items():
        method = f"SGD on the denoising loss with K = {k}"
        few, many = f"{method} fails at N = d - 1 {_SUCCESSES}.", f"{method} succeeds at N = d + 3 {_SUCCESSES}."
        sgd += [
            Claim(f"phase-sgd-{k}-below", few, at_most(_SGD[0]), source),
            Claim(f"phase-sgd-{k}-above", many, at_least(_SGD[1]), source),
        ]
    near = (
        f"{steps} on the denoising loss, which for K > 1 begin near the true subspaces, find K subspaces of dimension "
        "d from N points on each only if N is about d or more. (Two parts each for K = 1, 2 and 3: the share of trials "
        f"that find them is at most {_SGD[0]:g} at N = d - 1, and at least {_SGD[1]:g} at N = d + 3.)"
    )
    dimension = (
        "Whether PCA finds a subspace of dimension d from N points on it does not depend on the dimension of the "
        f"space, {config.dimension} or {2 * config.dimension} (value: the share of the pairs of d and N in which any "
        f"trial has another outcome, which is at most {_OTHER:g})."
    )
    random = (
        f"From random initial {{}}, {steps} on the denoising loss seldom find two subspaces, even with N >= d points "
        f"on each: the share of trials that do is at most {_RANDOM:g}."
    )
    straighten = (
        "The columns that SGD finds should be made orthonormal before they are compared with the true subspace: at d = "
        f"{config.ranks[-1]}, N = {config.sizes[-1]} this raises the share of trials that find it by at least "
        f"{_GAIN:g} (value: the share with minus the share without)."
    )
    return (
        Claim("phase-pca", if_pca, all_of(*pca), one),
        Claim("phase-dimension", dimension, at_most(_OTHER), one),
        Claim("phase-k-subspaces", if_k, all_of(*k_subspaces), "Figs 3 and 6"),
        Claim("phase-sgd", near, all_of(*sgd), "Figs 2, 3 and 6"),
        *(Claim(name, random.format(kind), at_most(_RANDOM), "equation 45") for name, kind in RANDOM_CLAIMS.values()),
        Claim("phase-straighten", straighten, at_least(_GAIN), "Algorithm 1", paper="own"),
    )


def bound_claim(claim: str, source: str, method: str) -> Claim:
    """The claim ``claim``, that the error of a method obeys the bounds of a theorem."""
    above = (
        f"For {method} and N >= d, with the bound's constant fitted on the smaller dimensions d, the larger ones "
        "violate the bound no more often than the theorem allows (value: the share of violations minus the allowed "
        "share)."
    )
    below = (
        f"For {method} and N < d, the Frobenius distance between the estimated and the true projector is sqrt(2 (d - "
        "N)) (value: the ratio of the two; directions that the points leave undetermined may agree with the true ones "
        "by chance)."
    )
    parts = all_of(
        Claim(f"{claim}-above", above, at_most(0.0), source),
        Claim(f"{claim}-below", below, within(*_RATIO), source),
    )
    both = (
        f"The subspaces of dimension d that {method} finds from N noisy points on each are as near to the true ones as "
        f"{source} says. (Two parts: where N >= d, with the bound's constant fitted on the smaller dimensions d, the "
        "larger ones violate the bound no more often than the theorem allows; where N < d, the projectors' Frobenius "
        f"distance is {_RATIO[0]:g} to {_RATIO[1]:g} times sqrt(2 (d - N)).)"
    )
    return Claim(claim, both, parts, source)


def _samples_claim(count: int) -> Claim:
    """Samples lie on the subspaces, as many on each as its weight says."""
    near = "Every sample lies on one of the mixture's subspaces (value: the largest distance to the nearest subspace)."
    often = (
        f"Among {count:,} samples, components occur as often as their weights say, to 3 standard errors (value: the "
        "share of the first component minus its weight)."
    )
    error = float(np.sqrt(WEIGHTS[0] * (1 - WEIGHTS[0]) / count))
    parts = all_of(
        Claim("phase-samples-near", near, at_most(_APART), "Lemma 1"),
        # The difference lies within 3 standard errors: its 95 % interval inside 5.
        Claim("phase-samples-share", often, equivalent(5 * error), "Lemma 1"),
    )
    whole = (
        "Heun's method with the exact posterior mean of a mixture of low-rank Gaussians samples that mixture. (Two "
        f"parts: every sample lies within {_APART:g} of one of the subspaces; among {count:,} samples, the share on "
        "the first subspace is its weight to 3 standard errors, so that the 95 % interval of their difference lies "
        "inside 5.)"
    )
    return Claim("phase-samples", whole, parts, "Lemma 1")

"""What the checks of a denoiser measured, and the exception that carries it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgu.testing.network_report import NetworkReport


class DenoiserCheckError(AssertionError):
    """A measured defect passed its bound. ``report`` holds all measurements, ``report.defects`` one line per defect."""

    def __init__(self, report: "DenoiserReport | PosteriorMeanReport | NetworkReport"):
        self.report = report
        super().__init__("the denoiser fails:\n" + "\n".join(f"- {line}" for line in report.defects))


@dataclass(frozen=True)
class DenoiserReport:
    """What ``check_denoiser`` measured; None where an earlier defect made it unmeasurable.

    A difference is the largest absolute difference over the largest magnitude of any output.
    """

    #: One line per defect past its bound, beginning with the name of the field; empty for a sound denoiser.
    defects: tuple[str, ...] = ()
    #: Shape and dtype of the output.
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    #: Noise levels at which an output is not finite.
    non_finite: tuple[float, ...] = ()
    #: Difference between two eager calls with the same input, other calls in between.
    repeat: float | None = None
    #: Difference between the eager and the jitted call.
    eager_jit: float | None = None
    #: Traces taken by calls with other values, and with the denoiser rebuilt from its leaves.
    traces: int | None = None
    #: Names of the primitives in the denoiser that draw random numbers.
    random_draws: tuple[str, ...] = ()
    #: Difference between ``vmap`` (one sigma per example) and a loop.
    vmap_loop: float | None = None
    #: Whether derivatives can be taken: forwards (``jax.jvp``), and backwards (``jax.vjp``, for likelihoods, Jacobians,
    #: training). One that cannot is no defect in itself: samplers need none.
    forward: bool | None = None
    backward: bool | None = None
    #: ``|u.Jv - v.J'u| / |Jv|`` for random u and v, where both can be taken.
    transpose: float | None = None
    #: Change of one example's output when the other examples of the batch change.
    batch_coupling: float | None = None
    #: Difference between samples drawn together and the same samples drawn alone, reversed and in other company.
    sample_coupling: float | None = None
    #: Fraction of pairs of samples that are equal.
    equal_samples: float | None = None


@dataclass(frozen=True)
class PosteriorMeanReport:
    """What ``check_posterior_mean`` measured; a field is None where what it needs was not given."""

    #: One line per defect past its bound, those of ``denoiser`` included.
    defects: tuple[str, ...]
    denoiser: DenoiserReport
    #: ``|J - J^T| / |J|`` in the Frobenius norm over the probed directions; largest over noise levels and points. Where
    #: ``J`` is below what rounding makes of ``|x0|^2 / sigma^2``, that stands in the denominator, as in ``negativity``.
    asymmetry: float | None = None
    #: ``max(0, -smallest) / largest`` eigenvalue of the symmetric part of the Jacobian.
    negativity: float | None = None
    #: ``rms(D(x0, sigma) - x0) / sigma`` at the smallest sigma, largest over the points of the support.
    identity: float | None = None
    #: ``rms(D(x) - D(x')) / rms(x - x')`` for two noises at the largest sigma: 0 when the input is forgotten.
    spread: float | None = None
    #: rms of ``(D(mean + sigma eps) + D(mean - sigma eps)) / 2 - mean`` at the largest sigma over the data's magnitude.
    mean_bias: float | None = None
    #: Largest ``|D - (x + sigma^2 grad log p)|`` over the data's magnitude.
    tweedie: float | None = None
    #: ``E[(x0 - D) . D]`` in standard errors; the largest absolute value over noise levels.
    wiener: float | None = None


def past_bounds(report: Any, bounds: dict[str, float], meaning: dict[str, str]) -> list[str]:
    """One line for each measured field that is not within its bound; NaN is not within any."""
    measured = {name: getattr(report, name) for name in bounds}
    return [
        f"{name}: {meaning[name]}: {measured[name]:.3g}, bound {bound:.3g}"
        for name, bound in bounds.items()
        if measured[name] is not None and not measured[name] <= bound
    ]


def raised(name: str, error: Exception) -> str:
    """The line of a defect that showed as an exception: its type, and the first line of what it says."""
    return f"{name}: raised {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

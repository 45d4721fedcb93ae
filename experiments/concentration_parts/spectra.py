"""Spectra (Figs 6 and 8): power laws with intervals, the finite-fit null, eigenvectors, and the assumptions of Theorem 1."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.resampling import t_interval
from dgu.analysis.universality.arms import gaussian_arms
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from experiments.concentration_parts.subject import PAPER, Plan, Subject
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Spectra and the assumptions of Theorem 1"
CLAIM_IDS = (
    "spectra-power-law",
    "spectra-exponent-mixture",
    "spectra-planted",
    "spectra-white-edges",
    "spectra-gram-identity",
    "assumption-mean",
    "assumption-moments",
    "assumption-quadratic-forms",
    "assumption-smallest-singular-value",
)
FIGURE_FILES = (
    "figures/power_laws.png",
    "figures/gram_null.png",
    "figures/eigenvectors.png",
    "figures/white_spectra.png",
    "figures/assumptions.png",
)
#: Fewest images of each class: half of them must leave five ranks for a line.
MIN_IMAGES = 64
#: Rows, numbers and exponent of the planted power law.
PLANTED = (160, 40, 1.2)


@dataclass(frozen=True)
class Config:
    """Covariance and Gram spectra of the samples, and Theorem 1's assumptions on them."""

    draws: int = 24
    """Simulated spectra in each round of a power-law fit, 10 or more."""
    planted: int = 300
    """Sets with a planted power law that the coverage of the interval is counted on, 20 or more."""
    white_sets: int = 20
    """White data sets whose edges are compared with Marchenko and Pastur's, 2 or more."""
    straight: float = 0.3
    """Difference of the exponent between the halves of a range up to which a spectrum counts as a power law."""
    exponent_margin: float = 0.1
    """Differences of exponents below this count as none."""
    factor: float = 3.0
    """Assumptions hold that are within this factor of white Gaussian data's; the mean's length is held to it as such."""
    eigenvectors: int = 8
    """Eigenvectors shown of each class, 1 or more."""

    def __post_init__(self) -> None:
        check_options(
            self, "spectra", draws=10, planted=20, white_sets=2, straight="(0, inf)", exponent_margin="(0, inf)", factor="(1, inf)",
            eigenvectors=1,
        )  # fmt: skip


PRESETS = {
    "smoke": Config(draws=10, planted=20, white_sets=2, eigenvectors=4),
    "default": Config(),
    "paper": Config(draws=20, white_sets=100),
}


def check(config: Config, per_class: int, shown: str = "per_class") -> None:
    """``InputError`` where there are too few images of each class."""
    require(per_class >= MIN_IMAGES, shown, per_class, f"{MIN_IMAGES} or more for spectra")


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section:
    """Spectra and assumptions class by class, in samples, their Gaussian mixture and real images, with controls."""
    key = stream(seeded(seed), "spectra")
    found = [
        directory.stage(f"spectra/class-{label}", partial(_class_spectra, config, key, subject, number))
        for number, label in enumerate(subject.labels)
    ]
    gram = directory.stage("spectra/gram", partial(_gram, key, subject))
    planted = directory.stage("spectra/planted", partial(_planted, config, key))
    white = directory.stage("spectra/white", partial(_white, config, subject))
    names = subject.class_names
    principal = [analysis.principal_images(images, min(config.eigenvectors, int(np.prod(subject.shape)))) for images in subject.images]  # fmt: skip

    _figures(config, subject, directory, found, gram, white, principal)
    claims = _claims(config, subject, found, planted, white)
    by_id = {claim.id: claim for claim in claims}
    exponents = np.stack([one["samples.exponent"] for one in found])
    first, last = found[0]["samples.range"]
    failing = [claim.id.removeprefix("assumption-").replace("-", " ") for claim in claims if claim.id.startswith("assumption") and claim.verdict == "not supported"]  # fmt: skip
    answer = (
        f"Covariance eigenvalues of a class fall like rank^-{exponents[:, 0].min():.2f} to rank^-{exponents[:, 0].max():.2f} over ranks {first:.0f} to {last:.0f}; "
        f"the exponent of the Gaussian mixture differs by {by_id['spectra-exponent-mixture'].value:+.3f} after correction by the null. "
        + (f"Of the assumptions of Theorem 1 these fail on the samples: {', '.join(failing)}." if failing else "No assumption of Theorem 1 is found to fail on the samples.")
    )  # fmt: skip
    arms = [arm for arm in ("samples", "mixture", "null", "real") if f"{arm}.exponent" in found[0]]
    rows = [
        (names[k], *(_shown(found[k][f"{arm}.exponent"]) for arm in arms), _shown(found[k]["samples.bend"]), float(found[k]["samples.inflation"]))
        for k in range(len(names))
    ]  # fmt: skip
    explained = [(names[k], *(f"{share:.1%}" for share in principal[k].explained[:4])) for k in range(len(names))]
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], f"Covariance spectra of each class and the power laws fitted to ranks {first:.0f} to {last:.0f} (a rule that looks at n and d alone), with exponents of half of the samples (Fig 6). Mixture: Gaussian fitted to the other half."),
            FigureEntry(FIGURE_FILES[1], "Gram spectrum of the balanced mixture of classes (Fig 8), uncentred, for samples, the Gaussian mixture fitted to the other half of them, and the null, a mixture fitted to as many draws of the mixture. Null over mixture is what the finite fit alone does."),
            FigureEntry(FIGURE_FILES[2], "Mean and leading eigenvectors of each class's samples; white and black are the ends of each picture's own range."),
            FigureEntry(FIGURE_FILES[3], "Eigenvalues of white data with the Marchenko-Pastur density, for more rows than numbers and for fewer."),
            FigureEntry(FIGURE_FILES[4], "The assumptions of Theorem 1 on each class's samples, in units of white Gaussian data of the same size, for which they hold."),
        ],
        [
            Table("Exponents of the covariance spectra, with 95 % intervals", ("class", *arms, "bend of the samples'", "inflation"), rows),
            Table("Variance explained by the leading eigenvectors", ("class", "first", "second", "third", "fourth")[: 1 + len(explained[0][1:])], explained),
            _assumption_table(found[0], names[0]),
        ],
        {
            "exponent": {arm: [one[f"{arm}.exponent"].tolist() for one in found] for arm in arms},
            "bend": [one["samples.bend"].tolist() for one in found],
            "range": [int(first), int(last)],
            "assumptions": {str(name): [one["assumptions"][place].tolist() for one in found] for place, name in enumerate(found[0]["assumption_names"])},
        },
    )  # fmt: skip


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Singular values of each class in each arm, and the simulated spectra of the fits."""
    d, n = int(np.prod(plan.shape)), plan.per_class // 2
    small, large = min(n, d), max(n, d)
    fits = 4 * plan.classes  # samples, mixture, null, real
    flop = fits * (4.0 * small**2 * large + 2 * config.draws * 10 * small**3)
    return [Cost("spectra", flop=flop, memory=4.0 * 4 * n * d * plan.classes, disk=plan.classes * 4 * 4 * small)]


def _shown(values: np.ndarray) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


def _class_spectra(config: Config, key: Any, subject: Subject, number: int) -> dict[str, np.ndarray]:
    """Fits of half of the samples, of the Gaussian fitted to the other half, of the null, fitted to as many draws of that Gaussian, and
    of real images; the assumptions on all samples."""
    flat = subject.images[number].reshape(len(subject.images[number]), -1)
    half, own = len(flat) // 2, stream(key, "class", number)
    drawn = gaussian_arms(flat[None, half : 2 * half], stream(own, "arms"), half)
    arms = {"samples": flat[:half]} | {name: np.asarray(drawn[name][0]) for name in ("mixture", "null")}
    if subject.real is not None and subject.real.shape[1] >= half:
        # As many real images as samples: the eigenvalues of a sample depend on its number.
        arms["real"] = subject.real[number][:half].reshape(half, -1)
    out: dict[str, np.ndarray] = {}
    for arm, rows in arms.items():
        fit = analysis.power_law_fit(rows, stream(own, "fit", arm), draws=config.draws)
        out |= {
            f"{arm}.exponent": np.array([fit.exponent.value, fit.exponent.low, fit.exponent.high]),
            f"{arm}.bend": np.array([fit.bend.value, fit.bend.low, fit.bend.high]),
            f"{arm}.law": np.array([fit.prefactor, fit.line]),
            f"{arm}.range": np.array([fit.first, fit.last]),
            f"{arm}.inflation": np.array(fit.inflation),
            f"{arm}.spectrum": fit.spectrum,
        }
    assumptions = analysis.theorem_assumptions(flat, stream(own, "assumptions"))
    out["assumption_names"] = np.array([one.name for one in assumptions])
    out["assumption_wanted"] = np.array([one.wanted for one in assumptions])
    out["white"] = np.array([one.white for one in assumptions])
    out["assumptions"] = np.array([[one.estimate.value, one.estimate.low, one.estimate.high] for one in assumptions])
    return out


def _gram(key: Any, subject: Subject) -> dict[str, np.ndarray]:
    """Gram spectra of samples, mixture and null, as many rows of each."""
    flat = subject.images.reshape(*subject.images.shape[:2], -1)
    half = flat.shape[1] // 2
    arms = gaussian_arms(flat[:, half : 2 * half], stream(key, "gram"), half)
    labels = np.repeat(np.arange(len(flat)), half)
    rows = {"diffusion": flat[:, :half]} | {name: np.asarray(arms[name]) for name in ("mixture", "null")}
    return {name: analysis.gram_spectrum(x.reshape(-1, x.shape[-1]), labels, half) for name, x in rows.items()}


def _planted(config: Config, key: Any) -> dict[str, np.ndarray]:
    """Intervals of the exponent on Gaussian sets with a planted one: (sets, 2)."""
    n, d, exponent = PLANTED
    own, scales = stream(key, "planted"), np.arange(1, d + 1) ** (-exponent / 2)
    normal = np.asarray(jax.random.normal(own, (config.planted, n, d)))
    fits = [
        analysis.power_law_fit((rows * scales).astype(np.float32), stream(own, number), draws=config.draws).exponent
        for number, rows in enumerate(normal)
    ]
    return {"intervals": np.array([[fit.low, fit.high] for fit in fits])}


def _white(config: Config, subject: Subject) -> dict[str, np.ndarray]:
    """Eigenvalues of white sets of d and of n numbers as the samples have (n above d and below), and the largest relative difference
    between (n - 1) times covariance eigenvalues and those of the centred Gram matrix, in double precision."""
    d = int(np.prod(subject.shape))
    d = min(d, 200)
    out = {}
    for name, (n, width) in {"more": (4 * d + 1, d), "fewer": (d + 1, 4 * d)}.items():
        rng = np.random.default_rng(11)
        sets = rng.normal(size=(config.white_sets, n, width))
        short = sets - sets.mean(axis=1, keepdims=True)
        gram = short.transpose(0, 2, 1) @ short if n > width else short @ short.transpose(0, 2, 1)
        out[f"{name}.eigenvalues"] = np.linalg.eigvalsh(gram)[:, ::-1][:, : min(n - 1, width)] / (n - 1)
        out[f"{name}.sizes"] = np.array([n - 1, width])
    rows = subject.images[0].reshape(subject.images.shape[1], -1).astype(np.float64)
    rows = rows[: min(len(rows), 500)]
    spectrum = analysis.covariance_spectrum(rows, dtype="float64")
    centred = rows - rows.mean(axis=0)
    gram = np.linalg.eigvalsh(centred @ centred.T)[::-1][: len(spectrum)]
    # Pixels that are the same in every image leave eigenvalues that are zero but for rounding.
    kept = spectrum > 1e-6 * spectrum[0]
    out["identity"] = np.abs(spectrum[kept] * (len(rows) - 1) / gram[kept] - 1).max()
    return out


def _figures(
    config: Config, subject: Subject, directory: RunDirectory, found: list, gram: dict, white: dict, principal: list
) -> None:
    labels = {"diffusion": "samples", "mixture": "Gaussian mixture", "null": "null: mixture of the mixture"}
    panels = []
    for name, one in zip(subject.class_names[:10], found):
        arms = {"diffusion": "samples", "mixture": "mixture"} | ({"real": "real"} if "real.law" in one else {})
        first, last = (int(rank) for rank in one["samples.range"])
        prefactor, line = (float(value) for value in one["samples.law"])
        laws = {"diffusion": (prefactor, line, first, last)}
        e = one["samples.exponent"]
        text = f"exponent {e[0]:.2f}\n[{e[1]:.2f}, {e[2]:.2f}]"
        panels.append(plots.PowerLawPanel(name, {arm: one[f"{of}.spectrum"] for arm, of in arms.items()}, laws, text))
    directory.save_figure(FIGURE_FILES[0], plots.power_laws(panels, labels=labels))
    directory.save_figure(
        FIGURE_FILES[1],
        plots.spectra(
            [plots.SpectrumPanel(f"balanced mixture of {len(found)} class{'es' if len(found) > 1 else ''}", gram)],
            ratios=(("mixture", "diffusion"), ("null", "mixture")),
            labels=labels,
        ),
    )
    pictures = [np.concatenate([_stretched(one.mean)[None], *(_stretched(v)[None] for v in one.vectors)]) for one in principal[:10]]  # fmt: skip
    shown = np.stack(pictures)
    rows = list(subject.class_names[:10])
    columns = ["mean", *(str(number) for number in range(1, shown.shape[1]))]
    shown = shown if shown.shape[-1] in (1, 3) else shown[..., :1]
    directory.save_figure(FIGURE_FILES[2], plots.image_grid(shown, rows, columns))
    whites = []
    for name, title in (("more", "more rows than numbers"), ("fewer", "fewer rows than numbers")):
        n, d = (int(size) for size in white[f"{name}.sizes"])
        low, high = analysis.marchenko_pastur_edges(n, d)
        x = np.linspace(low, high, 400)
        density = analysis.marchenko_pastur_density(x, n, d)
        whites.append(plots.WhitePanel(f"{title}: n = {n + 1}, d = {d}", white[f"{name}.eigenvalues"], x, density))
    directory.save_figure(FIGURE_FILES[3], plots.white_spectra(whites))
    kept = np.flatnonzero(found[0]["white"] > 0)
    ratios = np.stack([one["assumptions"][kept] / one["white"][kept, None] for one in found])
    names = [str(found[0]["assumption_names"][place]) for place in kept]
    directory.save_figure(
        FIGURE_FILES[4], plots.assumption_ratios(names, ratios, factor=config.factor, classes=subject.class_names)
    )


def _stretched(image: np.ndarray) -> np.ndarray:
    """In [-1, 1] about the middle of its own range."""
    low, high = float(image.min()), float(image.max())
    return (2 * (image - low) / max(high - low, 1e-12) - 1).astype(np.float32)


def _assumption_table(one: dict[str, np.ndarray], name: str) -> Table:
    rows = [
        (str(title), str(wanted), _shown_small(values), f"{white:.3g}" if white else "-")
        for title, wanted, values, white in zip(
            one["assumption_names"], one["assumption_wanted"], one["assumptions"], one["white"]
        )
    ]
    return Table(
        f"The assumptions of Theorem 1 on {name}", ("quantity", "wanted", "measured", "white Gaussian data"), rows
    )


def _shown_small(values: np.ndarray) -> str:
    return f"{values[0]:.3g} [{values[1]:.3g}, {values[2]:.3g}]"


def _claims(config: Config, subject: Subject, found: list[dict], planted: dict, white: dict) -> list[JudgedClaim]:
    n, d, exponent = PLANTED
    covered = analysis.proportion((planted["intervals"][:, 0] <= exponent) & (exponent <= planted["intervals"][:, 1]))
    identity = float(white["identity"])
    return [
        JudgedClaim.all_of(
            [
                JudgedClaim.equivalent(
                    id=f"spectra-power-law-{name}",
                    paper="own",
                    figure="",
                    statement=f"{name}: exponent of the upper half of the ranks minus that of the lower half",
                    estimate=float(one["samples.bend"][0]),
                    interval=(float(one["samples.bend"][1]), float(one["samples.bend"][2])),
                    margin=config.straight,
                    unit="",
                )
                for name, one in zip(subject.class_names, found)
            ],
            id="spectra-power-law",
            paper=PAPER,
            figure="Fig 6",
            statement="The covariance spectrum of each class is a power law: its exponent is the same in both halves of the range of ranks.",
        ),
        _exponent_claim(config, found),
        JudgedClaim.within(
            id="spectra-planted",
            paper="own",
            figure="control",
            statement=f"The 95 % interval of the exponent holds a planted one (Gaussian data, n = {n}, d = {d}, exponent {exponent:g}).",
            value=float(covered.value),
            interval=(float(covered.low), float(covered.high)),
            low=0.90,
            high=0.99,
            unit="of sets",
        ),
        _white_claim(white),
        JudgedClaim.at_most(
            id="spectra-gram-identity",
            paper="own",
            figure="control",
            statement="(n - 1) times the covariance eigenvalues of the first class equal the non-zero eigenvalues of its centred Gram matrix (largest relative difference).",
            value=identity,
            interval=(identity, identity),
            exact=True,  # The error of a deterministic computation.
            threshold=1e-8,
            unit="",
        ),
        *_assumption_claims(config, subject, found),
    ]


def _exponent_claim(config: Config, found: list[dict]) -> JudgedClaim:
    """Mixture minus samples, less null minus mixture: a mean over classes; with one class its own standard errors stand in for the
    spread."""
    arms = {"mixture": 2.0, "samples": -1.0, "null": -1.0}
    differences = np.array([sum(sign * one[f"{arm}.exponent"][0] for arm, sign in arms.items()) for one in found])
    over = "mean over classes" if len(differences) > 1 else "of one class"
    if len(differences) > 1:
        interval = t_interval(differences)
        value, low, high = (float(part) for part in (interval.estimate, interval.low, interval.high))
    else:
        errors = [sign * np.ptp(found[0][f"{arm}.exponent"][1:]) / 2 for arm, sign in arms.items()]
        value, half = float(differences[0]), float(np.linalg.norm(errors))
        low, high = value - half, value + half
    return JudgedClaim.equivalent(
        id="spectra-exponent-mixture",
        paper=PAPER,
        figure="Fig 6",
        statement=f"The Gaussian mixture's exponent differs from the samples' as the null's from the mixture's: by what the finite fit alone does ({over}).",
        estimate=value,
        interval=(low, high),
        margin=config.exponent_margin,
        unit="",
    )


def _white_claim(white: dict) -> JudgedClaim:
    parts = []
    for name in ("more", "fewer"):
        n, d = (int(size) for size in white[f"{name}.sizes"])
        ends = white[f"{name}.eigenvalues"][:, [-1, 0]] / np.array(analysis.marchenko_pastur_edges(n, d))
        for end, values in zip(("lower", "upper"), ends.T):
            interval = t_interval(values)
            parts.append(
                JudgedClaim.within(
                    id=f"spectra-white-{end}-{name}",
                    paper="own",
                    figure="",
                    statement=f"{end} edge, n = {n + 1}, d = {d}",
                    value=float(interval.estimate),
                    interval=(float(interval.low), float(interval.high)),
                    low=0.9,
                    high=1.1,
                    unit="of the edge",
                )
            )
    return JudgedClaim.all_of(
        parts,
        id="spectra-white-edges",
        paper="own",
        figure="control",
        statement="The extreme covariance eigenvalues of white data lie at the Marchenko-Pastur edges, within 10 % (finite n).",
    )


def _assumption_claims(config: Config, subject: Subject, found: list[dict]) -> list[JudgedClaim]:
    """For each kind the class and quantity farthest from what the theorem wants."""
    names = [str(name) for name in found[0]["assumption_names"]]
    white = found[0]["white"]
    values = np.stack([one["assumptions"] for one in found])

    def worst(kind: str, largest: bool = True) -> tuple[float, tuple[float, float], str]:
        places = [place for place, name in enumerate(names) if name.startswith(kind)]
        scaled = values[:, places] / np.where(white[places] > 0, white[places], 1.0)[None, :, None]
        flat = scaled[..., 0]
        k, place = np.unravel_index(flat.argmax() if largest else flat.argmin(), flat.shape)
        value, low, high = (float(part) for part in scaled[k, place])
        return value, (low, high), f"{names[places[place]]}, {subject.class_names[k]}"

    wanted = {
        "assumption-mean": ("mean", "The mean of each class has length O(1) where the deviations have length 1", ""),
        "assumption-moments": ("moment", "Moments up to the sixth along unit directions are of the order 1 / d^(q/2)", "times white Gaussian data's"),
        "assumption-quadratic-forms": ("quadratic", "Variances of quadratic forms vanish as they do for white data of this size", "times white Gaussian data's"),
    }  # fmt: skip
    claims = []
    for name, (kind, statement, unit) in wanted.items():
        value, interval, where = worst(kind)
        bound = "" if kind == "mean" else f", within a factor {config.factor:g} of white Gaussian data"
        claims.append(
            JudgedClaim.at_most(
                id=name,
                paper=PAPER,
                figure="Theorem 1, assumption",
                statement=f"{statement}{bound}.",
                value=value,
                interval=interval,
                threshold=config.factor,
                unit=unit,
                note=f"farthest: {where}",
            )
        )
    value, interval, where = worst("smallest", largest=False)
    claims.append(
        JudgedClaim.at_least(
            id="assumption-smallest-singular-value",
            paper=PAPER,
            figure="Theorem 1, assumption",
            statement=f"The smallest singular value of X X^T stays away from 0, within a factor {config.factor:g} of white Gaussian data.",
            value=value,
            interval=interval,
            threshold=1 / config.factor,
            unit="times white Gaussian data's",
            note=f"farthest: {where}",
        )
    )
    return claims

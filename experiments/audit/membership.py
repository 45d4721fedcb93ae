"""Can the network's own loss tell the images that it was trained on from others?"""

from dataclasses import dataclass, replace

import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import stream
from experiments.audit.common import OWN, key_of, plain, text, unasked
from experiments.audit.subject import Subject
from experiments.study import Claim, Cost, Figure, Findings, Options, Part, Table, at_most, option
from experiments.study.progress import Progress
from experiments.subjects import sampling_cost

FIGURES = (
    Figure(
        "membership",
        "True positive rate against false positive rate of the loss-threshold attack, for each noise level and all "
        "together.",
    ),
)
#: False positive rate at which the true positive rate is reported, and the AUC up to which the attack counts as failed.
FALSE_POSITIVES, MOST_AUC = 0.01, 0.55
CLAIM = Claim(
    "audit-membership",
    "The network's denoising loss hardly tells its training images from held-out ones: a training image has the lower "
    f"loss, over all noise levels together, with a probability of at most {MOST_AUC:g} (1/2 is a blind guess).",
    at_most(MOST_AUC),
    one_network=True,
)


@dataclass(frozen=True)
class Config(Options, prefix="membership"):
    """Membership inference by the denoising loss."""

    count: int = option(2000, ge=2)
    """Training images and held-out images, at most this many of each."""
    sigmas: tuple[float, ...] = option((0.1, 0.3, 1.0), gt=0.0)
    """Noise levels at which the loss is taken."""
    draws: int = option(2, ge=1)
    """Draws of the noise for each image and level."""

    def check(self) -> None:
        """At least one level."""
        require(bool(self.sigmas), self.name("sigmas"), self.sigmas, "one or more positive levels")


PRESETS = {"smoke": Config(count=64, draws=1), "default": Config(), "paper": Config(count=10_000, draws=8)}


def report(config: Config, subject: Subject, found: dict[str, np.ndarray]) -> Findings:
    """The loss-threshold attack at each level and at all together."""
    attack = analysis.loss_attack(found["members"], found["others"], config.sigmas)
    members, others = (-np.log(found[side]) for side in ("members", "others"))
    scores = {f"sigma = {sigma:g}": (members[:, k], others[:, k]) for k, sigma in enumerate(config.sigmas)}
    scores["together"] = (members.mean(axis=1), others.mean(axis=1))
    areas = dict(zip(scores, (*attack.at_level, attack.together)))
    enough = len(found["others"]) >= 1 / FALSE_POSITIVES
    rates = [text(analysis.hits_at(*both, FALSE_POSITIVES)) if enough else "too few images" for both in scores.values()]
    rows = list(zip(areas, map(text, areas.values()), rates))
    header = ("noise level", "AUC", f"true positive rate at a false positive rate of {FALSE_POSITIVES:.0%}")
    return Findings(
        f"An attack by the denoising loss tells {len(members):,} training images from {len(others):,} held-out "
        f"ones with an AUC of {text(areas['together'])} (1/2 is a blind guess, 1 perfect knowledge).",
        claims={CLAIM.id: areas["together"]},
        figures={"membership": plots.roc(scores)},
        tables=[Table("Membership inference by the denoising loss", header, rows)],
        metrics=plain(areas),
    )


def losses(config: Config, subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """(images, levels) mean denoising losses."""
    assert subject.network is not None
    key, rng = key_of(seed, "membership"), np.random.default_rng([seed, 29])
    count = _count(config, subject)
    found = {}
    with Progress("membership", total=2 * count, unit="images") as bar:
        for name, images in (("members", subject.reference), ("others", subject.held)):
            part = images.rows(np.sort(rng.permutation(len(images))[:count]))
            before = bar.done

            def advance(done: int, total: int, before: int = before) -> None:
                bar.update(before + done - bar.done)

            found[name] = analysis.denoising_loss(
                subject.network.denoiser,
                part.pixels,
                stream(key, name),
                labels=part.labels if subject.network.network.unet.label_dim else None,
                sigmas=config.sigmas,
                draws=config.draws,
                batch_size=min(subject.batch_size, count),
                progress=advance,
            )
    return found


def _count(config: Config, subject: Subject) -> int:
    """Images of each kind."""
    return min(config.count, len(subject.reference), len(subject.held))


def costs(config: Config, subject: Subject) -> list[Cost]:
    """Evaluations of the network."""
    if unasked(subject):
        return []
    assert subject.network is not None
    images, evaluations = 2 * _count(config, subject), len(config.sigmas) * config.draws
    cost = sampling_cost(subject.network.network, images, evaluations, subject.batch_size)
    return [replace(cost, stage="membership", disk=0)]


PART = Part(
    name="membership",
    title="Membership inference",
    question="Can the network's own loss tell the images that it was trained on from others?",
    paper=OWN,
    presets=PRESETS,
    claims=(CLAIM,),
    figures=FIGURES,
    measure=lambda config, subject, run: run.stage("losses", losses, config, subject, run.seed),
    report=report,
    costs=costs,
    skips=lambda config, subject: unasked(subject),
)

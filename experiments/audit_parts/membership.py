"""Can the network's own loss tell the images that it was trained on from others?"""

from typing import Any

import numpy as np

from dgu.core.keys import seeded, stream
from experiments.audit_parts.common import own, plain, text
from experiments.audit_parts.images import Sets
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("audit-membership",)
FIGURE_FILES = ("figures/membership.png",)
#: False alarms at which hits are reported, and the AUC up to which the attack counts as failed.
FALSE_ALARMS, MOST_AUC = 0.01, 0.55


def obstacle(sets: Sets) -> str:
    """Why the attack cannot be made; empty where it can."""
    if sets.network is None:
        return "no network was given (--checkpoint)"
    if sets.aside is not None:
        return "there are no images that the network was not trained on (--holdout)"
    if sets.network.network.shape != sets.reference.pixels.shape[1:]:
        return f"the network makes images of shape {sets.network.network.shape}"
    conditional = sets.network.network.unet.label_dim
    if conditional and (sets.reference.labels is None or sets.held.labels is None):
        return "the network is conditional, and reference or held-out images have no labels"
    if conditional and max(sets.reference.labels.max(), sets.held.labels.max()) >= conditional:
        return f"the network knows {conditional} classes, fewer than the images have"
    return ""


def section(config: Any, sets: Sets, directory: RunDirectory) -> Section:
    """The loss-threshold attack at each level and at all together."""
    from dgu import plots
    from dgu.analysis import hits_at, loss_attack

    found = directory.stage("membership", lambda: _losses(config, sets))
    sigmas = config.membership.sigmas
    attack = loss_attack(found["members"], found["others"], sigmas)
    members, others = (-np.log(found[side]) for side in ("members", "others"))
    scores = {f"sigma = {sigma:g}": (members[:, k], others[:, k]) for k, sigma in enumerate(sigmas)}
    scores["together"] = (members.mean(axis=1), others.mean(axis=1))
    directory.save_figure(FIGURE_FILES[0], plots.roc(scores))
    estimates = dict(zip(scores, (*attack.at_level, attack.together)))
    rows = []
    for name, auc in estimates.items():
        enough = len(found["others"]) >= 1 / FALSE_ALARMS
        rows.append((name, text(auc), text(hits_at(*scores[name], FALSE_ALARMS)) if enough else "too few images"))
    claim = own("at_most", attack.together, CLAIM_IDS[0], "The denoising loss hardly tells training images from held-out ones "
                "(AUC of the attack with all levels together; 1/2 is a blind guess).", threshold=MOST_AUC)  # fmt: skip
    answer = (
        f"An attack by the denoising loss tells {len(found['members']):,} training images from {len(found['others']):,} held-out "
        f"ones with an AUC of {text(attack.together)} (1/2 is a blind guess, 1 perfect knowledge)."
    )
    table = Table(
        "Membership inference by the denoising loss", ("noise level", "AUC", "hits at 1 % false alarms"), rows
    )
    caption = "Hits of the loss threshold against false alarms, for each noise level and all together."
    return Section("Membership inference", answer, [claim], [FigureEntry(FIGURE_FILES[0], caption)], [table],
                   {name: plain(auc) for name, auc in estimates.items()})  # fmt: skip


def _losses(config: Any, sets: Sets) -> dict[str, np.ndarray]:
    from dgu.analysis import denoising_loss

    options, key = config.membership, stream(seeded(config.seed), "audit", "membership")
    rng = np.random.default_rng([config.seed, 29])
    count = min(options.count, len(sets.reference), len(sets.held))
    found = {}
    with Progress("membership", total=2 * count, unit="images") as bar:
        for name, images in (("members", sets.reference), ("others", sets.held)):
            part = images.rows(np.sort(rng.permutation(len(images))[:count]))
            before = bar.done

            def report(done: int, total: int, before: int = before) -> None:
                bar.update(before + done - bar.done)

            found[name] = denoising_loss(
                sets.network.denoiser,
                part.pixels,
                stream(key, name),
                labels=part.labels if sets.network.network.unet.label_dim else None,
                sigmas=options.sigmas,
                draws=options.draws,
                batch_size=min(config.sampler.batch_size, count),
                progress=report,
            )
    return found

"""Does the model repeat its training images? Nearest neighbours, near-duplicates, and the scores of two papers."""

from typing import Any

import numpy as np

from experiments.audit.common import ends, own, plain, ratio, text
from experiments.audit.sets import Sets
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

CLAIM_IDS = ("audit-not-memorised",)
FIGURE_FILES = ("figures/distances.png", "figures/pairs.png")
#: Pairs shown, and pairs listed in the report (all are in near_duplicates.json).
SHOWN, LISTED = 24, 40


def section(config: Any, sets: Sets, directory: RunDirectory) -> Section:
    """Distances of samples and of held-out images to the nearest reference image, and what they say."""
    from dgu import plots
    from dgu.analysis import copying_test, near_duplicates, novelty, relative_distance

    found = directory.stage("memorisation", lambda: _distances(sets))
    d = sets.reference.flat.shape[1]
    distance, fresh = found["distance"], found["held_distance"]
    copies, fresh_copies = (
        near_duplicates(of, found[f"{name}spacing"], d, fraction=config.copy_fraction, rms=config.copy_rms)
        for name, of in (("", distance), ("held_", fresh))
    )
    test = copying_test(distance, fresh, copies.found, fresh_copies.found)
    score = novelty(distance, fresh)
    scores = {
        "samples": relative_distance(sets.samples.flat, distance),
        "held": relative_distance(sets.held.flat, fresh),
    }

    order = np.argsort(distance / np.maximum(copies.threshold, np.finfo(np.float32).tiny), kind="stable")
    pairs: list[dict[str, Any]] = [
        {"sample": int(i), "reference": int(found["nearest"][i]), "rms": float(distance[i] / np.sqrt(d))}
        for i in order[copies.found[order]]
    ]
    directory.write_json("near_duplicates.json", pairs)
    source = "held-out images" if sets.aside is None else "reference images against the other ones"
    rms = np.sqrt(d)
    directory.save_figure(
        "figures/distances.png",
        plots.histograms(
            {"samples": distance / rms, "held out": fresh / rms},
            quantity="distance to the nearest reference image (RMS of pixels in [-1, 1])",
            marks={"near-duplicate at any spacing": config.copy_rms, "5 % of held out": score.threshold / rms},
        ),
    )
    directory.save_figure("figures/pairs.png", _pairs(sets, found["nearest"], distance / rms, order))
    ratio_of_scores = ratio(scores["samples"], scores["held"])
    parts = [
        own("at_most", test.excess, "copies", "The share of samples that are near-duplicates of a reference image, less "
            "that among held-out images, is small.", threshold=0.005),
        own("at_most", test.closer, "closeness", "Samples are not closer to the reference than held-out images are "
            "(probability that one is closer; 1/2 for fresh images, 1 for copies).", threshold=0.6),
        JudgedClaim.at_least(id="gl-share", paper="molrg", figure="equation 21", unit="", threshold=0.9, **ends(score.share),
            statement="The share of samples farther from the reference than 5 % of fresh images are.",
            note="the published bound of 0.95 is the expected score of a perfect model, which half of its sample sets miss"),
        JudgedClaim.at_least(id="gl-distance", paper="hidden_gaussian", figure="equation 14", unit="", threshold=0.9,
            **ends(ratio_of_scores), statement="Mean relative distance to the nearest reference image over that of held-out images.",
            note=f"the score itself is {text(scores['samples'])}; the published bound of 0.6 belongs to that paper's data "
            f"(held-out images here: {text(scores['held'])})"),
    ]  # fmt: skip
    claim = JudgedClaim.all_of(
        parts,
        id=CLAIM_IDS[0],
        paper="own",
        figure="",
        statement="The samples are no copies of reference images, and no closer to them than fresh images are.",
    )
    count = int(copies.found.sum())
    words = {
        "supported": "No sign of memorisation",
        "not supported": "MEMORISED",
        "undecided": "Memorisation: undecided",
    }
    answer = (
        f"{words[claim.verdict]}: {count} of {len(distance):,} samples are near-duplicates of a reference image "
        f"({text(copies.share, scale=100)} %; held-out images: {text(fresh_copies.share, scale=100)} %). A sample is closer "
        f"to the reference than {source} with probability {text(test.closer)} (1/2 for fresh images, 1 for copies)."
    )
    listed: list[tuple] = [
        (p["sample"], p["reference"], p["rms"], float(copies.threshold[p["sample"]] / rms)) for p in pairs[:LISTED]
    ]
    rule = f"distance below {config.copy_fraction:g} of the reference image's own spacing, or RMS below {config.copy_rms:g}"
    tables = [
        Table(
            "Memorisation",
            ("", "samples", "held out"),
            [
                ("near-duplicates, share", text(copies.share), text(fresh_copies.share)),
                ("median distance (RMS)", float(np.median(distance) / rms), float(np.median(fresh) / rms)),
                ("smallest distance (RMS)", float(distance.min() / rms), float(fresh.min() / rms)),
                ("GL score of arXiv 2409.02426 (share of new images)", text(score.share), "0.95 by definition"),
                ("GL score of arXiv 2410.24060 (relative distance)", text(scores["samples"]), text(scores["held"])),
            ],
        ),
        Table(
            f"Near-duplicates ({rule}): {'the closest ' if count > LISTED else ''}{min(count, LISTED)} of {count}",
            ("sample", "reference image", "RMS difference", "threshold"),
            listed,
        ),
    ]
    figures = [
        FigureEntry(FIGURE_FILES[0], f"Distance of samples and of {source} to the nearest reference image."),
        FigureEntry(FIGURE_FILES[1], "The closest pairs, sample beside its nearest reference image, by distance over "
                    f"threshold; {'above the first are the near-duplicates' if count else 'none of them is a near-duplicate'}."),
    ]  # fmt: skip
    metrics = {
        "near_duplicates": count,
        "share": plain(copies.share),
        "held_share": plain(fresh_copies.share),
        "closer": plain(test.closer),
        "excess": plain(test.excess),
        "gl_share": plain(score.share),
        "gl_distance": plain(scores["samples"]),
        "held_gl_distance": plain(scores["held"]),
        "verdict": claim.verdict,
    }
    return Section("Memorisation", answer, [claim], figures, tables, metrics)


def _distances(sets: Sets) -> dict[str, np.ndarray]:
    from dgu.analysis import k_nearest, spacing

    reference = sets.reference.flat
    distance, nearest = (each[:, 0] for each in k_nearest(sets.samples.flat, reference))
    if sets.aside is None:
        held_distance, held_nearest = (each[:, 0] for each in k_nearest(sets.held.flat, reference))
    else:  # They are among the reference: each is compared with the others.
        distances, rows = k_nearest(sets.held.flat, reference, 2)
        other = (rows[:, 0] == sets.aside).astype(int)[:, None]
        held_distance, held_nearest = (np.take_along_axis(each, other, axis=1)[:, 0] for each in (distances, rows))
    rows, back = np.unique(np.concatenate([nearest, held_nearest]), return_inverse=True)
    spacings = spacing(rows, reference)[back]
    return {
        "distance": distance,
        "nearest": nearest,
        "spacing": spacings[: len(distance)],
        "held_distance": held_distance,
        "held_spacing": spacings[len(distance) :],
    }


def _pairs(sets: Sets, nearest: np.ndarray, rms: np.ndarray, order: np.ndarray) -> Any:
    """Six pairs a row, the closest first."""
    from dgu import plots

    chosen = np.resize(order[:SHOWN], SHOWN)  # a set of fewer samples shows them again
    images = np.stack([sets.samples.pixels[chosen], sets.reference.pixels[nearest[chosen]]], axis=1)
    rows = images.reshape(SHOWN // 6, 12, *images.shape[2:])
    names = [f"RMS {rms[part].min():.3f} to {rms[part].max():.3f}" for part in chosen.reshape(-1, 6)]
    if rows.shape[-1] not in (1, 3):
        rows = rows[..., :1]
    return plots.image_grid(rows, names, [""] * 6, title="closest pairs: sample left, nearest reference image right")

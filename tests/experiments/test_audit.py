"""The audit from the command line: planted copies are flagged and listed, fresh images are not, bad input is one
line.
"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.pools import pool_variance
from dgu.data import SampleStore
from experiments.audit import STUDY, memorisation, universality
from experiments.audit.common import text
from experiments.audit.sets import Images, read
from experiments.audit.subject import Subject
from experiments.study import Study
from experiments.study.run_directory import RunDirectory
from tests.experiments.statements import check_statements, exact_claims
from tests.experiments.universality_study import CLASSES, contents, save_images, save_tiny_network

DEFAULT = STUDY.presets["default"]
CLAIM_IDS = tuple(claim.id for part in STUDY.parts for claim in part.declared(STUDY.options_of(part, DEFAULT)))
FIGURE_FILES = tuple(figure.file for part in STUDY.parts for figure in part.figures)
#: Parts of the study without the slow one.
QUICK = ("--parts", *(part.name for part in STUDY.parts if part.name != "universality"))
#: Small where the smoke preset is not: an audit of a second or two, compilation aside.
TINY = (
    "--preset smoke --fidelity.pca 8 --balance.images 200 --universality.recipe.epochs 2 --sampler.num-steps 2 "
    "--sampler.batch-size 16 "
    "--membership.count 50"
).split()


def draw(per_class, seed):
    """``per_class`` images of each class, grey values about a bright side; (n, 6, 6, 1) in [-1, 1] and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.int32), per_class)
    pixels = 0.3 * rng.normal(size=(len(labels), 6, 6, 1)) - 0.4
    for number, turn in enumerate(labels):
        pixels[number] += np.rot90(0.9 * (np.arange(6)[:, None, None] < 2), turn) * np.ones((1, 6, 1))
    return np.clip(pixels, -1, 1).astype(np.float32), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sets and files, good and bad, by name."""
    home = tmp_path_factory.mktemp("audit")
    names = {"class_names": np.asarray(CLASSES)}
    reference, labels = draw(75, 0)
    held, held_labels = draw(25, 1)
    samples, sample_labels = draw(30, 2)
    for name, pixels, of in (
        ("reference", reference, labels),
        ("held", held, held_labels),
        ("samples", samples, sample_labels),
    ):
        save_images(home / f"{name}.npz", pixels, of, **names)
    np.savez(home / "unlabelled.npz", images=samples)
    np.savez(home / "few.npz", images=samples[:40])
    np.savez(home / "grey.npz", images=np.concatenate([samples, np.full((9, 6, 6, 1), 0.25, np.float32)]))
    np.savez(home / "same.npz", images=np.repeat(samples[:1], 60, axis=0))
    np.savez(home / "wide.npz", images=np.pad(samples, ((0, 0), (0, 0), (0, 2), (0, 0))))
    np.savez(home / "wide-held.npz", images=np.pad(held, ((0, 0), (0, 0), (0, 2), (0, 0))))
    np.savez(home / "colour.npz", images=np.repeat(samples, 3, axis=3))
    np.savez(home / "part.npz", images=reference[40:100])
    np.savez(home / "shuffled.npz", images=np.random.default_rng(3).permutation(reference)[:250])
    np.savez(home / "dark.npz", images=((samples + 1) / 20).astype(np.float32))
    np.savez(home / "nan.npz", images=np.where(np.arange(120)[:, None, None, None] == 7, np.nan, samples))
    rng = np.random.default_rng(4)
    for name, count in (("samples", 120), ("reference", 300), ("held", 100)):
        np.save(home / f"{name}-features.npy", rng.normal(size=(count, 5)).astype(np.float32))
    features = rng.normal(size=(120, 5))
    np.save(home / "narrow-features.npy", features[:, :4])
    features[11, 2] = np.nan
    np.save(home / "nan-features.npy", features)
    save_tiny_network(home / "network.npz")
    return home


def command(
    folder, out, *options, base=("--samples", "samples.npz", "--reference", "reference.npz", "--holdout", "held.npz")
):
    """Paths of ``folder`` go by their file name."""
    words = [str(folder / word) if re.fullmatch(r"[\w-]+\.np[yz]", word) else word for word in (*base, *options)]
    return STUDY.main([*TINY, "--reference-split", "train", "--holdout-split", "train", "--out", str(out), *words])


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A whole audit, of fresh images: its directory and claims."""
    out = tmp_path_factory.mktemp("run") / "whole"
    return out, command(folder, out, "--checkpoint", "network.npz")


def test_a_whole_audit_leaves_a_report_with_every_claim_and_figure(finished):
    out, claims = finished
    assert {claim.id for claim in claims} == set(CLAIM_IDS)
    check_statements(out, DEFAULT)
    assert exact_claims(out) == set()
    verdicts = {claim.id: claim.verdict for claim in claims}
    # The samples are drawn from the reference's own distribution.
    assert "not supported" not in {verdicts[id] for id in CLAIM_IDS if id != "audit-membership"}
    for file in FIGURE_FILES:
        assert (out / file).read_bytes()[:4] == b"\x89PNG"
    # Pictures may spell anything.
    page = re.sub(r'base64,[^"]*', "base64,", (out / "report.html").read_text())
    assert page.count("data:image/png;base64,") == len(FIGURE_FILES) + 1
    assert "<script" not in page and "http" not in page
    for title in ("Memorisation", "Moments and spectra", "Tails", "Class balance", "Universality", "Membership"):
        assert f">{title}" in page
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["memorisation"]["near_duplicates"] == 0 and "Skipped" not in page
    assert json.loads((out / "near_duplicates.json").read_text()) == []


def test_a_killed_audit_goes_on_and_gives_the_same(finished, folder, tmp_path, capsys):
    out, _ = finished
    before = contents(out)
    for name in ("report.html", "claims.json", "metrics.json", "figures/tails.png", "stages/fidelity/measures.npz"):
        (out / name).unlink()
    kept = (out / "stages/universality/001.npz").stat().st_mtime_ns
    command(folder, out, "--checkpoint", "network.npz")
    after = contents(out)
    for name in (
        "claims.json",
        "metrics.json",
        "figures/tails.png",
        "figures/fidelity.png",
        "stages/fidelity/measures.npz",
    ):
        assert after[name] == before[name], name
    assert (out / "stages/universality/001.npz").stat().st_mtime_ns == kept
    capsys.readouterr()
    command(folder, out, "--checkpoint", "network.npz")
    assert "already finished" in capsys.readouterr().out


def test_features_from_files_and_sections_that_cannot_be_made(folder, tmp_path):
    files = ("--features", "samples-features.npy", "--reference-features", "reference-features.npy")
    base = ("--samples", "unlabelled.npz", "--reference", "reference.npz", "--holdout", "None")
    claims = command(folder, tmp_path / "run", *files, "--universality.replicates", "0", base=base)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["fidelity"]["features"] == "the features given"
    assert metrics.keys() == {part.name for part in STUDY.parts} - {"universality", "membership"}
    left_out = {"audit-universality", "audit-universality-gap", "audit-membership"}
    assert {claim.id for claim in claims} == set(CLAIM_IDS) - left_out
    page = (tmp_path / "run/report.html").read_text()
    assert "Skipped universality: no replicates" in page and "Skipped membership: no network was given" in page
    assert "50 (set aside from the reference)" in page


def test_the_network_is_sampled_where_no_samples_are_given(folder, tmp_path):
    base = ("--checkpoint", "network.npz", "--reference", "reference.npz", "--holdout", "held.npz", "--per-class", "16")
    options = (*QUICK, "--membership.count", "20")
    claims = command(folder, tmp_path / "run", *options, base=base)
    store = SampleStore.existing(tmp_path / "run/samples")
    assert {label: ranges[-1][1] for label, ranges in store.shards().items()} == dict.fromkeys(range(4), 16)
    verdicts = {claim.id: claim.verdict for claim in claims}
    # An untrained network: far from the reference in every respect, but no copyist.
    assert verdicts["audit-spectrum"] == verdicts["audit-frechet"] == verdicts["audit-coverage"] == "not supported"
    assert verdicts["audit-not-memorised"] != "not supported"


# --- memorisation, by its section alone ------------------------------------------------------------------------------

REFERENCE, FRESH, HELD = (draw(count, seed)[0] for count, seed in ((250, 5), (100, 6), (100, 7)))


def memorised(tmp_path, samples, aside=None):
    """The claim, and the pairs that were listed."""
    held = Images(HELD if aside is None else REFERENCE[aside], None)
    subject = Subject(Images(samples, None), Images(REFERENCE, None), held, aside)
    directory = RunDirectory.open(tmp_path / "run", DEFAULT)
    section = memorisation.PART.section(DEFAULT.memorisation, subject, directory, 0)
    assert (tmp_path / "run/figures/pairs.png").exists()
    return section, directory.read_json("near_duplicates.json")


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.02])
@pytest.mark.parametrize("aside", [False, True])
def test_a_planted_memoriser_is_flagged(tmp_path, noise, aside):
    rng = np.random.default_rng(8)
    rows = rng.integers(0, len(REFERENCE), 200)
    samples = (REFERENCE[rows] + noise * rng.normal(size=(200, 6, 6, 1))).astype(np.float32)
    section, pairs = memorised(tmp_path, samples, np.arange(0, 1000, 6) if aside else None)
    assert section.claims[0].verdict == "not supported" and section.answer.startswith("MEMORISED")
    wanted = dict.fromkeys(("copies", "closeness", "gl-share", "gl-distance"), "not supported")
    # Exact copies are all at distance 0: values without spread decide nothing by themselves.
    wanted |= {"gl-distance": "undecided"} if noise == 0 else {}
    assert {part.id: part.verdict for part in section.claims[0].parts} == wanted
    assert {pair["sample"]: pair["reference"] for pair in pairs} == dict(enumerate(rows.tolist()))


@pytest.mark.parametrize("aside", [False, True])
def test_fresh_images_are_not_flagged(tmp_path, aside):
    section, pairs = memorised(tmp_path, draw(300, 9)[0], np.arange(0, 1000, 6) if aside else None)
    assert section.claims[0].verdict != "not supported" and pairs == []
    parts = {part.id: part for part in section.claims[0].parts}
    assert parts["closeness"].verdict == parts["gl-distance"].verdict == "supported"
    assert abs(parts["closeness"].value - 0.5) < 0.08 and abs(parts["gl-share"].value - 0.95) < 0.05


def test_one_per_cent_of_near_duplicates_are_listed_and_nothing_else(tmp_path):
    rng = np.random.default_rng(10)
    samples = draw(100, 11)[0]
    planted, rows = rng.choice(400, 4, replace=False), rng.choice(1000, 4, replace=False)
    samples[planted] = REFERENCE[rows] + 0.01 * rng.normal(size=(4, 6, 6, 1))
    _, pairs = memorised(tmp_path, samples)
    assert {(pair["sample"], pair["reference"]) for pair in pairs} == set(zip(planted.tolist(), rows.tolist()))
    assert all(0.005 < pair["rms"] < 0.016 for pair in pairs)


# --- universality, by its section alone ------------------------------------------------------------------------------

SIZES = {"fit": 40, "train": 35, "validation": 5, "test": 20}


def pool(seed, count=100, classes=3, d=6):
    """Exactly Gaussian rows."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(0).normal(size=(classes, 1, d))
    return (means + rng.normal(size=(classes, count, d))).astype(np.float32)


def test_classifiers_of_the_cross_matrix_see_no_image_that_its_mixtures_are_fitted_to():
    """With some images far away: those of the part fit move the mixtures, those of the part test only the mixture of all
    samples and the samples' own column.
    """
    config, pools = universality.PRESETS["smoke"], [pool(1), pool(2, 80)]
    before = universality.accuracies(config, None, SIZES, 0, pools, 0)
    assert before["own"].shape == (4,) and before["cross"].shape == (4, 4)
    seed = universality.seed_of(universality.key_of(0, "universality", "splits"), 0)
    for part, stays in (("fit", [0, 3]), ("test", [1, 2])):
        moved = pools[0].copy()
        moved[1, universality.class_splits(100, SIZES, seed, 0, 1)[part]] -= 6
        after = universality.accuracies(config, None, SIZES, 0, [moved, pools[1]], 0)
        same = after["cross"] == before["cross"]
        # What was trained on the arms that stay and tested on them, and what is not.
        assert same[np.ix_(stays, stays)][1:, 1:].all() and same[3, 3] and not same.all()
        assert (after["own"] != before["own"])[:3].all() and after["own"][3] == before["own"][3]
    again = universality.accuracies(config, None, SIZES, 0, pools, 1)
    assert not np.array_equal(again["own"], before["own"])


def test_the_gap_of_gaussian_samples_is_the_null_corrected_one_with_the_variation_between_pools():
    config = replace(universality.PRESETS["smoke"], replicates=4, resampled_pools=6, draws=2)
    pools = [pool(3), pool(4)]
    own = [universality.accuracies(config, None, SIZES, 0, pools, number) for number in range(config.replicates)]
    found = {
        "replicates": {name: np.stack([one[name] for one in own]) for name in own[0]},
        "resampled": {
            name: np.stack([universality.resampled(config, SIZES, 0, pools, number)[name] for number in range(6)])
            for name in own[0]
        },
    }
    assert found["resampled"]["cross"].shape == (6, 2, 4, 4)
    labels = np.repeat(np.arange(3, dtype=np.int32), 100)
    images = [Images(rows.reshape(-1, 6, 1, 1), labels) for rows in pools]
    subject = Subject(*images, images[1], class_names=("a", "b", "c"))
    findings = universality.report(config, subject, found)
    gap = findings.claims["audit-universality"]
    samples, mixture, null, _ = 100 * found["replicates"]["own"].mean(axis=0)
    assert gap.value == pytest.approx(samples - 2 * mixture + null)
    corrected = 100 * found["resampled"]["own"] @ [1, -2, 1, 0]
    assert gap.standard_error == pytest.approx(
        np.sqrt((100 * found["replicates"]["own"] @ [1, -2, 1, 0]).var(ddof=1) / 4 + pool_variance(corrected).expected)
    )
    assert abs(gap.value) < 4 * gap.standard_error
    assert findings.claims["audit-universality-gap"] is gap and "perhaps zero" in findings.answer


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(folder, tmp_path, capsys, monkeypatch):
    """The line of a refused command, after making sure that nothing was computed or left."""
    stages = []

    def guarded(study, config, directory, run=Study.run):
        try:
            return run(study, config, directory)
        finally:
            stages.extend(directory.path.glob("stages/*"))

    monkeypatch.setattr(Study, "run", guarded)

    def check(*options, **base):
        with pytest.raises(SystemExit) as exit_:
            command(folder, tmp_path / "run", *options, **base)
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and error.count("\n") == 1 and error.startswith("audit: ")
        assert not (tmp_path / "run").exists() and not stages
        return error

    return check


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--samples reference.npz", "must be another set than --reference"),
        ("--holdout reference.npz", "must be another set than --reference"),
        ("--holdout samples.npz", "must be another set than --holdout"),
        ("--samples part.npz", "samples: 60 of 60 images are those of the reference, in its order"),
        ("--samples shuffled.npz", "samples: 250 of 250 images are those of the reference, none of them twice"),
        ("--samples wide.npz", "samples: shape of an image = (6, 8, 1): must be (6, 6, 1), as in the reference"),
        ("--samples colour.npz", "samples: shape of an image = (6, 6, 3)"),
        ("--samples dark.npz", "samples: range of the pixels"),
        ("--samples nan.npz", "image 7 holds NaN"),
        ("--samples few.npz", "samples: number of images = 40: must be 50 or more: two blocks of 25 of the kernel distance"),
        ("--holdout few.npz", "holdout: number of images = 40"),
        ("--reference few.npz", "reference: number of images = 40: must be 100 or more: the nearest neighbours"),
        ("--reference unlabelled.npz --holdout None", "images to set aside without --holdout = 20"),
        ("--samples grey.npz", "samples: images of a single colour = 9: must be 0 (the first is number 120)"),
        ("--samples same.npz", "samples: images = 'all the same'"),
        ("--samples absent.npz", "samples = "),
        ("--features samples-features.npy", "reference-features = None"),
        ("--features nan-features.npy --reference-features reference-features.npy --holdout-features held-features.npy",
         "row = [11]: must be finite numbers"),
        ("--features held-features.npy --reference-features reference-features.npy --holdout-features held-features.npy",
         "must be another file than --holdout-features"),
        ("--features narrow-features.npy --reference-features reference-features.npy --holdout-features held-features.npy",
         "features: columns = 4: must be 5"),
        ("--features reference-features.npy --reference-features held-features.npy --holdout-features held-features.npy",
         "shape = (100, 5): must be (300, d), a row an image"),
        ("--features samples-features.npy --reference-features reference-features.npy", "holdout-features = None"),
        ("--checkpoint nothing", "checkpoint = 'nothing'"),
        ("--fidelity.pca 0", "fidelity.pca = 0"),
        ("--pca 8", "--pca: is called --fidelity.pca now"),
        ("--judge.epochs 2", "--judge.epochs: is called --balance.epochs now"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_the_work(refused, options, text):
    assert text in refused(*options.split())


def test_a_network_of_other_images_is_refused_before_it_is_sampled(refused, monkeypatch):
    monkeypatch.setattr("dgu.samplers.sample", None)
    base = ("--reference", "wide.npz", "--holdout", "held.npz", "--checkpoint", "network.npz")
    assert "holdout: shape of an image = (6, 6, 1): must be (6, 8, 1), as in the reference" in refused(base=base)
    base = ("--reference", "wide.npz", "--holdout", "wide-held.npz", "--checkpoint", "network.npz")
    assert "reference: shape of an image = (6, 8, 1): must be (6, 6, 1), the network's" in refused(base=base)


def test_a_missing_set_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "dgu.data.named.NAMED_SETS",
        {
            **(named := __import__("dgu.data.named", fromlist=["x"]).NAMED_SETS),
            "fashion-mnist": __import__("dataclasses").replace(named["fashion-mnist"], places=lambda split: iter(())),
        },
    )
    with pytest.raises(SystemExit):
        STUDY.main(["--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'fashion-mnist' (train) was not found" in error and "bring it with" in error


def test_a_sample_store_is_read_class_by_class(folder, tmp_path):
    store = SampleStore.open(tmp_path / "store", {}, (6, 6, 1), shard_size=8)
    pixels, _ = draw(10, 12)
    for label in (0, 2):
        store.write(label, 0, 1.5 * pixels[10 * label : 10 * label + 8])
    store.write(2, 8, pixels[28:30])
    found, names = read("samples", str(tmp_path / "store"), "train", None)
    assert names == () and found.labels.tolist() == [0] * 8 + [2] * 8
    np.testing.assert_array_equal(found.pixels, np.clip(1.5 * np.concatenate([pixels[:8], pixels[20:28]]), -1, 1))


def test_dry_run_computes_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dgu.samplers.sample", None)
    monkeypatch.setattr("dgu.analysis.nearest", None)
    base = ("--checkpoint", "network.npz", "--reference", "reference.npz", "--holdout", "held.npz", "--per-class", "16")
    assert command(folder, tmp_path / "run", "--dry-run", base=base) == ()
    printed = capsys.readouterr().out
    # 64 images by 3 evaluations; 50 images of each kind at three levels.
    assert "sampling" in printed and "192" in printed and "membership" in printed and "300" in printed
    assert not (tmp_path / "run").exists()


def test_splits_that_all_agree_read_as_no_certainty():
    assert text(Estimate(30.0, 30.0, 30.0)) == "30 (all alike: no interval)"
    assert text(Estimate(0.3, 0.3, 0.3 + 1e-16), scale=100) == "30 (all alike: no interval)"
    assert text(Estimate(0.0, 0.0, 0.1)) == "0 [0, 0.1]"


def test_a_report_is_made_again_from_what_was_stored(finished, folder, capsys, monkeypatch):
    out, claims = finished
    before = contents(out)
    for file in ("near_duplicates.json", "figures/pairs.png"):
        (out / file).unlink()
    monkeypatch.setattr("dgu.analysis.nearest", None)
    again = command(folder, out, "--checkpoint", "network.npz", "--report-only")
    assert again == claims and contents(out) == before

"""The study of closed forms: scores and choices against hand-made cases, the family and the theory against other
computations, claims from what is measured, and refusals."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import ClassSeparation, flow_gains, gaussian_fit_kl
from dgu.core.errors import InputError
from dgu.data import write_npz
from dgu.models import ADMConfig, EDMNetwork, EmpiricalDenoiser, GaussianDenoiser, save_network
from dgu.samplers import gaussian_flow
from experiments.explain import STUDY, clocks, finite, forms, forms_report, hierarchy, learning, scores
from experiments.explain.family import MIXTURE, POINTS, ByLevel, Design
from experiments.explain.subject import Group
from experiments.study.record import record_of

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def group_of(images, classes=None):
    return Group(None, images, np.zeros(len(images), int) if classes is None else classes, np.arange(1))


def test_scores_of_known_distances():
    network, skip = RNG.normal(size=(2, 3, 4, 5, 1)), np.zeros((2, 3, 4, 5, 1))
    np.testing.assert_allclose(scores.nmse(skip, network, skip), 1, rtol=1e-12)
    np.testing.assert_allclose(scores.nmse(0.5 * network, network, skip), 0.25, rtol=1e-12)
    flat = np.broadcast_to(network.mean(axis=(2, 3, 4), keepdims=True), network.shape)
    np.testing.assert_allclose(scores.r_squared(flat, network), 0, atol=1e-12)
    np.testing.assert_allclose(scores.r_squared(2 * flat - network, network), -3, rtol=1e-12)
    of_pixels = np.broadcast_to(network.mean(axis=1, keepdims=True), network.shape)
    np.testing.assert_allclose(scores.pixel_map(of_pixels, network), 0, atol=1e-12)
    still = network.copy()
    still[:, :, 0, 0] = 1.0  # A pixel that never changes: what is missed there counts as for one that hardly does.
    assert (scores.pixel_map(still + 1e-3, still)[:, 0, 0] < 1).all()


def test_what_is_chosen_on_one_half_is_judged_on_the_other():
    second = scores.halves(groups=2, count=8)
    assert second.tolist() == [False] * 4 + [True] * 4
    candidates = np.zeros((2, 1, 8))
    candidates[0, 0], candidates[1, 0] = [1] * 4 + [3] * 4, [2] * 8
    # The first half prefers candidate 0, which is worse on the second; the second half prefers candidate 1.
    assert scores.chosen(candidates, second)[0].tolist() == [2] * 4 + [3] * 4
    assert scores.least(candidates).tolist() == [0]


def test_claims_compare_what_they_say():
    """Outputs that miss a known share of what the network adds: a output of (1 - a) times the network's misses a^2."""
    config, network = dataclasses.replace(forms.PRESETS["smoke"], windows=(3, 5)), RNG.normal(size=(3, 8, 2, 2, 1))
    family = tuple(config.design(KEY).forms())
    share = {form.name: 0.9 for form in family}
    share |= {"Gaussian": 0.6, "points": 0.8, "local points 3": 0.5, "local points 5": 0.4, "local Gaussian 3": 0.7}
    share |= {forms.NETWORK: 0.0, forms.SKIP: 1.0, forms.RANDOM: 1.0, forms.SECOND: 0.2, forms.STATIONARY: 0.9}
    outputs = {name: (1 - a) * network for name, a in share.items()}
    # At the lowest level the smaller window is the better one.
    outputs["local points 3"][2] = (1 - 0.3) * network[2]
    sigmas, second = np.array([10.0, 1.0, 0.05]), np.arange(8) >= 4
    found = forms.Found(sigmas, network, outputs, family, second)
    claims = forms.claims_of(config, found)
    value = lambda measured: pytest.approx(float(measured.value), abs=1e-9)  # noqa: E731
    assert {band: 1 - 0.4**2 for band in ("high", "intermediate")} == {
        band: value(claims["forms-explained"][band]) for band in ("high", "intermediate")
    }
    assert 1 - 0.3**2 == value(claims["forms-explained"]["low"])
    assert 0.8**2 - 0.6**2 == value(claims["forms-gaussian-high"])
    assert 0.6**2 - 0.4**2 == value(claims["forms-local"]["forms-local-gaussian"])
    assert 0.8**2 - 0.4**2 == value(claims["forms-local"]["forms-local-points"])
    assert 0.7**2 - 0.4**2 == value(claims["forms-beyond-gaussian"])
    assert 0.4**2 - 0.2**2 == value(claims["forms-second"])
    assert 1 - 0.3**2 == value(claims["forms-untrained"]["low"])
    # Windows 5, 5 and 3 at falling levels.
    assert 0.75**0.5 == value(claims["forms-window"])
    subject = SimpleNamespace(config=SimpleNamespace(checkpoint="net"), about="images", count=7, conditional=False)
    findings = forms_report.report(config, subject, found)
    assert set(findings.figures) == {figure.name for figure in forms.FIGURES}
    nearest = findings.tables[0].rows
    assert [row[1] for row in nearest] == ["local points 5", "local points 5", "local points 3"]
    assert nearest[0][2].startswith("0.16 [") and "0.09 [0.09, 0.09] at low noise" in findings.answer
    none = forms.claims_of(config, forms.Found(np.array([10.0, 9.0, 8.0]), network, outputs, family, second))
    assert "no noise level" in none["forms-local"].reason and list(none["forms-explained"]) == ["high"]


def test_levels_have_the_denoiser_of_the_nearest_one():
    forms = tuple(GaussianDenoiser(jnp.full((2,), mean), jnp.zeros((2, 1)), jnp.zeros(1)) for mean in (1.0, 2.0))
    denoiser = ByLevel(np.array([10.0, 1.0, 0.1], np.float32), np.array([0, 1, 0], np.int32), forms)
    call = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma)[0])
    assert [float(call(denoiser, jnp.zeros(2), sigma)) for sigma in (20.0, 3.5, 1.0, 0.2)] == [1.0, 1.0, 2.0, 1.0]


def test_the_mixture_has_a_gaussian_for_each_class(x64):
    """Against Bayes' rule with full matrices, one class of fewer images than pixels."""
    images = RNG.normal(size=(15, 2, 3, 1)) + np.repeat([0.0, 2.0], [10, 5])[:, None, None, None]
    marks = np.repeat([3, 7], [10, 5])
    design = Design((1,), (1,), 1, (1,), 2, KEY)
    build = next(form.build for form in design.forms() if form.family == MIXTURE)
    x, sigma = RNG.normal(size=(2, 3, 1)) + 1, 0.7
    means, weights = [], []
    for mark, share in ((3, 2 / 3), (7, 1 / 3)):
        rows = images[marks == mark].reshape(-1, 6)
        covariance = np.cov(rows, rowvar=False, ddof=0)
        total, away = covariance + sigma**2 * np.eye(6), x.ravel() - rows.mean(0)
        means.append(rows.mean(0) + covariance @ np.linalg.solve(total, away))
        weights.append(share * np.exp(-away @ np.linalg.solve(total, away) / 2) / np.sqrt(np.linalg.det(total)))
    expected = (np.array(weights) @ np.array(means) / sum(weights)).reshape(x.shape)
    found = build(group_of(images, marks))
    # The weights are kept in single precision.
    np.testing.assert_allclose(jax.jit(lambda d, x: d(x, sigma))(found, x), expected, atol=1e-6)
    # Images of one class are told apart by clusters, of which each image has one.
    assert sorted(np.unique(design.components(group_of(images)))) == [0, 1]
    points = next(form.build for form in design.forms() if form.family == POINTS)(group_of(images))
    assert isinstance(points, EmpiricalDenoiser)


def test_fitted_gaussians_are_measured_as_they_denoise_and_sample(x64):
    """Gains, losses and distances against the denoiser itself, noise drawn, and exact paths of the sampler."""
    basis, scales = np.linalg.qr(RNG.normal(size=(4, 4)))[0], np.array([2.0, 1.0, 0.5, 0.2])
    rows = [RNG.normal(size=(30, 4)) * scales @ basis.T + 0.5 for _ in range(2)]
    held, sigmas = RNG.normal(size=(50, 4)) * scales @ basis.T + 0.5, np.array([0.3, 1.0])
    found = finite.fits(rows, basis, held, sigmas)
    laws = [GaussianDenoiser.fit(own) for own in rows]
    noise = np.random.default_rng(1).normal(size=(4000, 1, 4))
    for level, sigma in enumerate(sigmas):
        matrix = np.asarray(jax.jacfwd(laws[1])(jnp.zeros(4), sigma))
        np.testing.assert_allclose(found["gains"][1, level], np.diag(basis.T @ matrix @ basis), rtol=1e-9)
        mean = np.asarray(laws[1].mean)
        missed = (held + sigma * noise - mean) @ matrix.T + mean - held
        assert found["loss"][1, level] == pytest.approx(np.square(missed).sum(-1).mean(), rel=0.02)
    ends = [
        np.asarray(jax.vmap(lambda z, law=law: gaussian_flow(law, 80.0 * z, 80.0, jnp.zeros(1))[0][0])(noise[:, 0]))
        for law in laws
    ]
    paired = np.square(ends[0] - ends[1]).sum(1).mean()
    null = np.square(ends[0] - np.roll(ends[1], 1, axis=0)).sum(1).mean()
    assert found["distance"][0] == pytest.approx(np.sqrt(paired / null), rel=0.03)


def test_divergences_are_near_the_limit():
    found = finite.divergences(20, 30, 0)
    for ratio in finite.RATIOS:
        own, exact = found[f"n{ratio}"], gaussian_fit_kl(20, 20 * ratio) / (20 / (4 * ratio))
        assert abs(own.mean() - exact) < 4 * own.std(ddof=1) / 30**0.5 < 0.1 * exact


def test_the_order_of_linear_learning_is_found():
    """Gains along gradient flow, from above and from below what they become."""
    config, lam = learning.PRESETS["smoke"], np.geomspace(8, 0.01, 12)
    seen = np.geomspace(1e-4, 30, 120)
    gains = flow_gains(lam, np.array([config.sigma]), seen, start=0.5)[:, 0]
    times = learning.half_times(seen, gains)
    moved = np.abs(gains[-1] - gains[0]) >= learning.CHANGE
    assert np.isfinite(times).tolist() == moved.tolist() and 8 <= moved.sum() < 12
    np.testing.assert_allclose(times[moved], np.log(2) / 2 / (lam + config.sigma**2)[moved], rtol=0.02)
    squares = np.ones((20, 12))
    products = np.repeat(gains[:, None], 20, axis=1)
    estimate = learning.order(config, learning.Found(seen, products, squares, lam, None))
    assert float(estimate.value) == 1
    backwards = learning.order(config, learning.Found(seen, products, squares, lam[::-1], None))
    assert float(backwards.value) < 0
    few = learning.order(config, learning.Found(seen, 0 * products + 0.5, squares, lam, None))
    assert "0 components" in few.reason


def test_speciation_compares_two_crossings():
    sigmas = np.array([0.5, 1.0, 2.0, 4.0])
    kept = np.arange(20)[None] < np.array([20, 20, 5, 0])[:, None]
    kept = kept[:, np.random.default_rng(0).permutation(20)]
    separation = ClassSeparation(sigmas, np.array([4.0, 2.0, 1.0, 0.5]), np.ones(4))
    found = clocks.Found(1.0, 2.0, np.ones((4, 2)), separation, kept, np.ones(1), np.ones((2, 2)), 1.0)
    # Half are kept at two thirds of the way, in log sigma, from 1 to 2; the variance between classes is that of 2.
    assert float(clocks.speciation(found).value) == pytest.approx(2 / 3 - 1, abs=1e-9)
    never = clocks.speciation(dataclasses.replace(found, kept=np.ones((4, 20), bool)))
    assert "none of the levels" in never.reason


def test_widths_are_octaves_between_two_shares_of_the_range():
    config = dataclasses.replace(hierarchy.PRESETS["smoke"], symbols=4, levels=60)
    sigmas = hierarchy._sigmas(config)
    # From 1 to 1/4, linear in octaves from level 0.25 to 2: half of the three octaves.
    kept = 0.25 + 0.75 * np.clip((1 - np.log2(sigmas)) / 3, 0, 1)
    np.testing.assert_allclose(hierarchy.widths(config, kept[None]), 1.5, rtol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--forms.windows 4 5 --forms.equivariant-windows 5", "forms.windows = 4: must be odd and at most 14"),
        ("--forms.windows 5 3", "--forms.windows = (5, 3): must be one or more, rising"),
        ("--forms.held-out 25", "--forms.held-out = 25: must be a multiple of 10"),
        ("--forms.equivariant-images 31", "--forms.equivariant-images = 31: must be at most --images = 30"),
        ("--images 8 --forms.clusters 5 --forms.equivariant-images 4", "images = 8: must be at least 10"),
        ("--size 7", "data = 'fashion-mnist-mini': images of shape = (7, 7, 1): must be (14, 14, 1), the network's"),
        ("--parts finite --finite.sizes 5000", "finite.sizes = (5000,): must be at most 250"),
        ("--parts clocks --clocks.sigmas 0.001 1", "clocks.sigmas = (0.001, 1.0): must be above 0.002"),
        ("--parts identities --identities.held-out 25", "--identities.held-out = 25: must be a multiple of 10"),
        ("--parts learning --learning.points 8 8", "--learning.points = (8, 8): must be two or more, rising"),
        ("--parts learning --learning.components 500", "learning.components = 500: must be at most 196"),
        ("--parts learning --learning.features 1000000", "--learning.features = 1000000: must be in [2, 8192]"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        STUDY.main(["--preset", "smoke", *options.split(), "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "run" / "stages").exists()


@pytest.fixture
def labelled(tmp_path, capsys):
    """Runs the part clocks on images of so many classes, of which some occur; what it printed on standard error."""

    def run(names, labels, *options):
        images = RNG.uniform(-1, 1, size=(len(labels), 8, 8, 1)).astype(np.float32)
        write_npz(tmp_path / "set.npz", images, np.array(labels), names)
        unet = ADMConfig(8, 1, 1, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
        network = EDMNetwork(unet)
        save_network(tmp_path / "net.npz", network, network.init(KEY), {})
        own = ["--preset", "smoke", "--parts", "clocks", "--checkpoint", str(tmp_path / "net.npz")]
        own += ["--data", str(tmp_path / "set.npz"), "--split", "train", "--heldout-split", "train", "--size", "8"]
        own += ["--images", "8", "--out", str(tmp_path / "run"), *options]
        try:
            STUDY.main(own)
        except SystemExit as end:
            return end.code, capsys.readouterr().err.strip().splitlines()
        return 0, (tmp_path / "run" / "report.html").read_text()

    return run


def test_more_classes_than_images_of_the_clocks_are_refused(labelled, tmp_path):
    names = [f"class {place}" for place in range(24)]
    code, lines = labelled(names, np.tile(np.arange(24), 6), "--clocks.images", "23")
    assert code == 2 and len(lines) == 1
    assert "--clocks.images = 23: must be at least 24, the number of classes of the training images" in lines[0]
    assert not (tmp_path / "run" / "stages").exists()


def test_labels_of_one_class_have_no_clocks(labelled):
    code, report = labelled(["one", "two"], np.zeros(80, int))
    assert code == 0 and "Skipped clocks: the images have no labels of two or more classes." in report


def test_held_out_images_of_other_classes_have_no_clocks():
    def why(train, held):
        sets = [SimpleNamespace(labels=np.array(labels), class_names="abc") for labels in (train, held)]
        return clocks.skips(clocks.PRESETS["smoke"], SimpleNamespace(sets=sets, shape=(8, 8, 1)))

    assert "no labels of two or more" in why([1, 1], [1]) and not why([0, 2, 2], [2])
    assert "classes that the training images have not" in why([0, 1], [0, 2])


def test_gram_matrices_of_random_features_are_in_the_costs(capsys):
    options = ["--parts", "learning", "--learning.features", "8192", "--dry-run"]
    STUDY.main(options)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("learning: random features"))
    # Three matrices of 8192 x 8192 numbers of 8 bytes on a device, and five on the host beside paths of 160 times.
    assert "1.82 GB" in row and "3.44 GB" in row


def test_levels_that_the_network_does_not_take_are_refused():
    network = SimpleNamespace(sigma_min=0.01, sigma_max=80.0)
    looked_at = SimpleNamespace(check=lambda: None, pretrained=SimpleNamespace(denoiser=network))
    config = dataclasses.replace(forms.PRESETS["smoke"], sigma_min=500.0, sigma_max=1000.0)
    with pytest.raises(InputError, match=r"sigma_min = 500\.0: must be such that .* of the network, 0\.01 to 80"):
        forms.check(config, looked_at)


@pytest.mark.slow
def test_smoke_run_of_all_parts_and_its_report(tmp_path, capsys):
    parts = [part.name for part in STUDY.parts]
    out = ["--preset", "smoke", "--parts", *parts, "--out", str(tmp_path / "run")]
    claims = STUDY.main(out)
    assert {claim.id.split("-")[0] for claim in claims} == set(parts)
    assert {claim.id for claim in claims} == set(record_of("explain"))
    for figure in (figure for part in STUDY.parts for figure in part.figures):
        assert (tmp_path / "run" / figure.file).read_bytes()[:4] == b"\x89PNG"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["forms"]
    np.testing.assert_allclose(metrics["missed"]["bare skip"], 1, rtol=1e-6)
    assert set(metrics["nearest"]) <= set(metrics["missed"])
    assert "missed by nearest form on shuffled pixels" in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    STUDY.main(out)
    assert "already finished" in capsys.readouterr().out

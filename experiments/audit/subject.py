"""What an audit compares: generated images, those that the model was trained on, and held-out ones; and its options.

Each set is checked, and whatever can be refused is refused before the network is sampled.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dgu import analysis
from dgu.core.errors import InputError, require
from dgu.models.pretrained import Pretrained
from experiments.audit.sets import NEEDS, Images, check_against, check_set, clipped, read, set_aside
from experiments.decoding import Decoder, DecoderOptions, decoder_of
from experiments.descriptions import in_pictures, network_in_words, sampler_in_words
from experiments.sampling import STUDY_SAMPLER, GuidanceOptions, SamplerConfig, sample_pool
from experiments.study import Cost, Materials, RunDirectory, option
from experiments.study.inputs import note_choice, reading
from experiments.study.materials import SHOWN
from experiments.subjects import load, sampling_cost

#: The network that is sampled where no samples are given.
BUNDLED = "fashion-mnist-14"


@dataclass(frozen=True)
class Options(GuidanceOptions, DecoderOptions):
    """An audit of generated images."""

    samples: str | None = None
    """Generated images: an npz file, an image folder, an EDM zip file or a sample store. None samples the network of
    --checkpoint."""
    samples_split: str = "train"
    """Split of the samples, if the file has splits ("train" is everything if it has none)."""
    reference: str = "fashion-mnist"
    """The images that the model was trained on: such a file, or a name (fashion-mnist, mnist, cifar10,
    fashion-mnist-mini)."""
    reference_split: str = "train"
    """Split of the reference."""
    holdout: str | None = "auto"
    """Images of the reference's source that the model was not trained on. "auto" takes the reference's split "test" if
    it has one, and otherwise does what None does: sets a sixth of the reference aside."""
    holdout_split: str = "test"
    """Split of the held-out images."""
    size: int | None = option(None, ge=1)
    """Side to which the real images are reduced by averaging over areas; None keeps their size, or takes the network's
    where it is sampled."""
    samples_range: tuple[float, float] | None = None
    """Values of black and white in a file of floating-point samples; None infers them from the values."""
    reference_range: tuple[float, float] | None = None
    """Values of black and white in files of floating-point real images; None infers them."""
    checkpoint: str | None = None
    """The network: fashion-mnist-14 (bundled), a network file of dgu (.npz, .safetensors), the directory of a training
    run, one of NVIDIA's snapshots (.pkl), a folder of diffusers, or a network of these as PyTorch saved it (.pt). It is
    sampled if no samples are given (fashion-mnist-14 by default), and attacked by membership inference."""
    features: str | None = None
    """Features of the samples, npy or npz, one row an image, for the part "fidelity", which otherwise uses principal
    components."""
    reference_features: str | None = None
    """Features of the reference."""
    holdout_features: str | None = None
    """Features of the held-out images, where those are given by --holdout."""
    per_class: int = option(800, ge=1)
    """Images sampled of each class (in total, if the network is unconditional)."""
    sampler: SamplerConfig = STUDY_SAMPLER
    seed: int = option(0, ge=0)
    """Seed of sampling, splits and resampling."""

    @property
    def unguided(self) -> str:
        """With these no network is loaded that could be guided."""
        return "--samples and no --checkpoint" if self.samples is not None and self.checkpoint is None else ""

    def check(self) -> None:
        """Ranges rise, and features come with the images that they describe."""
        for name in ("samples_range", "reference_range"):
            ends = getattr(self, name)
            rising = ends is None or (len(ends) == 2 and ends[0] < ends[1])
            require(rising, name, ends, "rising, or None")
        both = (self.features is None) == (self.reference_features is None)
        require(both, "reference_features", self.reference_features, "given with --features, and only then")
        fits = self.holdout_features is None or self.features is not None
        require(fits, "holdout_features", self.holdout_features, "given with --features only")
        given = self.samples is not None or self.features is None
        require(given, "features", self.features, "left out without --samples")


@dataclass(frozen=True)
class Subject:
    """What an audit compares.

    Attributes:
        samples: generated images.
        reference: the images that the model was trained on.
        held: images of the reference's source that it was not trained on: a perfect model's samples are like these.
        aside: rows of the reference that ``held`` was taken from, or None where it was given separately.
        class_names: of the labels; empty without labels.
        network: the network, or None.
        batch_size: images in one evaluation of the network.
        decoder: makes pictures of images that are latents; None where they are no latents.
    """

    samples: Images
    reference: Images
    held: Images
    aside: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    network: Pretrained | None = None
    batch_size: int = 1
    decoder: Decoder | None = None

    @property
    def rest(self) -> np.ndarray:
        """Rows of the reference that are not set aside."""
        kept = np.ones(len(self.reference), bool)
        if self.aside is not None:
            kept[self.aside] = False
        return np.flatnonzero(kept)

    @property
    def compared(self) -> dict[str, Images]:
        """The samples, the reference without what was set aside, and the held-out images."""
        return {"samples": self.samples, "reference": self.reference.rows(self.rest), "held": self.held}

    @property
    def memory(self) -> float:
        """Bytes of the images of all sets."""
        return 4.0 * self.reference.flat.shape[1] * (len(self.samples) + len(self.reference) + len(self.held))


def gather(config: Options, directory: RunDirectory) -> Subject:
    """The sets that the options name; the network is sampled last, where no samples are given."""
    return _subject(config, partial(_sampled, config, directory))


def describe(config: Options, subject: Subject, directory: RunDirectory) -> Materials:
    """The images that are compared and, where there is one, the network that they are from, or that is attacked."""
    samples, reference, held = (f"{len(one):,}" for one in (subject.samples, subject.reference, subject.held))
    height, width, channels = subject.samples.pixels.shape[1:]
    name = config.checkpoint or BUNDLED
    drawn = f"drawn from it by {sampler_in_words(config.sampler)}"
    aside = "set aside from these" if subject.aside is not None else "not used in training"
    said = (
        "" if subject.network is None else network_in_words(name, subject.network, config.guided_by),
        f"Audited are {samples} samples, {drawn if config.samples is None else f'the images of {config.samples}'}; "
        f"compared with {reference} images of {config.reference} ({config.reference_split}), the reference, and "
        f"{held} held-out images, {aside}; all of {height} x {width} x {channels} numbers.",
    )
    rows = {"samples": subject.samples, "reference": subject.reference, "held-out": subject.held}
    # In their order they may be of one class, and at equal distances, too.
    some = {row: np.random.default_rng(config.seed).permutation(len(one))[:SHOWN] for row, one in rows.items()}
    shown = {row: one.pixels[some[row]] for row, one in rows.items()}
    return Materials(" ".join(filter(None, said)), in_pictures(shown, subject.decoder))


def plan(config: Options) -> tuple[Subject, list[Cost]]:
    """The subject with black images in place of samples of the network, and what sampling it costs."""
    subject = _subject(config, partial(_black, config))
    if config.samples is not None or subject.network is None:
        return subject, []
    sampler = config.sampler
    cost = sampling_cost(subject.network.network, len(subject.samples), sampler.evaluations, sampler.batch_size)
    return subject, [cost]


def _subject(config: Options, sample: Callable[[Pretrained, tuple[int, ...]], np.ndarray]) -> Subject:
    """The sets; ``sample(network, labels)`` gives images of the network, class by class."""
    _check_files(config)
    network = None
    if config.samples is None or config.checkpoint is not None:
        network = load(config.checkpoint or BUNDLED, guidance=config)
    size = config.size
    if size is None and network is not None and config.samples is None:
        size = _reducible(config, network.network.shape)
    reference, held, aside, names = _real(config, size)
    decoder = decoder_of(config, reference.pixels.shape[1:])
    if config.samples is not None:
        samples = _given(config, reference, held, names)
    else:
        assert network is not None
        samples = _from_network(config, network, reference, names, sample)
    return Subject(samples, reference, held, aside, names, network, config.sampler.batch_size, decoder)


def _real(config: Options, size: int | None) -> tuple[Images, Images, np.ndarray | None, tuple[str, ...]]:
    """Reference and held-out images, the rows of the reference that were set aside, and the names of the classes."""
    reference, names = read("reference", config.reference, config.reference_split, size, config.reference_range)
    held, held_option = _held_out(config, size)
    aside = set_aside(reference, config.seed) if held is None else None
    check_set("reference", reference, "reference")
    if held is not None:
        check_set(held_option, held, "holdout")
        check_against((held_option, held), ("the reference", reference))
    if config.features is not None:
        reference, held = _with_features(config, reference, held)
    if aside is not None:
        held = reference.rows(aside)
    assert held is not None
    return reference, held, aside, names


def _given(config: Options, reference: Images, held: Images, names: tuple[str, ...]) -> Images:
    """The samples of the file, without labels where those are not the reference's."""
    assert config.samples is not None
    samples, own_names = read("samples", config.samples, config.samples_split, None, config.samples_range)
    fits = samples.labels is None or int(samples.labels.max()) < len(names)
    same = not own_names or len(own_names) == len(names)
    samples = samples if fits and same else replace(samples, labels=None)
    check_set("samples", samples, "samples")
    for shown, other in (("the reference", reference), ("the held-out images", held)):
        check_against(("samples", samples), (shown, other))
    if config.features is None:
        return samples
    features = _features("features", config.features, len(samples))
    assert reference.features is not None
    width = reference.features.shape[1]
    require(features.shape[1] == width, "features: columns", features.shape[1], f"{width}, as in --reference-features")
    return replace(samples, features=features)


def _from_network(
    config: Options,
    network: Pretrained,
    reference: Images,
    names: tuple[str, ...],
    sample: Callable[[Pretrained, tuple[int, ...]], np.ndarray],
) -> Images:
    """Samples of the network, with labels where its classes are the reference's."""
    shape, classes = network.network.shape, network.network.unet.label_dim
    wanted = f"{shape}, the network's (see --size)"
    require(reference.pixels.shape[1:] == shape, "reference: shape of an image", reference.pixels.shape[1:], wanted)
    drawn = tuple(range(max(classes, 1)))
    least, statistic = NEEDS["samples"]
    enough = config.per_class * len(drawn) >= least
    require(enough, "per_class", config.per_class, f"enough for {least} samples or more: {statistic}")
    pixels = sample(network, drawn)
    labels = np.repeat(np.arange(len(drawn), dtype=np.int32), config.per_class)
    return Images(pixels, labels if classes == len(names) and classes > 1 else None)


def _sampled(config: Options, directory: RunDirectory, network: Pretrained, labels: tuple[int, ...]) -> np.ndarray:
    """Images of the network from the store of the run."""
    count, seed = config.per_class, config.seed
    pool = sample_pool(directory, network, config.sampler, labels=labels, count=count, seed=seed)
    pixels = clipped(pool.reshape(-1, *network.network.shape))
    check_set("samples", Images(pixels, None), "samples")
    return pixels


def _black(config: Options, network: Pretrained, labels: tuple[int, ...]) -> np.ndarray:
    return np.zeros((config.per_class * len(labels), *network.network.shape), np.float32)


def _reducible(config: Options, shape: tuple[int, ...]) -> int | None:
    """The network's size, where the reference has to be reduced to it; images of another size are refused later on."""
    first, _ = read("reference", config.reference, config.reference_split, None, config.reference_range)
    height, width = first.pixels.shape[1:3]
    larger = height == width and shape[0] == shape[1] < height and height % shape[0] == 0
    return shape[0] if larger else None


def _check_files(config: Options) -> None:
    """No set may be the file of another."""
    sources = {
        "samples": (config.samples, config.samples_split),
        "holdout": (None if config.holdout == "auto" else config.holdout, config.holdout_split),
        "reference": (config.reference, config.reference_split),
    }
    resolved = {
        name: (str(Path(value).resolve()) if Path(value).exists() else value, split)
        for name, (value, split) in sources.items()
        if value is not None
    }
    for name, other in (("samples", "reference"), ("samples", "holdout"), ("holdout", "reference")):
        if name in resolved and resolved[name] == resolved.get(other):
            raise InputError(f"{name} = {sources[name][0]!r}: must be another set than --{other}")
    for other, path in (
        ("--reference-features", config.reference_features),
        ("--holdout-features", config.holdout_features),
    ):
        if config.features is not None and path is not None and Path(config.features).resolve() == Path(path).resolve():
            raise InputError(f"features = {config.features!r}: must be another file than {other}")


def _held_out(config: Options, size: int | None) -> tuple[Images | None, str]:
    """The held-out images with the option that names them; None where part of the reference has to do."""
    if config.holdout is None:
        return None, ""
    if config.holdout != "auto":
        held, _ = read("holdout", config.holdout, config.holdout_split, size, config.reference_range)
        return held, "holdout"
    if config.reference_split == config.holdout_split:
        return None, ""
    try:
        held, _ = read("holdout", config.reference, config.holdout_split, size, config.reference_range)
    except InputError:  # It has no such split.
        note_choice("holdout", "auto", "a part of the reference")
        return None, ""
    note_choice("holdout", "auto", f"the split {config.holdout_split}")
    return held, "holdout (auto)"


def _features(name: str, path: str, count: int) -> np.ndarray:
    try:
        with reading(name, path, path):
            found = analysis.read_features(path)
    except InputError as error:
        raise InputError(f"{name} = {path!r}: {error}") from error
    return analysis.checked_features(found.reshape(len(found), -1), count, f"{name} = {path!r}")


def _with_features(config: Options, reference: Images, held: Images | None) -> tuple[Images, Images | None]:
    """Both with the rows of their files."""
    assert config.reference_features is not None
    rows = _features("reference_features", config.reference_features, len(reference))
    reference = replace(reference, features=rows)
    if held is None:
        own = config.holdout_features
        require(own is None, "holdout_features", own, "left out without --holdout")
        return reference, None
    if config.holdout_features is None:
        raise InputError(
            "holdout_features = None: must be given with --features, or --holdout None sets reference images aside"
        )
    held_rows = _features("holdout_features", config.holdout_features, len(held))
    width = rows.shape[1]
    require(held_rows.shape[1] == width, "holdout_features: columns", held_rows.shape[1], str(width))
    return reference, replace(held, features=held_rows)

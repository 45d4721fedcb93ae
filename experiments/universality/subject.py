"""What the universality study looks at: samples of a network, or given images, and the replicates that parts share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dgu.data.splits import check_no_duplicates
from dgu.models import load_checkpoint
from experiments import train as trainer
from experiments.study import Cost, Findings, RunDirectory
from experiments.study.checkpoints import load, planned, sampling_cost
from experiments.study.pool import real_classes, sample_pool
from experiments.study.progress import Progress
from experiments.universality.features import PIXELS, Source, computed, dimension, prepare
from experiments.universality.images import Plan, given, network_to_train, of_network
from experiments.universality.options import Options
from experiments.universality.problems import tasks
from experiments.universality.replicates import Examples, arm_names, flat, replicate

PAPER = "concentration"


@dataclass(frozen=True)
class Subject:
    """The images of a run and what its parts share: images are sampled and replicates measured when first needed.

    Attributes:
        options: of the study.
        directory: the run directory, where the shared stages are stored.
        class_names: names of the K classes studied.
        dimension: numbers that represent one example, d: pixels or features.
        real: real images of the same classes, (K, n, H, W, C), or None.
        source: where features come from.
        draw: returns the images; see ``samples``.
    """

    options: Options
    directory: RunDirectory
    class_names: tuple[str, ...]
    dimension: int
    real: np.ndarray | None
    source: Source
    draw: Callable[[], np.ndarray]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms in the order of result arrays."""
        return arm_names(self.options, self.real is not None)

    @property
    def unit(self) -> str:
        """What the numbers of an example are: pixels or features."""
        return "pixel" if self.source.kind == PIXELS else "feature"

    @cached_property
    def samples(self) -> np.ndarray:
        """The images studied, (K, P, H, W, C) in [-1, 1]."""
        images = self.draw()
        check_no_duplicates(images.reshape(-1, *images.shape[2:]), "samples")
        return images

    @cached_property
    def examples(self) -> Examples:
        """The images as classifiers see them; features are stored as the stage ``features``."""
        samples, real, black_white = self.samples, self.real, self.options.pixel_range
        pixels = samples.reshape(*samples.shape[:2], -1)
        if self.source.kind == PIXELS:
            return Examples(flat(samples, black_white), pixels, None if real is None else flat(real, black_white))
        found = self.directory.stage("features", lambda: computed(self.options, self.source, samples, real))
        return Examples(found["samples"], pixels, found.get("real"))

    @cached_property
    def replicates(self) -> dict[str, np.ndarray]:
        """Results of all replicates, stacked; each is stored as a stage ``replicates/NNN`` of its own.

        ``PROBLEM.accuracy`` and ``PROBLEM.loss`` (replicate, train arm, test arm, subset, size), ``PROBLEM.rate`` and
        ``PROBLEM.epoch`` (replicate, train arm, subset, size); ``covariance.ARM`` (replicate, class, rank) and
        ``gram.ARM`` (replicate, rank).
        """
        found = []
        with Progress("replicates", total=self.options.replicates, unit="splits") as bar:
            for number in range(self.options.replicates):
                found.append(self._replicate(number))
                bar.update()
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    def _replicate(self, number: int) -> dict[str, np.ndarray]:
        stage = f"replicates/{number:03d}"
        return self.directory.stage(stage, lambda: replicate(self.options, self.examples, number), allow_nonfinite=True)


def gather(options: Options, directory: RunDirectory) -> Subject:
    """The images given, or how to sample the network; and the real images beside them.

    Whatever can be refused is refused here, before a network is trained or sampled.
    """
    if options.samples is not None:
        plan, images = given(options)
        subject = _subject(options, directory, plan, lambda: images)
        _ = subject.samples  # Refuses copies.
        return subject
    if options.train:
        plan = of_network(options, *network_to_train(options))
        return _subject(
            options, directory, plan, lambda: _sampled(options, directory, plan, _trained(options, directory))
        )
    network = load(options.checkpoint)
    plan = of_network(options, network.network, network.class_names)
    return _subject(options, directory, plan, lambda: _sampled(options, directory, plan, network))


def introduce(options: Options, subject: Subject) -> Findings:
    """What was studied: the first paragraph of the report."""
    kind = subject.source.kind
    seen = "pixels" if kind == PIXELS else f"{kind} features"
    return Findings(
        f"{options.splits.total} images of each of {len(subject.class_names)} classes, represented by "
        f"{subject.dimension} {seen} each, were split {options.replicates} times (the replicates) into images that "
        "mixtures are fitted to and images that classifiers are trained and tested on.",
        metrics={"arms": subject.arms, "dimension": subject.dimension},
    )


def plan(options: Options) -> tuple[Plan, list[Cost]]:
    """Classes and shapes for a dry run, and the costs of the images and of the replicates that the parts share."""
    if options.samples is not None:
        of_images, _ = given(options)
        return of_images, _replicate_costs(options, of_images)
    network = network_to_train(options)[0] if options.train else planned(options.checkpoint)
    of_images = of_network(options, network, ())
    training = [trainer.dry_run(options.training)[0]] if options.train else []
    sampler = options.sampler
    drawn = sampling_cost(network, of_images.row_count, sampler.evaluations, sampler.batch_size)
    return of_images, [*training, drawn, *_replicate_costs(options, of_images)]


def _subject(options: Options, directory: RunDirectory, plan: Plan, draw: Callable[[], np.ndarray]) -> Subject:
    real = real_classes(options, plan.labels, plan.names, plan.shape)
    source, real = prepare(options, plan, real)
    names = tuple(plan.names[label] for label in plan.labels)
    return Subject(options, directory, names, dimension(options, plan.shape), real, source, draw)


def _sampled(options: Options, directory: RunDirectory, plan: Plan, network: Any) -> np.ndarray:
    return sample_pool(directory, network, plan.labels, options.splits.total, options.sampler, options.seed)


def _trained(options: Options, directory: RunDirectory) -> Any:
    return load_checkpoint(trainer.train(options.training, directory.path / "training"))


def _replicate_costs(options: Options, plan: Plan) -> list[Cost]:
    """Mixtures and classifiers of all replicates; making features costs little beside."""
    k, d = len(plan.labels), dimension(options, plan.shape)
    arms = 3 + bool(options.low_rank_fit) + (options.real is not None)  # auto counts as given
    splits, recipe = options.splits, options.recipe
    drawn = splits.train + splits.validation + splits.test * options.gaussian_test_factor
    fit_flop = 0.0
    for task in tasks(options, k, d, 0).values():
        width = recipe.width if task.two_layer else task.classes.shape[1]
        of = 3 if task.two_layer else arms
        visits = len(task.classes) * sum(task.per_class) * task.classes.shape[1] * recipe.epochs
        fit_flop += of * len(recipe.learning_rates) * visits * 4 * d * width
    fit_rows = min(splits.fit, d)
    mixture = 2 * k * (2 * splits.fit * d * fit_rows + 2 * drawn * fit_rows * d)
    image = 4 * k * d
    fits, held = image * (arms * drawn + 2 * splits.fit), image * (arms * drawn + splits.total)
    return [
        Cost("mixtures", 0, options.replicates * mixture, fits, 0),
        Cost("classifiers", 0, options.replicates * fit_flop, held, options.replicates * image * 6),
    ]

"""How does a diffusion model's distance from its target develop in training time? ``python -m experiments.generalization``

The KL divergence between the target and the modelled distribution is followed through training, over seeds, numbers of examples,
distances of modes, capacities and optimisers, with the bounds of Li et al., arXiv 2311.01797, beside what is measured. Every
statement is about the distribution over seeds: the figures of single runs with SGD are mostly its noise.
"""

from typing import Any

from dgu.core import parallel
from experiments.generalization_parts.config import EVERY, Config
from experiments.generalization_parts.images_config import ImagesConfig
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.report import Report, check_promises
from experiments.study.run_directory import RunDirectory

PRESETS = {
    # Trainings of the same shapes, eight at once, so that each optimiser is compiled once; a hundred examples everywhere.
    "smoke": Config(
        epochs=4, evaluations=2, seeds=8, sizes=(100,), chunk_size=8, shift_points=51, modes=(3.0, 15.0), shift_seeds=4,
        widths=(4, 16), capacity_seeds=4, capacity_epochs=4, remark_epochs=4, remark_seeds=2, mode_widths=(1.0, 2.0),
        box_dimensions=(1, 2), box_seeds=2, box_epochs=4, box_width=16, box_examples=100, flow_sizes=(10, 30), flow_features=16,
        flow_seeds=2, divergence_examples=100, divergence_networks=2,
        images=ImagesConfig(
            data="fashion-mnist-mini", split="test", size=7, clusters=4, components=10, restarts=2, smallest=60, train=24, held_out=16,
            shifts=1, channels=(8,), epochs=2, bins=2, batch_size=8, seeds=2, levels=2, draws=1, likelihoods=4, probes=2,
            tolerance=0.1, samples=16, steps=2,
        ),
    ),
    "default": Config(),
    "paper": Config(
        seeds=100, shift_seeds=50, widths=tuple(2**k for k in range(1, 12)), capacity_seeds=20, capacity_epochs=10_000,
        evaluations=100, remark_seeds=50, box_seeds=20, box_epochs=2000, box_examples=2000, flow_sizes=(10, 30, 100, 300, 1000, 3000),
        flow_features=1024, flow_seeds=50, divergence_examples=10_000, divergence_networks=20,
        images=ImagesConfig(
            data="mnist", size=None, channels=(32, 64, 128, 256), epochs=1000, seeds=10, levels=20, likelihoods=128, probes=16,
            tolerance=1e-3, samples=1000, steps=64, restarts=10,
        ),
    ),
}  # fmt: skip


def parts_of(config: Config) -> list[Any]:
    """The modules of the parts asked for, in their order."""
    from importlib import import_module

    return [import_module(f"experiments.generalization_parts.{name}") for name in EVERY if name in config.parts]


def run(config: Config, directory: RunDirectory) -> Report:
    """Every part asked for in turn; each stores what it computed."""
    from experiments.generalization_parts import shift
    from experiments.study.progress import Progress

    parts, sections = parts_of(config), []
    # What cannot be used is said before minutes of other work.
    if "shift" in config.parts:
        shift.check_grids(config)
    if "images" in config.parts:
        parts[-1].load(config.images)
    with Progress("parts of the study", total=len(parts), unit="parts") as bar:
        for part in parts:
            print(f"{part.TITLE} ...", flush=True)
            sections.append(part.run(config, directory))
            check_promises(f"the part {part.TITLE}", sections[-1], part.CLAIM_IDS, part.FIGURE_FILES)
            bar.update()
    claims = [claim for section in sections for claim in section.claims]
    metrics = {section.title: section.metrics for section in sections}
    metrics["claims"] = {
        claim.id: {"value": claim.value, "interval": claim.interval, "verdict": claim.verdict} for claim in claims
    }
    directory.write_json("metrics.json", metrics)
    return Report(
        "Generalisation in training time",
        " ".join(section.answer for section in sections),
        claims,
        [figure for section in sections for figure in section.figures],
        [table for section in sections for table in section.tables],
    )


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost, by its counts of examples, epochs and units."""
    parts = parts_of(config)
    if "images" in config.parts:
        print(parts[-1].estimate(config))
    return [cost for part in parts for cost in part.costs(config)]


if __name__ == "__main__":
    begin("generalization", parallel.start)
    run_experiment(
        PRESETS,
        run,
        name="generalization",
        description="How does a diffusion model's distance from its target develop in training time, over seeds, sizes, distances "
        "of modes and capacities?",
        dry_run=dry_run,
    )

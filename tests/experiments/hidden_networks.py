"""What the tests of the trained networks of ``hidden_gaussian`` share: images, and a trainer of tiny networks."""

from experiments.hidden_gaussian import networks
from experiments.hidden_gaussian.arms import Design
from tests.experiments.universality_study import images, save_images


def write_sources(folder):
    """Images of 6 x 6 pixels, 48 to train on and 20 held out, and the options that name their files."""
    train, held = (save_images(folder / f"{seed}.npz", *images(count, seed=seed)) for seed, count in ((0, 12), (1, 5)))
    return ["--networks.data", train, "--networks.heldout-data", held, "--networks.heldout-split", "train"]


def tiny(sources, **changed):
    """Tiny networks, and their images."""
    smoke = networks.PRESETS["smoke"]
    own = {
        "data": sources[1],
        "heldout_data": sources[3],
        "heldout_split": "train",
        "pad": 0,
        "size": None,
        "network": smoke.network,
        "training": smoke.training,
        "held_out": 12,
        "pairs": 6,
        "samples": 5,
        "steps": 8,
        "levels": 4,
        "seeds": 2,
    }
    config = networks.Config(**own | changed)
    return Design(config, networks.gather(config), 0)

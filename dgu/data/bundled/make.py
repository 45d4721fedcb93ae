"""Makes the bundled subset from the full set: ``python -m dgu.data.bundled.make OUT.npz``."""

import sys

import numpy as np

from dgu.data.named import read_named

PER_CLASS = 200


def main(path: str) -> None:
    """Write the first ``PER_CLASS`` images of each class of Fashion-MNIST's test file, in the order of the file."""
    full = read_named("fashion-mnist", "test")
    kept = np.sort(np.concatenate([np.flatnonzero(full.labels == label)[:PER_CLASS] for label in range(10)]))
    np.savez_compressed(path, x_test=full.images[kept, ..., 0], y_test=full.labels[kept].astype(np.uint8))


if __name__ == "__main__":
    main(sys.argv[1])

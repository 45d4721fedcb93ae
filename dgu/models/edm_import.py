"""Convert a snapshot of EDM or EDM2 to a network file: ``python -m dgu.models.edm_import SNAPSHOT.pkl OUT``.

``OUT`` is the ``.npz`` or ``.safetensors`` to write, or a folder for its ``network.npz``. The file holds the
weights under the reference's names in float32, uncompressed so that loading maps it into memory, and as JSON the
configuration and the SHA-256 of the snapshot. Every ``--checkpoint`` option takes it, and
``dgu.models.load_checkpoint``. Nothing in the snapshot is executed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dgu.core.errors import InputError
from dgu.models.edm import EDMNetwork
from dgu.models.pretrained import read_pickle, save_network


def convert(snapshot: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Read the snapshot and write the network file; returns its path. Nothing is written where the snapshot is
    unusable.

    Raises:
        CheckpointError: the snapshot cannot be read.
        InputError: the file cannot be written.
    """
    model = read_pickle(snapshot)
    assert isinstance(model.network, EDMNetwork)
    path = Path(out)
    if path.is_dir():
        path = path / "network.npz"
    save_network(path, model.network, model.denoiser.params, model.metadata, compress=False)
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; bad input ends in one line and exit code 2."""
    parser = argparse.ArgumentParser("python -m dgu.models.edm_import", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("snapshot", help="NVIDIA's file, network-snapshot-*.pkl, edm-*.pkl or edm2-*.pkl")
    parser.add_argument("out", help="the .npz or .safetensors to write, or a folder for network.npz")
    options = parser.parse_args(argv)
    try:
        path = convert(options.snapshot, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB); pass it to the option --checkpoint of any experiment")


if __name__ == "__main__":
    main()

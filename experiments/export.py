"""Write a network as one file of dgu's own: ``dgu export CHECKPOINT OUT``.

The file holds the weights under the reference's names, and as JSON the configuration, the class names and what is
known of the training: a safetensors file in its header, an npz beside the arrays. Both are mapped into memory when
they are loaded, and every ``--checkpoint`` takes them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dgu.core.errors import printable
from experiments.study.command_line import run_command
from experiments.study.guide import Guide
from experiments.study.options import Options
from experiments.study.outputs import check_files


@dataclass(frozen=True)
class Config(Options):
    """Write a network of EDM's or EDM2's as one file of dgu's own."""

    checkpoint: str
    """Network to write: the bundled fashion-mnist-14, a network file of dgu (.npz, .safetensors), the directory of a
    training run, or one of NVIDIA's snapshots (.pkl)."""
    out: Path
    """File to write, .safetensors or .npz."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the numbers in the file; they are computed with as float32 in any case."""


def run(config: Config) -> None:
    """Write the file, and print where it is and its size."""
    from dgu.models import export_network
    from dgu.models.pretrained import network_file

    check_files({"out": config.out}, {"checkpoint": network_file(config.checkpoint)})
    path = export_network(config.checkpoint, config.out, config.dtype)
    print(f"{printable(str(path))} ({os.path.getsize(path) / 1e6:.1f} MB); every --checkpoint takes it")


GUIDE = Guide(
    examples={
        "--checkpoint runs/my-network --out my-network.safetensors": "A network that you trained.",
        "--checkpoint edm-cifar10-32x32-cond-vp.pkl --out cifar.npz --dtype float16": "One of NVIDIA's.",
    }
)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_command(Config, run, name="export", guide=GUIDE, argv=argv)


if __name__ == "__main__":
    main()

"""Published files that are asked for by name: where they come from, how what dgu reads is made of them, and how large
they are.

Nothing is downloaded. No digests of these files are recorded here, since none has been checked: what a run read is in
its ``inputs.json``.
"""

from pathlib import PurePath

#: EDM's program that makes the zip files, and the folder of its authors' networks.
_TOOL = "dataset_tool.py of https://github.com/NVlabs/edm"
_NETWORKS = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"
#: Millions of parameters of EDM's networks, by the beginning of their names.
_MILLIONS = {
    "edm-imagenet-64x64-cond-adm": 295.9,
    "edm-cifar10-32x32-uncond-vp": 55.7,
    "edm-ffhq-64x64-uncond-vp": 61.8,
    "edm-ffhq-64x64-uncond-ve": 62.8,
    "edm-afhqv2-64x64-uncond-vp": 61.8,
    "edm-afhqv2-64x64-uncond-ve": 62.8,
}
#: Sets of images: images, what they are, where they come from, and what EDM's program is given; None where the papers
#: do not say how theirs were made.
_SETS = {
    "ffhq-64x64.zip": (
        70_000, "FFHQ", "https://github.com/NVlabs/ffhq-dataset", "--source=images1024x1024 --resolution=64x64",
    ),
    "afhqv2-64x64.zip": (
        15_803, "AFHQv2", "https://github.com/clovaai/stargan-v2 (afhq-v2-dataset)",
        "--source=afhqv2 --resolution=64x64",
    ),
    "imagenet-64x64.zip": (
        1_281_167, "ImageNet", "https://www.kaggle.com/competitions/imagenet-object-localization-challenge",
        "--source=ILSVRC/Data/CLS-LOC/train --resolution=64x64 --transform=center-crop",
    ),
    "celeba-hq-64x64.zip": (
        30_000, "CelebA-HQ", "https://github.com/tkarras/progressive_growing_of_gans", None,
    ),
    "celeba-64x64.zip": (202_599, "CelebA", "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", None),
    "lsun-churches-64x64.zip": (126_227, "LSUN, outdoor churches", "https://github.com/fyu/lsun", None),
}  # fmt: skip
#: Bytes of an image's pixels, and as the float32 numbers that are read.
_PIXELS, _FLOATS = 64 * 64 * 3, 4 * 64 * 64 * 3


def origin(name: str) -> str:
    """Where a published file comes from, how it is made and its size, in one line; empty for a name that is none.

    Args:
        name: a file's name or path; the last part is looked at.
    """
    file = PurePath(name).name
    if file in _SETS:
        return _of_set(file)
    if not (file.startswith("edm-") and file.endswith(".pkl")):
        return ""
    known = _MILLIONS.get(file.removesuffix(".pkl"))
    size = f"about {4 * known / 1000:.2g} GB ({known:g} million float32 parameters)" if known else "of unrecorded size"
    return f"a network of EDM's authors, at {_NETWORKS}{file}, read as it is; {size}; no digest of it is recorded"


def _of_set(file: str) -> str:
    count, title, source, options = _SETS[file]
    given = options or "--source=FOLDER --resolution=64x64 (the papers do not say how they cropped the images)"
    gib = -(-count * _FLOATS // 2**30)
    return (
        f"{title}, {count:,} images, from {source}; made by {_TOOL} with --dest={file} {given}; "
        f"{count * _PIXELS / 1e9:.2g} GB of pixels, read with DGU_MAX_GIB={gib} or more; no digest of it is recorded"
    )

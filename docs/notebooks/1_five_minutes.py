# %% [markdown]
# # Five minutes with dgu
#
# Load a network, sample it, ask for the likelihood of an image, look at a Jacobian, and run a part of a study. Everything is in the
# package: a network of 265,217 parameters, trained on Fashion-MNIST at 14 x 14, and 2,000 held-out images.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from dgu import data, plots, samplers
from dgu.models import load_checkpoint

trained = load_checkpoint("fashion-mnist-14")
network = trained.denoiser  # network.given(label) is the denoiser of one class
held_out = data.load("fashion-mnist-mini", "test", 14)
print(trained.class_names)

# %% [markdown]
# ## A denoiser
#
# `denoiser(x, sigma)` takes **one** noisy example and its noise level, and estimates the clean one. Batches are `jax.vmap`.

# %%
image, label = held_out.images[1], int(held_out.labels[1])
sigmas = np.array([0.1, 0.5, 1.0, 3.0])
noises = jax.random.normal(jax.random.key(0), (4, 14, 14, 1))
noisy = image + sigmas[:, None, None, None] * noises
denoised = jax.vmap(network.given(label))(noisy, sigmas)
plots.image_grid(np.stack([noisy, denoised]), ("noisy", "denoised"), [f"σ = {sigma:g}" for sigma in sigmas])

# %% [markdown]
# ## Samples
#
# Three samples of each class by EDM's sampler, 35 evaluations of the network each. Sample 17 is sample 17: it depends on the key and its
# number alone, on any machine and in any batch. `progress` is called when a batch has come back.

# %%
levels = samplers.karras_sigmas(18)
labels = np.repeat(np.arange(10), 3)
with tqdm(total=30, unit="images") as bar:
    x = samplers.sample(
        network, jax.random.key(1), range(30), levels, shape=(14, 14, 1), labels=labels, batch_size=10,
        progress=lambda done, total: bar.update(done - bar.n),
    )  # fmt: skip
plots.image_grid(np.swapaxes(x.reshape(10, 3, 14, 14, 1), 0, 1), ("", "", ""), trained.class_names)

# %% [markdown]
# ## Likelihood
#
# The log density of one example under the probability-flow ODE, in nats. With `probes` the trace of the Jacobian is estimated, and the
# standard error comes with it. The image is better explained by its own class than by another one:

# %%
other = (label + 5) % 10
nats = {}
for name, given in (("its own class", label), ("another class", other)):
    nats[name], error = samplers.log_likelihood(
        network.given(given), image, key=jax.random.key(2), probes=8, rtol=1e-3, atol=1e-3
    )
    print(f"{name} ({trained.class_names[given]}): {nats[name]:.1f} nats, standard error {error:.1f}")

# %% [markdown]
# ## Jacobian
#
# For a posterior mean the Jacobian is `Cov(x0 | x) / sigma^2`: its singular vectors are what is still uncertain about the image.

# %%
jacobian = jax.jacfwd(network.given(label))(noisy[2], sigmas[2]).reshape(196, 196)
_, values, vectors = np.linalg.svd(np.asarray(jacobian))
figure, axes = plt.subplots(figsize=(5, 3))
axes.semilogy(values, ".")
axes.set_xlabel("rank")
axes.set_ylabel("singular value at sigma = 1")
plots.image_grid(
    plots.stretched(vectors[None, :6].reshape(1, 6, 14, 14, 1)), ("",), [f"vector {k + 1}" for k in range(6)]
)

# %% [markdown]
# ## A part of a study
#
# Each study is a command, and a function. This is `python -m experiments.hidden_gaussian --parts linearity` at its smallest size: how
# linear is the network, beside the Gaussian with the data's moments and controls? The directory holds figures, claims and a report.

# %%
from pathlib import Path

from IPython.display import Image

from experiments.hidden_gaussian import STUDY

claims = STUDY.main(["--preset", "smoke", "--parts", "linearity", "--out", "linearity"])
print(sorted(file.name for file in Path("linearity/figures").iterdir()))

# %%
Image("linearity/figures/linearity.png", width=700)

# %% [markdown]
# ## Check
#
# What this page says, as code; a build of this site fails where it does not hold.

# %%
assert np.isfinite(x).all() and abs(x).max() < 1.5
assert nats["its own class"] > nats["another class"] + 10
assert (
    samplers.sample(network, jax.random.key(1), [17], levels, shape=(14, 14, 1), labels=labels[[17]], batch_size=10)
    == x[17]
).all()
assert values[0] > 1.5 * values[20]

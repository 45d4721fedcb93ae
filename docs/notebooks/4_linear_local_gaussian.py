# %% [markdown]
# # Linear, local, Gaussian: what explains a network?
#
# Which simple denoiser does what a trained network does? Candidates of different kinds, each with a closed form, are compared with the
# bundled network on held-out images of one class: the Gaussian with the class's mean and covariance; the same Gaussian seen through 5 x 5 windows;
# the images themselves, whole and through 5 x 5 windows; the best affine map of the network itself; and, as a control, the mean image alone.

# %%
import jax
import numpy as np

from dgu import analysis, data, plots, training
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LocalDenoiser, LocalGaussianDenoiser, load_checkpoint

trained = load_checkpoint("fashion-mnist-14")
label = 9
network = trained.denoiser.given(label)
bundled = data.load("fashion-mnist-mini", "test", 14)
images = bundled.images[bundled.labels == label]
fitted, held_out = images[:150], images[150:]  # What candidates are made of, and where all are compared.
sigmas = np.array([0.1, 0.3, 1.0, 3.0, 10.0])

# %% [markdown]
# The affine map is found from the network's outputs in one pass (`distill_exactly`), with 8 noises of each image:

# %%
distilled = training.distill_exactly(network, fitted, sigmas, jax.random.key(0), draws=8, antithetic=True)
mean_image = jax.tree_util.Partial(lambda mean, x, sigma: mean, fitted.mean(0))  # Ignores what it is given.
candidates = {
    "mean image": mean_image,
    "affine, of the network": distilled.denoiser,
    "Gaussian": GaussianDenoiser.fit(fitted),
    "Gaussian, 5 x 5": LocalGaussianDenoiser.fit(fitted, 5),
    "images": EmpiricalDenoiser(fitted),
    "images, 5 x 5": LocalDenoiser(fitted, 5),
}

# %% [markdown]
# How much of what the network does is left unexplained? The squared distance of a candidate's output from the network's, over that of the
# noisy image from the network's output: the relative error of the score `(D(x, sigma) - x) / sigma^2`, as a mean over held-out images. At high
# noise nearly all of the score is `-x / sigma^2`, so that little is left by anything: compare candidates with the mean image.


# %%
@jax.jit
def outputs(denoiser, noisy, sigma):
    return jax.vmap(denoiser, (0, None))(noisy, sigma)


curves = {name: [] for name in candidates}
for number, sigma in enumerate(sigmas):
    noisy = held_out + sigma * jax.random.normal(jax.random.key(1 + number), held_out.shape)
    target = outputs(network, noisy, sigma)
    nothing = np.square(noisy - target).sum((1, 2, 3))
    for name, candidate in candidates.items():
        left = np.square(outputs(candidate, noisy, sigma) - target).sum((1, 2, 3)) / nothing
        curves[name].append(left)
unexplained = {name: analysis.t_interval(np.array(each)) for name, each in curves.items()}
panel = plots.LevelPanel("ankle boots, 14 x 14", "unexplained share", sigmas, unexplained, log=True)
plots.level_curves([panel])

# %% [markdown]
# And what they make of one noisy image, at two noise levels:

# %%
shown = []
for sigma in (0.3, 3.0):
    noisy = held_out[0] + sigma * jax.random.normal(jax.random.key(9), held_out[0].shape)
    shown.append([held_out[0], noisy, network(noisy, sigma), *(each(noisy, sigma) for each in candidates.values())])
names = ("clean", "noisy", "network", "mean", "affine", "Gaussian", "G. 5 x 5", "images", "i. 5 x 5")
plots.image_grid(np.array(shown), ("sigma = 0.3", "sigma = 3"), names)

# %% [markdown]
# At sigma = 3 the whole Gaussian explains the network far better than the mean image does, and better than one that sees 5 x 5 windows: there
# the network uses the whole image. As the noise falls it leaves both, and becomes local: at 0.1 the Gaussian of windows is the nearest of all,
# nearer than the best affine map of the network itself. Whole images are no explanation: where the noise is low, the network does not
# put out the nearest of them. The study
# [`hidden_gaussian`](../studies.md#hidden-gaussian-structure) asks this at full size, with controls: a network that was not trained, one with
# shuffled weights, and denoisers that are known to be far from linear.
#
# ## Check

# %%
values = {name: each.value for name, each in unexplained.items()}
print({name: np.round(value, 4).tolist() for name, value in values.items()})
assert values["Gaussian"][3] < 0.5 * values["mean image"][3], "at sigma = 3 covariances explain much"
assert values["Gaussian"][3] < values["Gaussian, 5 x 5"][3], "and the network sees the whole image,"
assert values["Gaussian"][0] > values["Gaussian, 5 x 5"][0], "but becomes local as the noise falls"
assert (values["images"] > values["affine, of the network"]).all(), "it does not put out whole images"

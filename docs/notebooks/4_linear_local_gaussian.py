# %% [markdown]
# # Linear, local, Gaussian: what explains a network?
#
# Which simple denoiser does what a trained network does? Candidates of different kinds, each with a closed form, are compared with the
# bundled network on held-out images of one class: the Gaussian with the class's mean and covariance; the same Gaussian seen through 5 x 5 windows;
# the training images themselves, whole and through 5 x 5 windows; and the best affine map of the network itself.

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
candidates = {
    "affine, of the network": distilled.denoiser,
    "Gaussian": GaussianDenoiser.fit(fitted),
    "Gaussian, 5 x 5": LocalGaussianDenoiser.fit(fitted, 5),
    "images": EmpiricalDenoiser(fitted),
    "images, 5 x 5": LocalDenoiser(fitted, 5),
}

# %% [markdown]
# How much of what the network does is left unexplained? The squared distance of a candidate's output from the network's, over that of the
# noisy image's own (the candidate that does nothing), averaged over held-out images. 0 is the network itself.


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
names = ("clean", "noisy", "network", "affine", "Gaussian", "G. 5 x 5", "images", "i. 5 x 5")
plots.image_grid(np.array(shown), ("sigma = 0.3", "sigma = 3"), names)

# %% [markdown]
# At high noise the Gaussian does nearly all that the network does: with so much noise, only mean and covariance are to be seen. As the noise
# falls the network leaves it, and what is left is neither memory of whole images nor a Gaussian. The study
# [`hidden_gaussian`](../studies.md#hidden-gaussian-structure) asks this at full size, with controls: a network that was not trained, one with
# shuffled weights, and denoisers that are known to be far from linear.
#
# ## Check

# %%
values = {name: each.value for name, each in unexplained.items()}
print({name: np.round(value, 4).tolist() for name, value in values.items()})
assert values["Gaussian"][-1] < 0.02, "at the highest noise the Gaussian explains the network"
assert (values["affine, of the network"] < 1).all()
assert (values["images"] > values["affine, of the network"]).all(), "no whole training images are put out"

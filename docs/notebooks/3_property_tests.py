# %% [markdown]
# # Property-test your denoiser
#
# A denoiser that runs may still be wrong: it may draw noise of its own, be off by a factor, or look at pixels it should not. Samples of
# it look blurred or odd, and no test fails. `check_denoiser` holds any callable to the contract of a denoiser, `check_posterior_mean` to what
# only an exact posterior mean has. Below a good one and four broken ones.

# %%
import functools

import jax
import jax.numpy as jnp

from dgu import data
from dgu.models import GaussianDenoiser
from dgu.testing import DenoiserCheckError, check_denoiser, check_posterior_mean

images = data.load("fashion-mnist-mini", "test", 7).images
gaussian = GaussianDenoiser.fit(images)
shape, key = (7, 7, 1), jax.random.key(0)

# %% [markdown]
# ## A good one
#
# The posterior mean of a Gaussian passes both. The report has everything that was measured.

# %%
print(check_denoiser(gaussian, shape, key))

# %%
draw = functools.partial(lambda images, key: images[jax.random.randint(key, (), 0, len(images))], jnp.asarray(images))
exact = functools.partial(check_posterior_mean, shape=shape, key=key, sample_prior=draw, num_prior=512)
print(exact(gaussian))

# %% [markdown]
# ## Four broken ones


# %%
def restless(x, sigma):
    """Adds noise of its own, with a key that never changes: every call gives the same, and all samples share the noise."""
    return gaussian(x, sigma) + 0.1 * jax.random.normal(jax.random.key(1), x.shape)


def crowded(x, sigma):
    """Subtracts the mean over the batch, as a batch normalisation in training mode does."""
    y = gaussian(x, sigma)
    return y - 0.1 * jax.lax.pmean(y, "batch")


def timid(x, sigma):
    """Off by a factor, as with a wrong scale of the data."""
    return 0.9 * gaussian(x, sigma)


def crooked(x, sigma):
    """A picture shifted by one pixel: a row too many in a padding."""
    return jnp.roll(gaussian(x, sigma), 1, axis=0)


broken = {"restless": restless, "crowded": crowded, "timid": timid, "crooked": crooked}
defects = {}
for name, denoiser in broken.items():
    try:
        exact(denoiser)
        defects[name] = ()
    except DenoiserCheckError as error:
        defects[name] = error.report.defects
    print(f"{name}: {broken[name].__doc__}")
    print("".join(f"  - {line}\n" for line in defects[name]) or "  passes\n")

# %% [markdown]
# The first two break the contract, and `check_denoiser` alone finds them. The others keep it, and only what a posterior mean has gives them
# away: a symmetric Jacobian, errors that are orthogonal to the output, an output that is the input where there is no noise.
#
# No *trained* network passes `check_posterior_mean`. For these [`check_network`](../adding-a-denoiser.md#a-trained-network) measures on
# held-out images how far they are from a posterior mean, beside networks known to be good.
#
# ## Check

# %%
names = {name: {line.partition(":")[0] for line in found} for name, found in defects.items()}
print(names)
assert "random_draws" in names["restless"]
assert names["crowded"] & {"batch_coupling", "vmap_loop", "call"}
assert "wiener" in names["timid"] and not names["timid"] & {"asymmetry", "batch_coupling", "random_draws"}
assert "asymmetry" in names["crooked"]

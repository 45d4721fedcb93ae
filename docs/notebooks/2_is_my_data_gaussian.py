# %% [markdown]
# # Is my data Gaussian?
#
# You have images, with labels, from a model or from anywhere. Do linear classifiers see more in them than the mean and the covariance of
# each class? Are they copies of the images that the model was trained on? Replace `my_images` and `my_labels` by yours: any array of
# images of 8 bits, or what `dgu.data.ImageSet.from_arrays` takes. Here 100 images of each class of Fashion-MNIST stand in for the samples
# of a model, and 100 others for its training set.

# %%
import jax
import numpy as np

from dgu import analysis, data, plots

bundled = data.load("fashion-mnist-mini", "test")
pixels = np.rint((bundled.images + 1) * 127.5).astype(np.uint8)
rows = np.argsort(bundled.labels, kind="stable").reshape(10, 200)  # The 200 images of each class.
mine, theirs = rows[:, :100].ravel(), rows[:, 100:].ravel()
my_images, my_labels = pixels[mine], bundled.labels[mine]
training_images, training_labels = pixels[theirs], bundled.labels[theirs]
plots.image_grid(my_images.reshape(10, 100, 28, 28, 1)[:, :12] / 127.5 - 1, bundled.class_names, ("my images",))

# %% [markdown]
# ## By hand: means, covariances, and a classifier
#
# Fit a Gaussian to each class, draw as many images of it, and train the same classifier (least squares) on both. A mixture that is fitted
# to finitely many images is easier than the law they come from; the **null**, a mixture fitted again to samples of the mixture, shows by how
# much. With few images the null moves as far as the mixture: then nothing has been found. Images are reduced to 7 x 7 pixels, so that 60
# training images of a class are more than pixels.

# %%
small = data.area_mean(my_images / 127.5 - 1, 7).reshape(10, 100, 49).astype(np.float32)


def mixture(rows, key):
    """As many samples of each class's Gaussian as there are images of it."""
    keys = jax.random.split(key, len(rows))
    each = [
        analysis.draw_gaussian(analysis.fit_gaussian(one), own, np.arange(len(one))) for one, own in zip(rows, keys)
    ]
    return np.stack(each)


def accuracy(rows, seed):
    """Of a classifier trained on 60 images of each class, on the other 40, in percent."""
    order = np.random.default_rng(seed).permutation(100)
    train, test = (np.concatenate(rows[:, part]) for part in (order[:60], order[60:]))
    weights = analysis.least_squares_classifier(train, np.repeat(np.arange(10), 60), 10, ridge=0.05)
    return 100 * np.mean(np.argmax(test @ weights, 1) == np.repeat(np.arange(10), 40))


found = []
for draw in range(12):
    gaussian = mixture(small, jax.random.key(draw))
    again = mixture(gaussian, jax.random.key(100 + draw))
    found.append([accuracy(rows, draw) for rows in (small, gaussian, again)])
images, gaussians, null = np.array(found).T
for name, values in (("images", images), ("mixture", gaussians), ("null", null)):
    print(f"{name:8} {analysis.t_interval(values).value:.1f} %")
gap = analysis.t_interval((images - gaussians) - (gaussians - null))
print(f"null-corrected gap: {gap.value:.1f} points [{gap.low:.1f}, {gap.high:.1f}]")

# %% [markdown]
# That interval is over splits of one pool of images, and leaves out how much another pool would differ, which no pool shows by itself. The
# study does better ([how intervals are made](../statistics.md)), with controls, more sizes and two kinds of network, in minutes:
#
# ```bash
# python -m experiments.universality --samples my_images.npz --out runs/mine
# ```
#
# A file for it, and for the audit below:

# %%
np.savez("my_images.npz", images=my_images, labels=my_labels)
np.savez("training_images.npz", images=training_images, labels=training_labels)

# %% [markdown]
# ## Audit
#
# Are training images copied, do means and covariances fit? Each number stands beside that of held-out real images. This is the smallest
# size, and two of its parts; without `--preset` and `--parts` it takes minutes.

# %%
from IPython.display import Image

from experiments.audit import STUDY

run = "--preset smoke --parts memorisation moments --reference training_images.npz --reference-split train --holdout None".split()
claims = STUDY.main([*run, "--samples", "my_images.npz", "--out", "audit"])

# %%
Image("audit/figures/distances.png", width=600)

# %% [markdown]
# The same audit of a model half of whose samples repeat its training set must say so:

# %%
repeated = np.random.default_rng(0).integers(len(training_images), size=len(my_images) // 2)
half = np.concatenate([my_images[::2], training_images[repeated]])
np.savez("copies.npz", images=half, labels=np.concatenate([my_labels[::2], training_labels[repeated]]))
copies = STUDY.main([*run, "--samples", "copies.npz", "--out", "copies"])

# %% [markdown]
# ## Check

# %%
honest, copied = (next(claim for claim in run if claim.id == "audit-not-memorised") for run in (claims, copies))
print(honest.verdict, copied.verdict)
assert copied.verdict == "not supported" != honest.verdict
assert 50 < images.mean() < 100 and gap.low < gap.value < gap.high

# %% [markdown]
# # From diffusers and PyTorch to dgu
#
# A network that you have, as a denoiser of dgu: a folder of diffusers, a network that predicts the noise under a discrete schedule, a PyTorch
# module. Neither PyTorch nor diffusers is needed for the first two.

# %%
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

import dgu
from dgu import samplers
from dgu.models import DiscreteSchedule, load_checkpoint, load_diffusers
from dgu.testing import check_denoiser

# %% [markdown]
# ## A folder of diffusers
#
# `pipeline.save_pretrained("my-ddpm")` writes a folder: two files of configuration and the weights. So that this page needs no download, it
# writes such a folder itself, of a tiny `UNet2DModel` with random weights. With a folder of your own, skip this cell.

# %%
channels, features = 8, 32  # of the only block; of the embedding of time


def layer(name, *shape):
    """Weights of one layer under the names of PyTorch, random, and biases of 0."""
    rng = np.random.default_rng(sum(map(ord, name)))
    weights = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    return {f"{name}.weight": weights.astype(np.float32), f"{name}.bias": np.zeros(shape[0], np.float32)}


def norm(name, size):
    return {f"{name}.weight": np.ones(size, np.float32), f"{name}.bias": np.zeros(size, np.float32)}


def block(name, inputs):
    """A residual block from ``inputs`` channels to ``channels``."""
    made = norm(f"{name}.norm1", inputs) | layer(f"{name}.conv1", channels, inputs, 3, 3)
    made |= layer(f"{name}.time_emb_proj", channels, features) | norm(f"{name}.norm2", channels)
    made |= layer(f"{name}.conv2", channels, channels, 3, 3)
    return made | (layer(f"{name}.conv_shortcut", channels, inputs, 1, 1) if inputs != channels else {})


def attention(name):
    parts = ("to_q", "to_k", "to_v", "to_out.0")
    weights = [layer(f"{name}.{part}", channels, channels) for part in parts]
    return norm(f"{name}.group_norm", channels) | {key: value for each in weights for key, value in each.items()}


weights = layer("conv_in", channels, 1, 3, 3) | layer("time_embedding.linear_1", features, channels)
weights |= layer("time_embedding.linear_2", features, features) | block("down_blocks.0.resnets.0", channels)
weights |= (
    block("mid_block.resnets.0", channels)
    | attention("mid_block.attentions.0")
    | block("mid_block.resnets.1", channels)
)
weights |= block("up_blocks.0.resnets.0", 2 * channels) | block("up_blocks.0.resnets.1", 2 * channels)
weights |= norm("conv_norm_out", channels) | layer("conv_out", 1, channels, 3, 3)

unet = {
    "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
    "block_out_channels": [channels], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"],
    "norm_num_groups": 4, "attention_head_dim": 8,
}  # fmt: skip
scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}
home = Path("my-ddpm")
(home / "unet").mkdir(parents=True, exist_ok=True)
(home / "scheduler").mkdir(exist_ok=True)
(home / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
(home / "unet" / "config.json").write_text(json.dumps(unet))
(home / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
save_file(weights, home / "unet" / "diffusion_pytorch_model.safetensors")

# %% [markdown]
# Reading it is one line. The denoiser knows the noise levels of its scheduler, and has the raw network, `eps = network(x, t)`, beside it:

# %%
denoiser = load_diffusers("my-ddpm")
print(denoiser.sigma_range)
print(check_denoiser(denoiser, (8, 8, 1), jax.random.key(0)).defects)
levels = samplers.karras_sigmas(12, *denoiser.sigma_range)
x = samplers.sample(denoiser, jax.random.key(1), range(4), levels, shape=(8, 8, 1))
print(x.shape, float(x.std()))

# %% [markdown]
# Every command takes the folder as well: `python -m experiments.concentration --checkpoint my-ddpm --real None`.
#
# ## A network that predicts the noise, by hand
#
# What does the reader do? It is the same as this line of `dgu.denoiser` with the raw network. `z = sqrt(abar) x0 + sqrt(1 - abar) eps` is
# the state that such networks know, `t` one of 1,000 times; dgu's state is `x = x0 + sigma eps` with `sigma = sqrt((1 - abar) / abar)`.

# %%
schedule = DiscreteSchedule.linear(1000)


def raw(z, t):
    return denoiser.network(z, t)


by_hand = dgu.denoiser(raw, predicts="epsilon", schedule=schedule)
noisy = jax.random.normal(jax.random.key(2), (8, 8, 1)) * 3
print(float(abs(by_hand(noisy, 3.0) - denoiser(noisy, 3.0)).max()))

# %% [markdown]
# Networks that predict `x0`, `v`, a velocity of flow matching or a score are wrapped alike; [a table](../adding-a-denoiser.md#in-one-line)
# has them all.
#
# ## A PyTorch module
#
# Where PyTorch is installed, `dgu.denoiser` takes a module as it is, called as `module(x, t)` on batches (N, C, H, W). Sampler, Jacobian and
# likelihood go through it; its derivatives are those of `torch.func`.

# %%
try:
    import torch
except ImportError:
    torch = None
    print("PyTorch is not installed: this cell shows the code, and does not run it.")

if torch is not None:

    class Net(torch.nn.Module):
        """One convolution, told of the time by a bias: the noise in z."""

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, z, t):
            return self.conv(z) + 1e-3 * t[:, None, None, None]

    module = dgu.denoiser(Net(), predicts="epsilon", schedule=DiscreteSchedule.linear(1000))
    print(check_denoiser(module, (8, 8, 1), jax.random.key(3)).defects)
    jacobian = jax.jacfwd(module)(noisy, 3.0)
    print(jacobian.shape)

# %% [markdown]
# ## Check
#
# The output that the folder gives, computed from the raw network with the formulas of DDPM alone:

# %%
betas = np.linspace(1e-4, 0.02, 1000)
abar = np.cumprod(1 - betas)
t = 500
sigma = np.sqrt((1 - abar[t]) / abar[t])
z = np.sqrt(abar[t]) * noisy
x0 = (z - np.sqrt(1 - abar[t]) * raw(z, t)) / np.sqrt(abar[t])
assert jnp.allclose(x0, denoiser(noisy, sigma), atol=1e-4 * float(abs(x0).max()))
assert jnp.allclose(x0, by_hand(noisy, sigma), atol=1e-4 * float(abs(x0).max()))
assert sorted(load_file(home / "unet" / "diffusion_pytorch_model.safetensors")) == sorted(weights)
assert load_checkpoint("my-ddpm").network is not None and np.isfinite(x).all()

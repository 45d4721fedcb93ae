"""EDM's networks, sampler and training step in plain eager PyTorch, written from the formulas."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from dgu.models import EDMNetwork, SongUNetConfig


class Peer:
    """``denoise(x, sigma, labels)`` on NCHW tensors, one sigma each: parameters in float32, activations in ``dtype``.

    Embeddings, the softmax of attention and the preconditioning are in float32 whatever the dtype, as in the reference.
    """

    def __init__(self, network: EDMNetwork, weights: dict[str, np.ndarray], device: str, dtype: torch.dtype):
        self.config, self.sigma_data, self.dtype = network.unet, network.sigma_data, dtype
        # Copied, for training writes into them.
        self.tensors = {
            name.removeprefix("model."): torch.tensor(value, dtype=torch.float32, device=device)
            for name, value in weights.items()
        }
        self.song = isinstance(self.config, SongUNetConfig)
        self.epsilon, self.scale = (1e-6, 0.5**0.5) if self.song else (1e-5, 1.0)
        taps = torch.tensor(getattr(self.config, "resample_filter", (1.0, 1.0)), device=device)
        self.filter = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
        self.training = False

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        total = (sigma**2 + self.sigma_data**2)[:, None, None, None]
        f = self.network((x / total.sqrt()).to(self.dtype), sigma.log() / 4, labels).float()
        return self.sigma_data**2 / total * x + sigma[:, None, None, None] * self.sigma_data / total.sqrt() * f

    def network(self, x: torch.Tensor, c_noise: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        config, e = self.config, self.embedding(c_noise, labels).to(x.dtype)
        skips, aux = [], x
        for name, spec in config.encoder:
            x = self.conv(f"enc.{name}", x) if isinstance(spec, int) else self.block(f"enc.{name}", spec, x, e)
            residual = f"enc.{name.split('_')[0]}_aux_residual"
            if name.endswith("_down") and f"{residual}.weight" in self.tensors:
                x = aux = (x + self.fused_down(residual, aux)) * self.scale
            skips.append(x)
        for name, spec, takes_skip in config.decoder:
            x = self.block(f"dec.{name}", spec, torch.cat([x, skips.pop()], dim=1) if takes_skip else x, e)
        level = f"dec.{config.img_resolution}x{config.img_resolution}"
        norm, last = (f"{level}_aux_norm", f"{level}_aux_conv") if self.song else ("out_norm", "out_conv")
        return self.conv(last, F.silu(self.norm(norm, x)))

    def embedding(self, c_noise: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        told = (
            0
            if labels is None
            else self.dense("map_label", labels * math.sqrt(self.config.label_dim if self.song else 1))
        )
        if "map_noise.freqs" in self.tensors:
            phase = torch.outer(c_noise, 2 * math.pi * self.tensors["map_noise.freqs"])
        else:
            half = self.config.model_channels // 2
            exponent = torch.arange(half, dtype=torch.float32, device=c_noise.device) / (half - self.song)
            phase = torch.outer(c_noise, 10000.0**-exponent)
        if self.song:
            e = torch.cat([phase.sin(), phase.cos()], dim=1) + told
            return F.silu(self.dense("map_layer1", F.silu(self.dense("map_layer0", e))))
        e = torch.cat([phase.cos(), phase.sin()], dim=1)
        return F.silu(self.dense("map_layer1", F.silu(self.dense("map_layer0", e))) + told)

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        kernel, bias = (self.tensors[f"{name}.{part}"].to(x.dtype) for part in ("weight", "bias"))
        return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2)

    def fused_down(self, name: str, x: torch.Tensor) -> torch.Tensor:
        kernel, bias = (self.tensors[f"{name}.{part}"].to(x.dtype) for part in ("weight", "bias"))
        reach = (self.filter.shape[-1] - 1) // 2
        y = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2 + reach)
        return self.filtered_down(y, 0) + bias[:, None, None]

    def filtered_down(self, x: torch.Tensor, padding: int) -> torch.Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.filter.to(x.dtype).tile(channels, 1, 1, 1), stride=2, padding=padding, groups=channels)

    def resampled(self, x: torch.Tensor, how: str | None) -> torch.Tensor:
        box, channels, reach = self.filter.shape[-1] == 2, x.shape[1], (self.filter.shape[-1] - 1) // 2
        if how == "up" and box:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        if how == "up":
            kernel = (4 * self.filter).to(x.dtype).tile(channels, 1, 1, 1)
            return F.conv_transpose2d(x, kernel, stride=2, padding=reach, groups=channels)
        if how == "down":
            return F.avg_pool2d(x, 2) if box else self.filtered_down(x, reach)
        return x

    def dense(self, name: str, x: torch.Tensor) -> torch.Tensor:
        bias = self.tensors.get(f"{name}.bias")
        return F.linear(x, self.tensors[f"{name}.weight"].to(x.dtype), None if bias is None else bias.to(x.dtype))

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        groups = min(32, x.shape[1] // 4)
        weight, bias = (self.tensors[f"{name}.{part}"].to(x.dtype) for part in ("weight", "bias"))
        return F.group_norm(x, groups, weight, bias, eps=self.epsilon)

    def block(self, name: str, spec, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        h = self.conv(f"{name}.conv0", self.resampled(F.silu(self.norm(f"{name}.norm0", x)), spec.resample))
        p = self.dense(f"{name}.affine", e)[:, :, None, None]
        if self.song:
            h = F.silu(self.norm(f"{name}.norm1", h + p))
        else:
            scale, shift = p.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm(f"{name}.norm1", h), scale + 1))
        h = self.conv(f"{name}.conv1", F.dropout(h, self.config.dropout, self.training))
        x = self.resampled(x, spec.resample)
        x = (h + (self.conv(f"{name}.skip", x) if f"{name}.skip.weight" in self.tensors else x)) * self.scale
        if spec.heads:
            n, c, height, width = x.shape
            qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", x)).reshape(
                n * spec.heads, c // spec.heads, 3, -1
            )
            q, k, v = qkv.unbind(2)
            logits = q.float().transpose(1, 2) @ (k / q.shape[1] ** 0.5).float()
            weight = torch.softmax(logits, dim=-1).to(v.dtype)
            x = (x + self.conv(f"{name}.proj", (v @ weight.transpose(1, 2)).reshape(n, c, height, width))) * self.scale
        return x


def make_sampler(peer: Peer, sigmas: np.ndarray) -> Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]:
    """``sampler(x, labels)``: deterministic Heun steps from ``x``, which has the first noise level already."""

    @torch.inference_mode()
    def sampler(x: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        levels = torch.tensor(sigmas, dtype=torch.float32, device=x.device)
        for now, after in itertools.pairwise(levels):
            slope = (x - peer.denoise(x, now.expand(len(x)), labels)) / now
            euler = x + (after - now) * slope
            if after > 0:
                slope = (slope + (euler - peer.denoise(euler, after.expand(len(x)), labels)) / after) / 2
                euler = x + (after - now) * slope
            x = euler
        return x

    return sampler


def make_training_step(peer: Peer, learning_rate: float) -> Callable[[torch.Tensor, torch.Tensor | None], float]:
    """``step(images, labels)``: EDM's loss, its gradient, Adam, the average of the parameters; returns the loss."""
    constants = ("map_noise.freqs",)
    params = [tensor.requires_grad_() for name, tensor in peer.tensors.items() if name not in constants]
    average = [tensor.detach().clone() for tensor in params]
    optimiser = torch.optim.Adam(params, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8)
    sd = peer.sigma_data
    peer.training = True

    def step(images: torch.Tensor, labels: torch.Tensor | None) -> float:
        optimiser.zero_grad(set_to_none=True)
        sigma = (torch.randn(len(images), device=images.device) * 1.2 - 1.2).exp()
        weight = (sigma**2 + sd**2) / (sigma * sd) ** 2
        noisy = images + sigma[:, None, None, None] * torch.randn_like(images)
        loss = weight[:, None, None, None] * (peer.denoise(noisy, sigma, labels) - images) ** 2
        (loss.sum() / len(images)).backward()
        for tensor in params:
            if tensor.grad is not None:
                torch.nan_to_num(tensor.grad, nan=0, posinf=1e5, neginf=-1e5, out=tensor.grad)
        optimiser.step()
        with torch.no_grad():
            for mean, tensor in zip(average, params):
                mean.lerp_(tensor, 0.01)
        return loss.mean().item()

    return step

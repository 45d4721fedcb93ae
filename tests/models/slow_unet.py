"""The two U-Nets in plain NumPy, slowly: float64, channels first, loops over kernels and pixels, nothing shared with
dgu.

Written from the formulas, for weights under the reference's names (``model.`` left out). It is held to the recorded
arrays where these exist, and stands in for them where they do not.
"""

import numpy as np


def silu(x):
    return x / (1 + np.exp(-x))


def conv(p, name, x, padding=None, bias=True):
    """A k x k convolution of (C, H, W) by the definition."""
    w = p[f"{name}.weight"].astype(np.float64)
    k = w.shape[-1]
    padding = k // 2 if padding is None else padding
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    out = np.zeros((w.shape[0], height, width))
    for i in range(height):
        for j in range(width):
            out[:, i, j] = np.tensordot(w, x[:, i : i + k, j : j + k], 3)
    return out + p[f"{name}.bias"].astype(np.float64)[:, None, None] if bias else out


def linear(p, name, e):
    out = p[f"{name}.weight"].astype(np.float64) @ e
    return out + p[f"{name}.bias"] if f"{name}.bias" in p else out


def kernel(taps):
    return np.outer(taps, taps) / np.sum(taps) ** 2


def down(x, taps, padding=None):
    f = kernel(taps)
    padding = (len(taps) - 1) // 2 if padding is None else padding
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    n = (x.shape[1] - len(taps)) // 2 + 1
    out = np.zeros((len(x), n, n))
    for i in range(n):
        for j in range(n):
            out[:, i, j] = (x[:, 2 * i : 2 * i + len(taps), 2 * j : 2 * j + len(taps)] * f).sum((1, 2))
    return out


def up(x, taps, padding=None):
    """Every pixel lays down a copy of four times the filter, two pixels from the next; ``padding`` pixels are cut
    off.
    """
    f, size = 4 * kernel(taps), len(taps)
    padding = (size - 1) // 2 if padding is None else padding
    n = x.shape[1]
    out = np.zeros((len(x), 2 * (n - 1) + size, 2 * (n - 1) + size))
    for i in range(n):
        for j in range(n):
            out[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += x[:, i, j][:, None, None] * f
    return out[:, padding : out.shape[1] - padding, padding : out.shape[2] - padding]


def resample(x, how, taps):
    return x if how is None else up(x, taps) if how == "up" else down(x, taps)


def norm(p, name, x, epsilon):
    groups = min(32, len(x) // 4)
    g = x.reshape(groups, -1)
    g = (g - g.mean(1, keepdims=True)) / np.sqrt(g.var(1, keepdims=True) + epsilon)
    return g.reshape(x.shape) * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]


def attention(qkv, heads):
    channels = len(qkv) // 3
    d = channels // heads
    q, k, v = (qkv.reshape(heads, d, 3, -1)[:, :, j] for j in range(3))
    out = np.zeros_like(q)
    for h in range(heads):
        for query in range(q.shape[-1]):
            logits = k[h].T @ q[h][:, query] / np.sqrt(d)
            w = np.exp(logits - logits.max())
            out[h][:, query] = v[h] @ (w / w.sum())
    return out.reshape(channels, *qkv.shape[1:])


def block(p, name, x, e, how, heads, song, taps):
    epsilon, scale = (1e-6, np.sqrt(0.5)) if song else (1e-5, 1.0)
    h = conv(p, f"{name}.conv0", resample(silu(norm(p, f"{name}.norm0", x, epsilon)), how, taps))
    embedded = linear(p, f"{name}.affine", e)[:, None, None]
    if song:
        h = silu(norm(p, f"{name}.norm1", h + embedded, epsilon))
    else:
        s, t = np.split(embedded, 2)
        h = silu(norm(p, f"{name}.norm1", h, epsilon) * (s + 1) + t)
    h = conv(p, f"{name}.conv1", h)
    x = resample(x, how, taps)
    x = (h + (conv(p, f"{name}.skip", x) if f"{name}.skip.weight" in p else x)) * scale
    if heads:
        qkv = conv(p, f"{name}.qkv", norm(p, f"{name}.norm2", x, epsilon))
        x = (conv(p, f"{name}.proj", attention(qkv, heads)) + x) * scale
    return x


def embed(p, config, song, c, label, augment):
    n = config["model_channels"] * config.get("channel_mult_noise", 1)
    if config.get("embedding_type") == "fourier":
        phase = 2 * np.pi * p["map_noise.freqs"].astype(np.float64) * c
    else:
        phase = c * 10000.0 ** (-np.arange(n // 2) / (n / 2 - (1 if song else 0)))
    e = np.concatenate([np.sin(phase), np.cos(phase)] if song else [np.cos(phase), np.sin(phase)])
    if song and config["label_dim"]:
        e = e + linear(p, "map_label", label * np.sqrt(config["label_dim"]))
    if augment is not None:
        e = e + linear(p, "map_augment", augment)
    e = linear(p, "map_layer1", silu(linear(p, "map_layer0", e)))
    if not song and config["label_dim"]:
        e = e + linear(p, "map_label", label)
    return silu(e)


def unet(p, config, x, c, label=None, augment=None):
    """``F(x; c, label)`` for one image (C, H, W); ``config`` has the constructor arguments, all of them."""
    song = config["model_type"] == "SongUNet"
    taps = config.get("resample_filter", (1, 1))
    encoder, decoder = config.get("encoder_type", "standard"), config.get("decoder_type", "standard")
    levels, blocks = len(config["channel_mult"]), config["num_blocks"]
    label = np.zeros(config["label_dim"]) if label is None else label
    e = embed(p, config, song, c, label, augment)

    def attended(channels):
        return 1 if song else channels // 64

    def run(name, x, how=None, attends=False):
        channels = len(p[f"{name}.conv1.bias"])
        return block(p, name, x, e, how, attended(channels) if attends else 0, song, taps)

    skips, aux = [], x
    for level in range(levels):
        res = config["img_resolution"] >> level
        at = f"enc.{res}x{res}"
        listed = res in config["attn_resolutions"]
        if level == 0:
            x = conv(p, f"{at}_conv", x)
        else:
            x = run(f"{at}_down", x, "down")
            if encoder == "skip":
                aux = down(aux, taps)
                x = x + conv(p, f"{at}_aux_skip", aux)
            elif encoder == "residual":
                wide = conv(p, f"{at}_aux_residual", aux, padding=1 + (len(taps) - 1) // 2, bias=False)
                aux = down(wide, taps, padding=0) + p[f"{at}_aux_residual.bias"][:, None, None]
                x = aux = (x + aux) / np.sqrt(2)
        skips.append(x)
        for i in range(blocks):
            x = run(f"{at}_block{i}", x, attends=listed)
            skips.append(x)
    image = None
    for level in reversed(range(levels)):
        res = config["img_resolution"] >> level
        at = f"dec.{res}x{res}"
        listed = res in config["attn_resolutions"]
        if level == levels - 1:
            x = run(f"{at}_in1", run(f"{at}_in0", x, attends=True))
        else:
            x = run(f"{at}_up", x, "up")
        for i in range(blocks + 1):
            x = run(f"{at}_block{i}", np.concatenate([x, skips.pop()]), attends=listed and (i == blocks or not song))
        if song and (level == 0 or decoder == "skip"):
            y = conv(p, f"{at}_aux_conv", silu(norm(p, f"{at}_aux_norm", x, 1e-6)))
            image = y if image is None else y + up(image, taps)
    return image if song else conv(p, "out_conv", silu(norm(p, "out_norm", x, 1e-5)))

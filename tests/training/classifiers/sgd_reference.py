"""Plain NumPy SGD with gradients derived by hand: the slow, independent answer that the tests hold the library to."""

import numpy as np


def softmax(f):
    e = np.exp(f - f.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def loss_and_slope(name, f, c):
    """Mean loss over a batch, and its derivative with respect to the outputs f (B, K), for labels c."""
    b, k = f.shape
    if name == "sigmoid_mse":
        s = 1 / (1 + np.exp(-f[:, 0]))
        return np.mean((s - c) ** 2), (2 * (s - c) * s * (1 - s) / b)[:, None]
    target = np.eye(k)[c]
    if name == "logit_mse":
        return np.mean((f - target) ** 2), 2 * (f - target) / (b * k)
    p = softmax(f)
    if name == "cross_entropy":
        return -np.mean(np.log(p[np.arange(b), c])), (p - target) / b
    error = 2 * (p - target) / (b * k)
    return np.mean((p - target) ** 2), p * (error - np.sum(error * p, axis=1, keepdims=True))


def accuracy(name, f, c):
    return np.mean((f[:, 0] > 0) == c) if name == "sigmoid_mse" else np.mean(f.argmax(axis=1) == c)


def train_linear(x, c, orders, *, loss, outputs, rates, batch, momentum=0.0, w=None, bias=False):
    """Iterates of torch-style SGD: x (n, d), labels c (n,), one order of positions and one rate for each epoch."""
    w = np.zeros((x.shape[1], outputs)) if w is None else w.copy()
    b, v, u = np.zeros(outputs), np.zeros_like(w), np.zeros(outputs)
    path = []
    for order, rate in zip(orders, rates):
        for start in range(0, len(order), batch):
            at = order[start : start + batch]
            slope = loss_and_slope(loss, x[at] @ w + b, c[at])[1]
            v = momentum * v + x[at].T @ slope
            u = momentum * u + slope.sum(axis=0)
            w = w - rate * v
            b = b - rate * u * bias
        path.append((w.copy(), b.copy()))
    return path

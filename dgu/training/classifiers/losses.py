"""Classification losses on the raw outputs of a classifier, one value per example.

========================  =====================================================  =======
name                      loss of one example with label c among K classes       outputs
========================  =====================================================  =======
``"softmax_mse"``         mean over k of (softmax(f)_k - [k = c])^2              K
``"logit_mse"``           mean over k of (f_k - [k = c])^2                       K
``"cross_entropy"``       -log softmax(f)_c                                      K
``"sigmoid_mse"``         (sigmoid(f) - c)^2, two classes                        1
========================  =====================================================  =======

The mean over a batch is then the mean over B * K numbers that ``torch.nn.MSELoss`` takes.
"""

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from dgu.core.errors import require
from dgu.training.classifiers.choices import LOSSES


def num_outputs(loss: str, num_classes: int) -> int:
    """Columns that a classifier has: K, or 1 for ``"sigmoid_mse"``.

    Raises:
        InputError: an unknown loss, fewer than two classes, or ``"sigmoid_mse"`` with more than two.
    """
    require(loss in LOSSES, "loss", loss, f"one of {', '.join(LOSSES)}")
    require(num_classes >= 2, "num_classes", num_classes, "at least 2")
    require(loss != "sigmoid_mse" or num_classes == 2, "num_classes", num_classes, "2 with loss 'sigmoid_mse'")
    return 1 if loss == "sigmoid_mse" else num_classes


def example_losses(loss: str, outputs: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """The loss of each example (formulas in the module's table); ``labels`` in 0 .. K - 1."""
    if loss == "cross_entropy":
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    if loss == "sigmoid_mse":
        return jnp.square(jax.nn.sigmoid(outputs[:, 0]) - labels.astype(outputs.dtype))
    guess = jax.nn.softmax(outputs) if loss == "softmax_mse" else outputs
    return jnp.mean(jnp.square(guess - jax.nn.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)), axis=-1)


def predicted_labels(loss: str, outputs: Float[Array, "*n k"]) -> Int[Array, "*n"]:
    """Class of the largest output; for ``"sigmoid_mse"``, 1 where the logit is positive."""
    if loss == "sigmoid_mse":
        return (outputs[..., 0] > 0).astype(jnp.int32)
    return jnp.argmax(outputs, axis=-1).astype(jnp.int32)


def is_correct(loss: str, outputs: Float[Array, "b k"], labels: Int[Array, " b"]) -> Bool[Array, " b"]:
    """Whether the predicted class is the label."""
    return predicted_labels(loss, outputs) == labels.astype(jnp.int32)

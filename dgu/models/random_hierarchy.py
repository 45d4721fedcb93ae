"""The random hierarchy model: a distribution of sequences far from any Gaussian, with its exact posterior mean."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer

from dgu.core.arrays import at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Event, Key, Scalar

#: Most combinations of symbols that a rule may choose from.
_MOST_TUPLES = 2**20


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class RandomHierarchy:
    """The posterior mean of the random hierarchy model given ``x = x0 + sigma eps``, by belief propagation.

    A tree of depth L: its root is the class, one of v symbols; each symbol is replaced by b symbols of the next level,
    by one of its m rules, each as likely; ``x0`` is the one-hot code of the ``b^L`` leaves, ``(b^L, v)``. With the
    evidence ``h_pa = x_pa / sigma^2`` of symbol a at leaf p, messages go up from the leaves,

        h_ps(level) = log mean_r exp(sum_j h_{pb+j, rule(s, r, j)}(level + 1)),    log Z = log sum_s pi_s e^{h_s(root)},

    and the posterior mean is the derivative of ``log Z`` by the evidence, which is the message down: in all ``O(b^L v
    m)`` operations, for ``v m^((b^L - 1)/(b - 1))`` sequences. Classes are known from combinations of symbols alone,
    which no mean and covariance tell; with noise the class is lost at a threshold, while the leaves fade gradually.

    Cagnetta et al., arXiv 2307.02129 (the model); Sclocchi et al., arXiv 2402.16991 (its diffusion by belief
    propagation); arXiv 2502.12089.

    Attributes:
        weights: pi, ``(v,)``, 0 or more; they need not sum to 1.
        rules: ``(L, v, m, b)`` whole numbers from 0 to v - 1, the root's first: what each symbol may become.
    """

    weights: Any
    rules: Any

    @classmethod
    def random(
        cls, key: Key, *, depth: int = 3, branching: int = 2, symbols: int = 4, rules: int = 2
    ) -> "RandomHierarchy":
        """Rules drawn without replacement from the ``v^b`` tuples of each level, so that no two symbols share one: the
        leaves tell the class without fail. Classes are equally likely.

        Args:
            key: of the rules; those of level l depend on ``(key, l)`` alone.
            depth: L, 1 or more.
            branching: b, 2 or more.
            symbols: v, 2 or more.
            rules: m, from 1 to ``v^(b - 1)``.

        Raises:
            InputError: values out of range, or more than 2^20 tuples.
        """
        key = threefry(key)
        for name, value, least in (("depth", depth, 1), ("branching", branching, 2), ("symbols", symbols, 2)):
            require_whole(name, value, least)
        depth, branching, symbols = int(depth), int(branching), int(symbols)
        tuples = symbols**branching
        require(tuples <= _MOST_TUPLES, "symbols ** branching", tuples, f"at most {_MOST_TUPLES}")
        require_whole("rules", rules, 1, tuples // symbols)
        chosen = [
            np.asarray(jax.random.permutation(jax.random.fold_in(key, level), tuples))[: symbols * int(rules)]
            for level in range(depth)
        ]
        digits = np.stack([np.stack(np.unravel_index(each, (symbols,) * branching), axis=-1) for each in chosen])
        table = digits.reshape(depth, symbols, int(rules), branching).astype(np.int32)
        return cls(jnp.full(symbols, 1 / symbols), jnp.asarray(table))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of an example, ``(b^L, v)``."""
        depth, symbols, _, branching = np.shape(self.rules)
        return branching**depth, symbols

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one example, the probability of each symbol at each leaf, in the dtype of ``x``.

        Raises:
            InputError: ``x`` is of another shape than ``(b^L, v)``.
        """
        return jax.grad(lambda evidence: jax.nn.logsumexp(self._root(evidence)))(self._evidence(x, sigma))

    @at_least_single
    def responsibilities(self, x: Event, sigma: Scalar) -> Float[Array, " v"]:
        """The posterior probability of each class, of sum 1."""
        return jax.nn.softmax(self._root(self._evidence(x, sigma)))

    @at_least_single
    def log_density(self, x: Event, sigma: Scalar) -> Float[Array, ""]:
        """``log p(x; sigma)`` in nats with noise ``sigma`` above 0 added."""
        nearest = x - jax.nn.one_hot(jnp.argmax(x, axis=1), x.shape[1], dtype=x.dtype)
        variance = jnp.square(jnp.asarray(sigma, x.dtype))
        gaussian = jnp.sum(jnp.square(nearest)) / variance + x.size * jnp.log(2 * jnp.pi * variance)
        return jax.nn.logsumexp(self._root(self._evidence(x, sigma))) - gaussian / 2

    def given(self, label: Integer[ArrayLike, ""] | int) -> "RandomHierarchy":
        """The model of the sequences of class ``label`` alone: as a class-conditional denoiser."""
        weights = jnp.asarray(self.weights)
        return RandomHierarchy(jax.nn.one_hot(label, len(weights), dtype=weights.dtype), self.rules)

    def draw(self, key: Key, label: Integer[ArrayLike, ""] | None = None) -> Float[Array, "leaves v"]:
        """One ``x0``, of class ``draw_label(key)`` or of ``label`` where that is given: ``jax.vmap`` it over keys.

        Raises:
            InputError: ``label`` (not a traced one) is none of the classes.
        """
        key = threefry(key)
        depth, symbols, rules, _ = np.shape(self.rules)
        if label is not None and not isinstance(label, jax.core.Tracer):
            require_whole("label", label, 0, symbols - 1)
        chosen = self.draw_label(key) if label is None else jnp.asarray(label, jnp.int32)
        row = chosen[None]
        for level in range(depth):
            which = jax.random.randint(jax.random.fold_in(key, 1 + level), row.shape, 0, rules)
            row = jnp.asarray(self.rules)[level, row, which].ravel()
        return jax.nn.one_hot(row, symbols, dtype=jnp.asarray(self.weights).dtype)

    def draw_label(self, key: Key) -> Int[Array, ""]:
        """The class of ``draw(key)``, by the weights."""
        key = threefry(key)
        return jax.random.categorical(jax.random.fold_in(key, 0), jnp.log(jnp.asarray(self.weights)))

    def _evidence(self, x: Event, sigma: Scalar) -> Float[Array, "leaves v"]:
        """``x / sigma^2`` up to a term common to the symbols of a leaf, which is subtracted before digits are lost."""
        require(np.ndim(self.rules) == 4, "rules.shape", np.shape(self.rules), "(L, v, m, b)")
        require(x.shape == self.shape, "x.shape", x.shape, f"that of an example, {self.shape}")
        variance = jnp.square(jnp.asarray(sigma, x.dtype))
        # At noise 0 a smallest variance stands in, and the nearest sequence takes all.
        floored = jnp.maximum(variance, float(jnp.finfo(x.dtype).tiny) ** 0.5)
        return (x - jnp.max(x, axis=1, keepdims=True)) / floored

    def _root(self, evidence: Float[Array, "leaves v"]) -> Float[Array, " v"]:
        """Log probability of each class together with the evidence."""
        depth, symbols, rules, branching = np.shape(self.rules)
        message = evidence
        for level in reversed(range(depth)):
            blocks = message.reshape(-1, branching, symbols)
            table = jnp.asarray(self.rules)[level]
            scores = sum(blocks[:, place, table[..., place]] for place in range(branching))
            message = jax.nn.logsumexp(scores, axis=2) - float(np.log(rules))
        weights = jnp.asarray(self.weights, evidence.dtype)
        positive = weights > 0
        prior = jnp.where(positive, jnp.log(jnp.where(positive, weights, jnp.ones_like(weights))), -jnp.inf)
        return message[0] + prior - jnp.log(jnp.sum(weights))

"""The vocabulary of shapes that the annotations use (jaxtyping).

``*event`` is the shape of one example (``H W C`` for an image), ``n`` counts examples, ``d`` is the flattened size.
Annotations are checked at run time only where a type checker is installed for them, as the tests do
(``--jaxtyping-packages=dgu,beartype.beartype``).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num, PRNGKeyArray

Scalar: TypeAlias = Float[ArrayLike, ""]
Event: TypeAlias = Float[Array, "*event"]
Images: TypeAlias = Num[ArrayLike, "n h w c"]
Labels: TypeAlias = Integer[ArrayLike, " n"]
PyTree: TypeAlias = Any
if TYPE_CHECKING:
    Key: TypeAlias = PRNGKeyArray
else:  # What is no key is refused by ``dgu.keys.threefry``, which says so in one line, and not by a type checker.
    Key: TypeAlias = Any

#: ``denoiser(x, sigma) -> E[x0 | x0 + sigma * eps = x]`` for ONE example ``x`` of any shape.
Denoiser: TypeAlias = Callable[[Array, ArrayLike], Array]

"""The gate of arrays: whole numbers that no floating-point number holds are refused, all others keep their values."""

import numpy as np
import pytest

from dgu.analysis import k_nearest
from dgu.core.arrays import as_floats
from dgu.core.errors import InputError


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_that_float64_rounds_are_refused(dtype):
    largest = np.asarray([[0, 2**53]], dtype)
    assert as_floats("x", largest).astype(dtype).tolist() == largest.tolist()
    with pytest.raises(InputError, match=r"^largest absolute value of x = .*: must be at most 2\^53"):
        as_floats("x", largest * 2)
    near = np.asarray([[2**60], [2**60 + 1]], dtype)  # Equal in float64.
    with pytest.raises(InputError, match=r"at most 2\^53"):
        k_nearest(near, near, 1)

"""The dtype and the layout of an array never decide the arithmetic: whole numbers in any form give the numbers of float32.

Every public function of ``dgu.analysis`` that takes arrays has a case here; a new one without a case, or without a word on why
it has none, fails. So have the fits and closed forms of ``dgu.models``, and what takes arrays in ``dgu.training`` and ``dgu.data``.
"""

import dataclasses
from functools import partial

import jaxtyping
import numpy as np
import pytest

import dgu.analysis as A
import dgu.training as T
from dgu.core.errors import InputError
from tests.dtypes.analysis import ANALYSIS, WITHOUT
from tests.dtypes.others import OTHER

CASES = {**ANALYSIS, **OTHER}
#: Those that trace the arrays themselves: each dtype is compiled anew, so that by default two are tried.
TRACED = ("em_mixture", "k_subspaces", "lloyd", "spectral_labels", "squared_singular_values")
#: Those whose programs take seconds to compile: tried as slow tests.
COSTLY = """BoxMixture EDMDenoiser antithetic_moments distill_by_adam edm_loss fit_mixture fit_size_accuracy fit_two_layer
    flow_kl population_loss recover_by_sgd score_log_density train_convnet train_dynamics train_subspaces train_together transform
    ve_loss vesde_loss vp_loss train_network train_steps MLPDenoiser em_mixture lloyd fit_classes spectral_labels k_subspaces kmeans fit_classifiers
    descend_exact_loss drawn_loss exact_loss empirical_loss gaussian_flow grid_kl RandomFeatures tail_test_p_values theorem_assumptions""".split()


def whole(array):
    return np.ascontiguousarray(array, np.float32)


def read_only(array):
    fixed = whole(array)
    fixed.flags.writeable = False
    return fixed


FORMS = {
    **{name: partial(np.ascontiguousarray, dtype=name) for name in ("uint8", "int16", "int64", "float16")},
    "Fortran-ordered": lambda array: np.asfortranarray(whole(array)),
    "read-only": read_only,
    "every second row": lambda array: np.repeat(whole(array), 2, axis=0)[::2],
    "reversed columns": lambda array: whole(array[..., ::-1])[..., ::-1],
    "uint8, every second row": lambda array: np.repeat(np.ascontiguousarray(array, np.uint8), 2, axis=0)[::2],
    **{name: partial(np.ascontiguousarray, dtype=name) for name in (">f4", ">i2")},
}


class Give:
    """Hands out every array of a case in one form, and labels in a form of their own; or one of them alone."""

    def __init__(self, form, marks=np.asarray, only=None):
        self.form, self.of_marks, self.only, self.count = form, marks, only, 0

    def _one(self, array, form, plain):
        self.count += 1
        return (form if self.only in (None, self.count - 1) else plain)(array)

    def __call__(self, array):
        return self._one(array, self.form, whole)

    def marks(self, array):
        return self._one(array, self.of_marks, np.asarray)


def leaves(result):
    """The numbers of a result, one after another."""
    if dataclasses.is_dataclass(result):
        return leaves([getattr(result, field.name) for field in dataclasses.fields(result)])
    if isinstance(result, dict):
        return leaves(list(result.values()))
    if isinstance(result, list | tuple):
        return [leaf for part in result for leaf in leaves(part)]
    return [] if result is None or isinstance(result, str) else [np.asarray(result, np.float64)]


def same_numbers(found, expected):
    """Whether two results hold the same numbers, up to the rounding of float32."""
    found, expected = leaves(found), leaves(expected)
    assert expected, "a case without numbers would compare nothing"
    return len(found) == len(expected) and all(
        ours.shape == theirs.shape
        and np.isclose(ours, theirs, rtol=1e-3, atol=1e-4 * largest_of(theirs), equal_nan=True).all()
        for ours, theirs in zip(found, expected)
    )


def largest_of(numbers):
    """The largest magnitude of the finite ones."""
    return float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0))


def marks_as(form):
    """Labels in the integers of a form, where it has any."""
    return partial(np.ascontiguousarray, dtype=form) if "int" in form and "," not in form else np.asarray


NAMES = [pytest.param(name, marks=pytest.mark.slow if name in COSTLY else ()) for name in CASES]
#: What the default run tries: the others are layouts and integers that NumPy brings to one of these.
FEW = ("uint8", "float16", "reversed columns", ">i2")


def forms_of(name, forms):
    """JAX itself takes no arrays of a foreign byte order as arguments of compiled programs."""
    return [form for form in forms if name not in TRACED or form[0] != ">"]


def forms_that_differ(name, forms):
    """Those of the forms in which a case gives other numbers than as contiguous float32."""
    expected = CASES[name](Give(whole))
    return [form for form in forms if not same_numbers(CASES[name](Give(FORMS[form], marks_as(form))), expected)]


@pytest.mark.parametrize("name", NAMES)
def test_whole_numbers_in_a_few_forms_give_the_same_numbers(name):
    assert forms_that_differ(name, forms_of(name, FEW)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_whole_numbers_in_any_form_give_the_same_numbers(name):
    assert forms_that_differ(name, forms_of(name, FORMS)) == []


@pytest.mark.parametrize(
    "other", [{"a": [1.0, 2.0]}, {"a": [1.0, 2.01], "b": 3.0}, {"a": [1.0], "b": 3.0}, {"a": [1.0, np.nan], "b": 3.0}]
)
def test_other_numbers_are_told_apart(other):
    numbers = {"a": [1.0, 2.0], "b": 3.0}
    assert same_numbers({"a": [1.0001, 2.0], "b": 3.0}, numbers) and not same_numbers(other, numbers)


@pytest.fixture
def unchecked():
    """Without the type checks that only tests have: the functions' own refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", NAMES)
def test_booleans_and_text_are_refused(name, unchecked):
    counted = Give(whole)
    CASES[name](counted)
    for number in range(counted.count):
        for form in (lambda array: np.asarray(array) > 0, lambda array: np.asarray(array).astype(str)):
            # A program that traces its arguments cannot be given text by JAX.
            with pytest.raises((InputError, TypeError) if name in TRACED else InputError):
                CASES[name](Give(form, form, number))


def test_every_public_function_is_here_or_has_a_reason_not_to_be():
    public = {name for name in A.__all__ if callable(getattr(A, name))}
    assert set(WITHOUT) <= public <= set(ANALYSIS) | set(WITHOUT) and not set(ANALYSIS) & set(WITHOUT)
    takes_arrays = {name for name in T.__all__ if name.islower() and callable(getattr(T, name))}
    takes_none = (
        "augment draw_geometry flow_curves gauss_hermite image_order initial_levels initial_state lemma_ratios "
        "quadratic_loss seeded_runs train_in_directory level_update edm2_loss power_ema_exponent"
    )
    assert takes_arrays - set(OTHER) == set(
        f"{takes_none} in_turn own_meshes train_side_by_side train_with_snapshots trains_together update updates_done".split()
    )

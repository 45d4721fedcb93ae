"""Every number of every study is bounded: what cannot be used is one line that names the option, before any work."""

import dataclasses
import importlib
import math
from typing import Literal, get_args, get_type_hints

import numpy as np
import pytest

from dgu.analysis.universality.recipe import Recipe
from dgu.core.errors import InputError
from dgu.training import TogetherConfig, TrainingConfig
from experiments import metrics, model_card
from experiments.hidden_gaussian import linearity
from experiments.sampling import SamplerConfig
from experiments.study.arguments import parse, under_its_option
from experiments.study.options import Options, as_typed, check_sound, option
from experiments.train_config import NetworkConfig

STUDIES = (
    *("universality", "concentration", "hidden_gaussian", "generalization", "molrg", "audit", "explain"),
    *("train", "sample"),
)
#: Options that may be negative, and those that may be 0, by the end of their name; all others are refused.
NEGATIVE = ("p_mean", "linearity.factors", "linearity.least", "pixel_range", "samples_range", "reference_range")
ZERO = (
    *(
        "seed",
        "dropout",
        "label_dropout",
        "rampup_kimg",
        "ema_halflife_kimg",
        "augment_probability",
        "eta_min",
        "momentum",
    ),
    *(
        "churn",
        "s_min",
        "s_max",
        "s_noise",
        "copy_fraction",
        "copy_rms",
        "classes",
        "label",
        "class_",
        "coordinates",
        "pad",
    ),
    *(
        "low_rank_fit",
        "max_predicted_dimension",
        "checkpoint_minutes",
        "smallest",
        "universality.replicates",
        "squares",
    ),
    *("p_mean", "linearity.least", "pixel_range", "samples_range", "reference_range"),
)


def presets(study):
    """The presets of a study, or of another command."""
    module = importlib.import_module(f"experiments.{study}")
    return module.STUDY.presets if hasattr(module, "STUDY") else module.PRESETS


def words(kind):
    """The plain types in a type of an option."""
    return {kind} if not get_args(kind) else set().union(*map(words, get_args(kind)))


def numbers(config, path=()):
    """(path, type, value) of every option of a number."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from numbers(value, (*path, field.name))
        else:
            found = words(hints[field.name])
            if found & {int, float}:
                yield (*path, field.name), float if float in found else int, value


def changed(config, path, value):
    first, *rest = path
    return dataclasses.replace(config, **{first: changed(getattr(config, first), rest, value) if rest else value})


def made(config, path, value):
    """The configuration with one option changed, checked as the command line checks it."""
    result = changed(config, path, value)
    check_sound(result)
    return result


def at(value, entry):
    """The option's value, or each place of its tuple in turn, replaced by ``entry``."""
    if not isinstance(value, tuple):
        return [entry]
    return [(*value[:place], entry, *value[place + 1 :]) for place in range(len(value))] or [(entry,)]


def ends_with(path, names):
    return any(".".join(path).endswith(name) and (path[-1] == name.split(".")[-1]) for name in names)


@pytest.mark.parametrize("study", STUDIES)
def test_every_number_is_bounded_and_what_is_refused_is_named(study):
    preset = presets(study)["smoke"]
    seen = 0
    for path, kind, value in numbers(preset):
        ranges = path[-1].endswith("_range")
        given = (-1.0, 1.0) if ranges and value is None else value
        hopeless = [math.nan, -math.inf, -(10.0**39)] if kind is float else [10**20, -(10**20)]
        if kind is float and path[-1] != "s_max":
            hopeless += [math.inf, 1e308, 1e39]
        if not ranges:
            hopeless += [] if ends_with(path, NEGATIVE) else [kind(-1)]
            hopeless += [] if ends_with(path, ZERO) else [kind(0)]
        if isinstance(value, tuple) and kind is int:
            hopeless += [] if ends_with(path, ZERO) else [-3]
        for entry in hopeless:
            for bad in at(given, entry):
                with pytest.raises(InputError) as refused:
                    made(preset, path, bad)
                name = str(refused.value).split(" = ")[0].removeprefix("(")
                assert path[-1] in name or (path[-1] == "class_" and name == "class"), (path, bad, str(refused.value))
                assert "\n" not in str(refused.value)
                seen += 1
        # Whatever else is given is taken or refused, never another error.
        for entry in [2**31 - 1, 10**18] if kind is int else [1e30, 1e-30, 1e-320]:
            for odd in [*at(given, entry), *([()] if isinstance(value, tuple) else [])]:
                try:
                    made(preset, path, odd)
                except InputError as error:
                    assert " = " in str(error)
    assert seen > 40


def test_direct_construction_refuses_nan_too():
    for build in (
        lambda x: NetworkConfig(dropout=x),
        lambda x: NetworkConfig(label_dropout=x),
        lambda x: NetworkConfig(sigma_data=x),
        lambda x: linearity.Config(factors=(x,)),
        lambda x: linearity.Config(least=x),
        lambda x: TrainingConfig(p_mean=x),
        lambda x: TogetherConfig(p_mean=x),
        lambda x: TogetherConfig(learning_rate=x),
        lambda x: Recipe(learning_rates=(0.1, x)),
        lambda x: Recipe(eta_min=x),
        lambda x: SamplerConfig(churn=x),
    ):
        for value in (math.nan, math.inf):
            with pytest.raises(InputError):
                build(value)
    assert SamplerConfig(s_max=math.inf).s_max == math.inf
    with pytest.raises(InputError, match="duration_kimg"):
        TrainingConfig(duration_kimg=1e308)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"num_steps": 4.5}, "sampler.num_steps = 4.5: must be a whole number"),
        ({"method": "ddim"}, "sampler.method = 'ddim': must be 'edm' or 'ablation' or 'dpm-solver'"),
        ({"alpha": 0.5}, "sampler.alpha = 0.5: must be left out, or --sampler.method ablation given"),
        (
            {"method": "ablation", "solver": "euler", "alpha": 0.5},
            "sampler.alpha = 0.5: must be left out: Euler's method has no second evaluation",
        ),
        (
            {"method": "ablation", "disc": "vp", "rho": 5.0},
            "sampler.rho = 5.0: must be left out: the levels of sampler.disc = vp have no rho",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(given, line):
    with pytest.raises(InputError) as refused:
        SamplerConfig(**given)
    assert str(refused.value) == line
    assert SamplerConfig(method="ablation", disc="edm", solver="heun", rho=5.0, alpha=0.5).alpha == 0.5


def test_the_commands_without_presets():
    for config in (
        lambda **option: metrics.Config("a.npy", "b.npy", **option),
        lambda **option: model_card.Config(**option),
    ):
        names = {field.name for field in dataclasses.fields(config())}
        for name in names & {"count", "pca", "block_size", "seed", "steps", "epochs"}:
            for value in (-1, 10**20, *([] if name == "seed" else [0])):
                with pytest.raises(InputError, match=f"^{name} = "):
                    config(**{name: value})


def test_intervals_and_whole_words():
    @dataclasses.dataclass(frozen=True)
    class Some(Options, prefix="part"):
        share: float | None = option(None, gt=0, le=1)
        counts: tuple[int, ...] = option((), ge=1)
        label: str | None = None
        kind: Literal["a", "b"] = "a"

    Some(1.0, (1, 2))
    whole = Some(np.float32(0.5), (np.int64(3),))
    assert type(whole.share) is float and type(whole.counts[0]) is int
    Some(1)
    for bad, line in (
        ({"share": 0.0}, "part.share = 0.0: must be above 0 and at most 1, or None"),
        ({"share": 1.5}, "part.share = 1.5: must be above 0 and at most 1, or None"),
        ({"counts": (1, 0)}, "part.counts = (1, 0): must be 1 or more"),
        ({"counts": (1, 2**31)}, "part.counts = (1, 2147483648): must be at most 2147483647"),
        ({"label": ""}, "part.label = '': must be left out or not empty"),
        ({"label": "a\0"}, "part.label = 'a\\x00': must be without null characters"),
        ({"counts": 4}, "part.counts = 4: must be a tuple, each entry a whole number"),
        ({"share": (0.5,)}, "part.share = (0.5,): must be a number or None"),
        ({"kind": ["a"]}, "part.kind = ['a']: must be 'a' or 'b'"),
        ({"label": 3}, "part.label = 3: must be text or None"),
        ({"counts": (1, 2.5)}, "part.counts = (1, 2.5): must be a tuple, each entry a whole number"),
        ({"counts": (True,)}, "part.counts = (True,): must be a tuple, each entry a whole number"),
        ({"share": "0.5"}, "part.share = '0.5': must be a number or None"),
        ({"kind": "c"}, "part.kind = 'c': must be 'a' or 'b'"),
    ):
        with pytest.raises(InputError) as refused:
            Some(**bad)
        assert str(refused.value) == line
    assert as_typed("sampler.class_") == "--sampler.class" and as_typed("a_b.c_d") == "--a-b.c-d"


def parsed(study, *argv):
    argv = ["--preset", "smoke", *argv]
    return parse(presets(study), argv, name=study, description="", offered=("dry_run",))


@pytest.mark.parametrize(
    ("study", "arguments", "line"),
    [
        ("train", "--network.dropout nan", "--network.dropout = nan: must be"),
        ("train", "--training.training.p-mean nan", "--training.training.p-mean = 'nan': must be an option"),
        ("train", "--training.duration-kimg 1e308", "--training.duration-kimg = "),
        (
            "universality",
            "--sampler.batch-size 5 --training.batch-size 0",
            "--training.batch-size = 0",
        ),
        ("universality", "--training.seed -1", "--training.seed = -1"),
        ("universality", "--size 100000000000000000000", "--size = 100000000000000000000: must be"),
        ("universality", "--samples=", "--samples = '': must not be empty"),
        ("universality", "--out=", "--out = '': must not be empty"),
        ("sample", "--class -1", "--class = -1: must be 0 or more"),
        ("sample", "--clas 1", "--clas = '1': must be an option, such as --class"),
        ("molrg", "--phase.sizes 1 100000000000000000000", "--phase.sizes = (1, 100000000000000000000): must be"),
        ("molrg", "--networks.unet.channels 0", "--networks.unet.channels = 0: must be 1 or more"),
        ("molrg", "--networks.width -1", "--networks.width = -1: must be"),
        ("hidden_gaussian", "--autoencoders.dit-width 0", "--autoencoders.dit-width = 0: must be"),
        ("generalization", "--epochs 5", "--epochs = 5: must be a multiple of --evaluations = 2"),
        ("universality", "--low-rank-fit 11", "--low-rank-fit = 11: must be 0, or from 2 to --splits.fit = 6"),
    ],
)
def test_the_command_line_names_the_option_as_typed(study, arguments, line):
    with pytest.raises(InputError) as refused:
        parsed(study, *arguments.split(" "))
    assert str(refused.value).startswith(line), str(refused.value)


def test_other_options_in_an_error_are_called_as_typed_but_values_stay():
    known = dict.fromkeys(["--splits.fit", "--low-rank-fit", "--seeds", "--training.seed", "--parts"])
    for line, shown in (
        ("low_rank_fit = 1: must be splits.fit = 3", "--low-rank-fit = 1: must be --splits.fit = 3"),
        ("low_rank_fit = 1: at most seeds = 3, not seeds", "--low-rank-fit = 1: at most --seeds = 3, not seeds"),
        ("seeds = 'splits.fit': in low_rank_fit.", "--seeds = 'splits.fit': in --low-rank-fit."),
        ("seeds = 1: a/splits.fit of splits.fit.npz, training.training.seed",
         "--seeds = 1: a/splits.fit of splits.fit.npz, --training.seed"),
        ("no name: splits.fit", "no name: splits.fit"),
    ):  # fmt: skip
        assert under_its_option(line, [], known) == shown


def test_a_megabyte_of_an_option_is_not_echoed():
    for argv in (["--seed", "9" * 10**6], ["--features", "x", "y" * 10**6], ["--" + "q" * 10**6, "1"], ["z" * 10**6]):
        with pytest.raises(InputError) as refused:
            parsed("universality", *argv)
        assert len(str(refused.value)) < 2_100 and "must" in str(refused.value)

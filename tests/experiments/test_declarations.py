"""What a claim tested before its first run stands in a record, and what is another now says so."""

import dataclasses
import tomllib

import pytest

from dgu.analysis.stats.estimates import Estimate, normal_estimate
from dgu.core.errors import InputError
from experiments.study import Claim, NotTested, all_of, at_least, each, equivalent
from experiments.study.claims import judge
from experiments.study.declarations import declared, main, text
from experiments.study.listing import studies
from experiments.study.record import Declaration, added, compared, complaints, in_words, intervals, record_of

CLAIM = Claim("a", "A value.", at_least(0.5))
RECORD = {"a": Declaration("at least 0.5", ("t",))}


@pytest.mark.parametrize("name", sorted(studies()))
def test_the_claims_of_every_study_are_those_of_its_record(name):
    assert complaints(name, declared(studies()[name]), record_of(name)) == []


def test_nothing_is_to_be_added(capsys):
    main([])
    assert capsys.readouterr().out == ""


def test_a_test_that_changed_must_say_so():
    assert complaints("toy", [CLAIM], RECORD) == []
    lower = dataclasses.replace(CLAIM, test=at_least(0.4))
    (line,) = complaints("toy", [lower], RECORD)
    assert line.startswith("toy/a: test = 'at least 0.4': must be 'at least 0.5'") and "`changed`" in line
    assert complaints("toy", [dataclasses.replace(lower, changed="it was 0.5.")], RECORD) == []
    (line,) = complaints("toy", [dataclasses.replace(CLAIM, id="b")], RECORD)
    assert line.startswith("toy/b: must be in declarations.toml")


def test_every_threshold_is_part_of_the_declaration():
    tests = [
        at_least(0.5),
        at_least(0.5, max_standard_error=0.1),
        each(at_least(0.5)),
        all_of(CLAIM),
        all_of(dataclasses.replace(CLAIM, test=at_least(0.6))),
        equivalent(lambda estimate: 3 * estimate.standard_error),
        equivalent(lambda estimate: 4 * estimate.standard_error),
    ]
    assert len(set(map(in_words, tests))) == len(tests)


def test_what_stands_in_the_record_stays():
    run = [judge(CLAIM, normal_estimate(1.0, 0.1), "own")]
    now = dataclasses.replace(CLAIM, test=at_least(0.1))
    gone = Declaration("at most 1")
    assert added([now], run, RECORD | {"gone": gone}) == RECORD | {"gone": gone}
    assert added([now], run, {}) == {"a": Declaration("at least 0.1", ("normal",))}
    assert added([CLAIM], run, {"a": Declaration("at least 0.4")}) == {"a": Declaration("at least 0.4", ("normal",))}
    assert added([CLAIM], [judge(CLAIM, NotTested("none"), "own")], {}) == {"a": Declaration("at least 0.5")}


def test_an_interval_made_in_another_way_is_told_of_by_the_report():
    def told(measured, claim=CLAIM, record=RECORD):
        return compared([judge(claim, measured, "own")], record)[0].changed

    by_t, other, unnamed = (Estimate(1.0, 0.9, 1.1, method=name) for name in ("t", "bootstrap", ""))
    assert told(by_t) == told(unnamed) == told(NotTested("none")) == told(other, record={}) == ""
    assert told(other, record={"a": Declaration("at least 0.5")}) == ""
    assert told(other) == "its interval was declared as made by “t”, and is made by “bootstrap” here."
    assert told(other, dataclasses.replace(CLAIM, changed="t was too narrow.")) == "t was too narrow."
    joint = dataclasses.replace(CLAIM, test=each(at_least(0.5)))
    assert intervals(judge(joint, {"x": by_t, "y": other}, "own")) == ("bootstrap", "t")
    assert "is made by “bootstrap” here" in told({"x": by_t, "y": other}, joint)


def test_a_record_is_read_as_it_is_written(tmp_path):
    record = RECORD | {"b-50%": Declaration('each "within" 0, 1')}
    (tmp_path / "toy").mkdir()
    file = tmp_path / "toy" / "declarations.toml"
    file.write_text(text(record))
    assert record_of("toy", tmp_path) == record and "interval" not in tomllib.loads(file.read_text())["b-50%"]
    assert record_of("other", tmp_path) == {}
    file.write_text('[a]\ntest = "at least 1"\nkind = "x"\n')
    with pytest.raises(InputError, match=r"declarations\.toml"):
        record_of("toy", tmp_path)


def test_a_folder_of_runs_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--runs", str(tmp_path / "none")])
    assert end.value.code == 2 and "must be a folder of finished runs" in capsys.readouterr().err

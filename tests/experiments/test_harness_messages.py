"""What a run says: parts by number, progress with rate and time left, ``--quiet``, and the lines of ``--log``."""

import io
import logging
import re
import time

import pytest

from dgu.core.errors import InputError
from experiments.study.messages import LOGGER, note, say, speaking
from experiments.study.progress import Progress
from tests.experiments.commands import exit_code
from tests.experiments.test_study import make

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "


def lines_of(file):
    found = file.read_text().splitlines()
    assert all(re.match(STAMP, line) for line in found)
    return [re.sub(f"^{STAMP}", "", line) for line in found]


def test_a_quiet_run_prints_the_path_of_its_report_and_its_log_has_all(tmp_path, capsys):
    run, log = tmp_path / "run", tmp_path / "run.log"
    make([]).main(["--preset", "smoke", "--out", str(run)])
    loud = capsys.readouterr().out
    assert "part 1 of 1, draws: " in loud
    make([]).main(["--preset", "smoke", "--out", str(tmp_path / "again"), "--quiet", "--log", str(log)])
    found = capsys.readouterr()
    assert found.out == f"report: {tmp_path / 'again/report.html'}\n" and not found.err
    lines = [line for line in lines_of(log) if not line.startswith("stored the stage draws/")]
    assert len(lines) == len(lines_of(log)) - 1 and lines[-1] == "done"
    told = loud.replace(str(run), str(tmp_path / "again")).splitlines()
    kept = [line for line in lines[:-1] if not line.startswith("compilation: ")]
    assert kept == [line for line in told if not line.startswith("compilation: ")] and len(kept) > 6
    # A second run goes on below the first.
    make([]).main(["--preset", "smoke", "--out", str(run), "--log", str(log)])
    assert lines_of(log)[len(lines) + 1].endswith(f"already finished in {run}") and not LOGGER.handlers


def test_what_ends_a_run_is_in_its_log(tmp_path, capsys):
    def break_(whole):
        raise InputError("draws.count = 3: must be lucky")

    log = tmp_path / "run.log"
    assert exit_code(make([], findings=break_).main, ["--out", tmp_path / "run", "--log", log]) == 2
    assert lines_of(log)[-1] == "ended: draws.count = 3: must be lucky"
    assert "must be lucky" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "none/run.log"])
def test_a_log_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys, name):
    computed = []
    out = tmp_path / "run"
    assert exit_code(make(computed).main, ["--out", out, "--log", tmp_path / name]) == 2
    assert capsys.readouterr().err.startswith(f"toy: --log = {str(tmp_path / name)!r}: must be a file") and not computed
    assert not out.exists()


def test_progress_goes_to_the_log_even_where_it_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    stream.isatty = lambda: True
    with speaking(quiet=True, log=tmp_path / "log"), Progress("sampling", 4, "images", stream=stream) as bar:
        bar.update(2)
        bar.update(2)
        say("text\nof two lines")
    first, second, *rest = lines_of(tmp_path / "log")
    # The clock is read when it begins (0 s), for each look at the time, and once more for each line.
    assert first == "sampling: 2/4 images, 40 seconds, 0.05 images/s, about 40 seconds left"
    assert second == "sampling: 4/4 images, 80 seconds, 0.05 images/s" and not stream.getvalue()
    assert rest == ["text", "of two lines", "done"]


def test_a_log_whose_disk_is_full_stops_nothing(tmp_path, capsys):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with speaking(log=tmp_path / "log"):
        (handler,) = LOGGER.handlers
        handler.setStream(Full()).close()
        say("on")
        note("and on")
        handler.stream = open(tmp_path / "log", "a")
    assert capsys.readouterr().out == "on\n" and lines_of(tmp_path / "log") == ["done"]
    assert LOGGER.level == logging.NOTSET

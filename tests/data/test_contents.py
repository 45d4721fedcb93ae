"""The files that a data set consists of, and the hash of what they hold."""

import hashlib
import os

import pytest

from dgu.core.errors import InputError
from dgu.data.contents import content_of, files_of, signature_of


def test_what_a_data_set_consists_of(tmp_path):
    folder = tmp_path / "set"
    for name in ("b/2.png", "a/1.png", ".lock", "a/.hidden"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/3.png").write_text("3")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "c/up").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    assert [str(file.relative_to(folder)) for file in files_of(folder)] == ["a/1.png", "b/2.png", "c/3.png"]
    known = content_of(folder)
    (folder / "a/.hidden").unlink()
    assert content_of(folder) == known
    (folder / "a/1.png").rename(folder / "a/0.png")
    assert content_of(folder) != known
    assert files_of(tmp_path / "absent") == files_of(folder / "pipe") == []
    assert content_of(folder / "b/2.png") == hashlib.sha256(b"b/2.png").hexdigest()


def test_the_signature_changes_with_what_is_written(tmp_path):
    file = tmp_path / "a.npz"
    file.write_bytes(b"one")
    before = signature_of(file)
    assert signature_of(file) == before
    file.write_bytes(b"more")
    assert signature_of(file) != before and signature_of(tmp_path / "absent") == []


def test_nothing_has_no_content(tmp_path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent", "empty", "pipe"):
        with pytest.raises(InputError, match=rf"^path = .*{name}'?: must be an ordinary file that exists, or a folder"):
            content_of(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"one")
    (tmp_path / "a.npz").chmod(0)
    with pytest.raises(InputError, match=r"a\.npz: cannot be read \(Permission denied\)"):
        content_of(tmp_path / "a.npz")

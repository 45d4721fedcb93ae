"""Programs that are kept for later runs: taken from a folder of the user's alone, within a process of its own."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments.study import compilation
from experiments.study.compilation import Compiled

#: Compiles a program that no other test does, and prints what was compiled and how.
PROGRAM = """
import jax, jax.numpy as jnp
from experiments.study import compilation
with compilation.compilation(quick={quick}, kept={kept}) as found:
    assert jax.config.read("jax_disable_most_optimizations") == {quick}
    value = float(jax.jit(lambda x: jnp.sin(x * 3.25) @ x)(jnp.arange(17.0)))
assert not jax.config.read("jax_disable_most_optimizations")
print(found.programs > 0, found.seconds > 0, found.taken, value)
"""


def in_a_process(cache, *, quick=False, kept=True, **environment):
    """The printed words of ``PROGRAM``, run with a user's cache of its own."""
    hidden = ("JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    given = {name: value for name, value in os.environ.items() if name not in hidden}
    given |= {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"} | environment
    program = PROGRAM.format(quick=quick, kept=kept)
    done = subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_programs_are_kept_for_the_next_run_and_give_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    *first, value = in_a_process(tmp_path)
    assert first == ["True", "True", "0"]
    assert compilation.folder().is_relative_to(tmp_path) and any(compilation.folder().iterdir())
    assert compilation.folder().stat().st_mode & 0o777 == 0o700
    *second, again = in_a_process(tmp_path)
    assert second[:2] == ["True", "True"] and int(second[2]) > 0 and again == value
    # Another way to compile is another program.
    assert in_a_process(tmp_path, quick=True)[2] == "0"


def test_nothing_is_kept_where_it_is_not_wanted_or_others_could_write(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    in_a_process(tmp_path / "a", kept=False)
    assert not (tmp_path / "a").exists()
    own = tmp_path / "own"
    in_a_process(tmp_path / "a", JAX_COMPILATION_CACHE_DIR=str(own))
    assert own.exists() and not (tmp_path / "a").exists()
    compilation.folder().mkdir(parents=True)
    for open_to_all in (compilation.folder(), compilation.folder().parent):
        open_to_all.chmod(0o777)
        in_a_process(tmp_path / "a")
        assert not any(compilation.folder().iterdir())
        open_to_all.chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert compilation.folder().is_absolute() and "relative" not in compilation.folder().parts
    (tmp_path / "file").touch()
    in_a_process(tmp_path / "file")  # Where no folder can be made, programs are compiled as ever.


def test_what_was_used_least_lately_makes_room(tmp_path):
    for number, (name, used) in enumerate({"a": 30, "b": 10, "c": 20, "d": 40}.items()):
        (tmp_path / name).write_bytes(bytes(100 + number))
        os.utime(tmp_path / name, (used, 5))
    compilation.make_room(tmp_path, 406)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "c", "d"]
    compilation.make_room(tmp_path, 300)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "d"]
    os.utime(tmp_path / "a", (0, 50))  # Written, and not read since, as where times of reading are not kept.
    compilation.make_room(tmp_path, 150)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a"]
    compilation.make_room(tmp_path / "none")


@pytest.mark.parametrize("flags", ["flags\t\t: fpu sse2\n", "Features : asimd\n", "model name: x\n"])
def test_processors_have_folders_of_their_own(monkeypatch, tmp_path, flags):
    names = set()
    for line in (flags, flags.replace("\n", " avx2\n")):
        file = tmp_path / "cpuinfo"
        file.write_text("processor: 0\n" + line)
        monkeypatch.setattr("builtins.open", lambda *_, file=file: file.open())
        names.add(compilation._processor())
    assert len(names) == (1 if flags.startswith("model") else 2)


def test_what_is_compiled_is_counted():
    with compilation.compilation(quick=False, kept=False) as found:
        jax.jit(lambda x: jnp.cos(x * 7.75) @ x)(jnp.arange(19.0)).block_until_ready()
    before = found.programs
    assert before >= 1 and found.seconds > 0
    jax.jit(lambda x: jnp.cos(x * 8.75) @ x)(jnp.arange(19.0)).block_until_ready()
    assert found.programs == before, "what is compiled behind the block is not counted"
    assert str(Compiled(3, 1.4, 0)) == "compilation: 3 programs in 1 s"
    assert str(Compiled(3, 1.4, 2)) == "compilation: 3 programs in 1 s, 2 of them kept from an earlier run"

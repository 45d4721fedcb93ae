"""Snapshots that were damaged or made to do harm: each ends in one error or in a network, and nothing in it is run."""

import lzma
import os
import pickle
import re
import struct
import subprocess
import sys
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from dgu.core.errors import CheckpointError
from dgu.models import EDMDenoiser, load_edm_pickle
from tests import parity
from tests.models import networks, snapshots
from tests.models.snapshots import Built, Call, Global, Persistent, Raw, dumps, module, parameter, storage, tensor

CONFIG = snapshots.TINY
ARRAYS = networks.random_arrays(CONFIG)
NAME = "model.enc.4x4_conv.weight"
#: What must not happen while a file is read.
FORBIDDEN = ("exec", "compile", "import", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.mkdir", "os.remove",
             "subprocess.Popen", "pickle.find_class", "socket.connect", "ctypes.dlopen", "shutil.rmtree")  # fmt: skip
_watch = {"on": False, "seen": []}


def _audit(event, args):
    if _watch["on"] and event in FORBIDDEN:
        _watch["seen"].append((event, str(args)[:100]))


sys.addaudithook(_audit)


@contextmanager
def watched():
    """Note forbidden events; hooks cannot be taken away again, so this one is switched on and off."""
    _watch.update(on=True, seen=[])
    try:
        yield _watch["seen"]
    finally:
        _watch["on"] = False


@pytest.fixture(scope="module", autouse=True)
def warm():
    """What JAX imports and compiles when it is first used."""
    return jax.device_put(np.zeros(3))


def load(path):
    """The outcome of a load: a denoiser or the error's one line."""
    with watched() as seen:
        try:
            outcome = load_edm_pickle(path)
        except CheckpointError as error:
            outcome = str(error)
    assert not seen, seen
    if isinstance(outcome, str):
        assert "\n" not in outcome and len(outcome) < 500 + len(str(path)) and outcome.startswith(str(path)), outcome
    else:
        assert isinstance(outcome, EDMDenoiser)
    return outcome


def written(**kwargs):
    return snapshots.snapshot(CONFIG, ARRAYS, **kwargs)


def with_state(name, value):
    """One attribute of the top module replaced."""
    return written(change=lambda top: top.extra.update({name: value}))


def with_tensor(value):
    """One parameter replaced by what may be no tensor."""

    def make(name, array):
        return value if name == NAME else parameter(tensor(array))

    return written(make=make)


def with_option(name, value):
    return snapshots.snapshot({**CONFIG, "kwargs": CONFIG["kwargs"] | {name: value}}, ARRAYS)


class Bomb:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


WEIGHT = ARRAYS[NAME]
OS_SYSTEM = Call(Global("os", "system"), ("touch executed",))


def cyclic():
    """A network whose module 'again' is itself."""
    state = b"}\x94" + snapshots._opcodes("_modules", 4) + b"}\x94s"  # memo 0: the state, memo 1: its modules
    for group in ("_parameters", "_buffers"):
        state += snapshots._opcodes(group, 4) + b"}s"
    function = snapshots._opcodes(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), 4)
    meta = snapshots._opcodes({"type": "class", "module_src": "", "class_name": "EDMPrecond"}, 4)
    made = function + meta + snapshots._opcodes("state", 4) + state + b"s\x85R\x94"  # memo 2: the module
    again = b"h\x01" + snapshots._opcodes("again", 4) + b"h\x02s"
    return b"\x80\x04}(" + snapshots._opcodes("ema", 4) + made + snapshots._opcodes("also", 4) + again + b"u."


def bloated(opcodes):
    return b"\x80\x04" + opcodes


HOSTILE = {
    "calls os.system": (dumps({"ema": OS_SYSTEM}), "global 'os' 'system' is not allowed"),
    "calls builtins.eval": (dumps({"ema": Call(Global("builtins", "eval"), ("1/0",))}), "'builtins' 'eval'"),
    "calls exec by lines": (dumps({"ema": Call(Global("builtins", "exec"), ("1/0",))}, 2), "'builtins' 'exec'"),
    "real pickle, os.system": (pickle.dumps({"ema": Bomb(os.system, "touch executed")}, 4), "'system'"),
    "real pickle, eval": (pickle.dumps({"ema": Bomb(eval, "1/0")}, 4), "'builtins' 'eval'"),
    "real pickle, protocol 0": (pickle.dumps({"ema": Bomb(eval, "1/0")}, 0), "opcode 0x"),
    "getattr on an allowed name": (dumps({"ema": Global("torch._utils", "_rebuild_tensor_v2.__globals__")}), "not allowed"),
    "os.system behind an allowed module": (dumps(Global("torch._utils", "os.system")), "not allowed"),
    "in the state": (with_state("x", OS_SYSTEM), "'os' 'system'"),
    "in a tensor": (with_tensor(OS_SYSTEM), "'os' 'system'"),
    "in a storage": (with_tensor(tensor(WEIGHT, of=Call(Global("torch.storage", "_load_from_bytes"), (dumps(OS_SYSTEM, 2),)))), "'os' 'system'"),
    "a pickle in a storage": (with_tensor(tensor(WEIGHT, of=Call(Global("torch.storage", "_load_from_bytes"), (pickle.dumps(Bomb(eval, "1")),)))), "'builtins' 'eval'"),
    "a call of a text": (dumps(Raw(snapshots._opcodes("os.system", 4) + snapshots._opcodes(("ls",), 4) + b"R")), "a call of what is no global"),
    "INST": (b"\x80\x04(ios\nsystem\n.", "opcode 0x69"),
    "OBJ": (b"\x80\x04(cos\nsystem\no.", "not allowed"),
    "EXT1": (b"\x80\x04\x82\x01.", "opcode 0x82"),
    "NEWOBJ_EX": (b"\x80\x04\x92.", "opcode 0x92"),
    "BYTEARRAY8": (b"\x80\x05\x96" + struct.pack("<Q", 10 << 30), "opcode 0x96"),
    "persistent identifier": (dumps({"ema": Persistent(("storage",))}), "a persistent identifier"),
    "an unknown class": (dumps({"ema": module("Popen", {})}), "class 'Popen' is not known"),
    "an unknown kind": (dumps({"ema": module("EDMPrecond", {}, kind="function")}), "without a class"),
    "a loss as the network": (dumps({"ema": module("EDMLoss", {"_parameters": {}, "_buffers": {}, "_modules": {}})}), "'ema' is a EDMLoss"),
    "a class name that is a list": (dumps({"ema": module([[]], {})}), "class list is not known"),
    "no network": (dumps({"loss_fn": None}), "no network 'ema'"),
    "a network that is data": (dumps({"ema": {"state": {}}}), "no network 'ema'"),
    "a list": (dumps([1, 2]), "no network 'ema'"),
    "no modules": (with_state("_modules", None), "_modules"),
    "a module that is data": (with_state("_modules", {"model": {}}), "model is not a module"),
    "modules by number": (with_state("_modules", {1: None}), "_modules"),
    "a parameter that is data": (with_tensor([1.0]), "is not one tensor"),
    "state for a module that has it": (dumps({"ema": Built(module("EDMPrecond", {}), {})}), "takes none"),
    "state for a dictionary": (dumps({"ema": Built({}, {"__class__": 1})}), "takes none"),
    "positional arguments": (with_state("_init_args", (4, 1)), "constructor arguments"),
    "no arguments": (with_state("_init_kwargs", None), "constructor arguments"),
    "a network of another kind": (with_state("_init_kwargs", CONFIG["kwargs"] | {"model_type": "DhariwalUNet"}), "its model_type is 'DhariwalUNet', its network a SongUNet"),
    "arguments that disagree": (with_state("_init_kwargs", CONFIG["kwargs"] | {"model_channels": 8}), "'model_channels' is 8 outside and 4"),
    "an option that is a module": (with_option("dropout", module("Linear", {})), "option 'dropout' is a _Node"),
    "an option nested too deep": (with_option("channel_mult", [[1]]), "option 'channel_mult' is a list"),
    "absurdly many blocks": (with_option("num_blocks", 2**31 - 1), "num_blocks"),
    "absurdly many levels": (with_option("channel_mult", [1] * 1000), "channel_mult"),
    "absurdly wide": (with_option("channel_mult_emb", 2**31 - 1), "channel_mult_emb"),
    "an enormous integer": (with_option("label_dim", 1 << 2000), "label_dim"),
    "text with lines": (with_option("embedding_type", "a\nb" * 1000), "embedding_type"),
    "lone surrogates": (with_option("embedding_type", "\ud800"), "not UTF-8"),
    "not a number": (with_option("dropout", float("nan")), "dropout"),
    "too few elements": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT.ravel()[:-1]))), "reaches outside its storage"),
    "a count that lies": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT, count=WEIGHT.size + 1))), "wrong size"),
    "a length that lies": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT, numel=10**10, count=10**10))), "wrong size"),
    "a negative count": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT, numel=WEIGHT.size, count=-1))), "wrong size"),
    "a negative length": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT, numel=-1))), "unusable description"),
    "on a GPU": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT, device="cuda:0"))), "on a device"),
    "big-endian": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT, little=False))), "little-endian"),
    "another magic number": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT, magic=7))), "legacy format"),
    "another version": (with_tensor(tensor(WEIGHT, of=storage(WEIGHT, version=1002))), "legacy format"),
    "negative strides": (with_tensor(tensor(WEIGHT, stride=(-9, 9, 3, 1))), "not a whole number"),
    "a negative offset": (with_tensor(tensor(WEIGHT, offset=-1)), "not a whole number"),
    "an offset outside": (with_tensor(tensor(WEIGHT, offset=1)), "outside its storage"),
    "strides outside": (with_tensor(tensor(WEIGHT, stride=(9, 9, 3, 2))), "outside its storage"),
    "a negative size": (with_tensor(tensor(WEIGHT, size=(-4, 1, 3, 3))), "not a whole number"),
    "a fractional size": (with_tensor(tensor(WEIGHT, size=(4.0, 1, 3, 3))), "not a whole number"),
    "a size without strides": (with_tensor(tensor(WEIGHT, size=(4, 1, 3))), "do not match"),
    "many from one element": (with_tensor(tensor(WEIGHT, size=(10**6, 10**6, 1, 1), stride=(0, 0, 0, 0))), "outside its storage"),
    "elements shared": (with_tensor(Call(Global("torch._utils", "_rebuild_tensor_v2"), ())), "unusable arguments"),
    "a tensor of nothing": (with_tensor(tensor(WEIGHT, of=None, size=(0, 1, 3, 3))), "of shape"),
    "another shape": (with_tensor(parameter(tensor(WEIGHT.reshape(4, 1, 9, 1)))), "of shape"),
    "not finite": (with_tensor(parameter(tensor(np.full_like(WEIGHT, np.nan)))), "finite"),
    "a tensor left out": (with_tensor(None), "enc.4x4_conv.weight is missing"),
    "a tensor too many": (written(change=lambda top: top.tensors.update(extra=WEIGHT)), "extra does not belong"),
    "a module within itself": (cyclic(), "holds itself or appears twice"),
    "keys that are tuples": (dumps(Raw(b"}" + b")" + b"\x85" * 10_000 + b"Ns")), "dictionary key is a tuple"),
    "trailing bytes": (written() + b"\x80\x04N.", "4 bytes follow its end"),
    "leftovers on the stack": (b"\x80\x04NN.", "left over"),
    "operands missing": (b"\x80\x04R.", "lacks operands"),
    "no mark": (b"\x80\x04t.", "lacks operands"),
    "no stop": (b"\x80\x04N", "ends early"),
    "protocol 9": (b"\x80\x09N.", "protocol 9"),
    "text": (b"network\n" * 100, "opcode"),
    "a zip": (b"PK\x03\x04" + bytes(100), "opcode 0x50"),
    "empty": (b"", "0 bytes"),
    "10 GB of bytes": (bloated(b"\x8e" + struct.pack("<Q", 10 << 30) + b"x"), "ends early"),
    "10 GB of text": (bloated(b"\x8d" + struct.pack("<Q", 10 << 30) + b"x"), "ends early"),
    "10 GB of frame": (bloated(b"\x95" + struct.pack("<Q", 10 << 30) + b"N."), "ends early"),
    "2^64 - 1 bytes": (bloated(b"\x8e" + b"\xff" * 8), "ends early"),
    "memo entry 2^32 - 1": (bloated(b"Nr" + b"\xff" * 4 + b"."), "out of order"),
    "memo entry that is not there": (bloated(b"h\x07."), "not there"),
    "600,000 lists": (bloated(b"]" * 600_000 + b"."), "too many opcodes"),
    "600,000 marks": (bloated(b"(" * 600_000), "too many opcodes"),
    "nested 150,000 deep": (bloated(b")" + b"\x85" * 150_000 + b"."), "no network 'ema'"),
    "nested and shown": (dumps(Raw(b"}" + snapshots._opcodes("ema", 4) + b")" + b"\x85" * 100_000 + b"s")), "no network 'ema'"),
    "100 MB of text": (bloated((b"X" + struct.pack("<I", 10 << 20) + b"a" * (10 << 20)) * 10), "too much text"),
    "laughs": (bloated(b"]\x94" + b"](" + b"h\x00" * 1000 + b"e" + b"0"), "opcode 0x30"),
}  # fmt: skip


#: Takes as long as another that is refused for the same reason.
LONG = "600,000 marks"


@pytest.mark.parametrize("name", [n if n != LONG else pytest.param(n, marks=pytest.mark.slow) for n in HOSTILE])
def test_hostile_files_end_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, message = HOSTILE[name]
    (tmp_path / "hostile.pkl").write_bytes(data)
    outcome = load(tmp_path / "hostile.pkl")
    assert isinstance(outcome, str) and re.search(message, outcome), outcome
    assert not (tmp_path / "executed").exists()


def test_one_storage_for_many_tensors_is_refused(tmp_path):
    """Each tensor is inside its bounds; together they would be the storage many times over."""
    shared = {}

    def make(name, array):
        # The first storage is memoised as entry 0 of the memo and taken by all.
        if not shared:
            shared["storage"] = storage(np.zeros(5000, np.float32))
            return parameter(tensor(array, of=Raw(snapshots._opcodes(shared["storage"], 4) + b"\x94")))
        return parameter(tensor(array, of=Raw(b"h\x00")))

    many = {name: np.zeros(2000, np.float32) for name in ARRAYS}
    (tmp_path / "n.pkl").write_bytes(snapshots.snapshot(CONFIG, many, make=make))
    assert "tensors share their elements" in load(tmp_path / "n.pkl")


def mutations(data, count, seed):
    """``count`` damaged copies of ``data``: flipped bits, other bytes and numbers, cuts, pieces lost, doubled and
    moved.
    """
    rng = np.random.default_rng(seed)
    opcodes = bytes(range(256))
    for i in range(count):
        changed = bytearray(data)
        at = int(rng.integers(len(data)))
        # Most of a file is weights: every other change falls on what surrounds them, the first of its bytes.
        at = at if i % 2 else int(rng.integers(min(len(data), 4000)))
        size = int(rng.integers(1, 64))
        kind = i % 8
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = opcodes[int(rng.integers(256))]
        elif kind == 2:
            changed[at : at + 8] = rng.bytes(8)
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            del changed[at : at + size]
        elif kind == 5:
            changed[at:at] = changed[at : at + size]
        elif kind == 6:
            other = int(rng.integers(len(data)))
            changed[at : at + size] = data[other : other + size]
        else:
            changed[at : at + 4] = struct.pack("<I", int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1])))
        yield bytes(changed)


@pytest.mark.slow
def test_damaged_files_end_in_one_line_or_in_a_network(tmp_path):
    genuine = lzma.decompress((parity.FIXTURES / "snapshot.pkl.xz").read_bytes())
    path, errors, loaded = tmp_path / "damaged.pkl", set(), 0
    for data, count in ((written(), 520), (genuine, 30)):
        for changed in mutations(data, count, seed=count):
            path.write_bytes(changed)
            outcome = load(path)
            loaded += not isinstance(outcome, str)
            if isinstance(outcome, str):
                errors.add(outcome.split("snapshot: ")[1][:12])
    # Damage to the weights or to what is not read leaves a network; the rest is found in many different ways.
    assert 30 < loaded < 400 and len(errors) > 15, (loaded, errors)


LIMITED = """
import resource, sys
from pathlib import Path
import jax, numpy as np
from dgu.core.errors import CheckpointError
from dgu.models import load_edm_pickle
jax.device_put(np.zeros(3))
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30),) * 2)
for path in sorted(Path(sys.argv[1]).glob("*.pkl")):
    try:
        load_edm_pickle(path)
    except CheckpointError:
        continue
    raise SystemExit(f"{path} loads")
print("all refused")
"""


def test_hostile_files_take_less_than_a_gigabyte(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("address space is limited and measured as Linux does it")
    for i, (data, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{i:03d}.pkl").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip() == "all refused", done.stdout + done.stderr

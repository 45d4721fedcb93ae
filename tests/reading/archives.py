"""Files made to exhaust memory, and the line with which they must be refused."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import ADMConfig, EDMNetwork

#: Zeros that a bomb unpacks to (bytes), and what a reader may take on the way to its refusal.
BOMB, MOST = 2**25, 2**23
NETWORK = EDMNetwork(ADMConfig(4, 1, 1, 2, model_channels=4, channel_mult=(1,), num_blocks=1, attn_resolutions=()))
IMAGES = np.zeros((4, 6, 6, 1), np.uint8)
FIRST = "model.out_conv.weight"


def header(shape, dtype="|u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def bomb(path, name, head=None, kind=zipfile.ZIP_DEFLATED):
    """Add a member of ``BOMB`` zeros, or put it in the place of one."""
    others = {}
    if path.exists():
        with zipfile.ZipFile(path) as archive:
            others = {entry: archive.read(entry) for entry in archive.namelist() if entry != name}
    with zipfile.ZipFile(path, "w", kind, compresslevel=9 if kind != zipfile.ZIP_LZMA else None) as archive:
        for entry, content in others.items():
            archive.writestr(entry, content)
        archive.writestr(name, (header((BOMB,)) if head is None else head) + bytes(BOMB))


def line_of(read, *arguments):
    """The refusal's line; reading took little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read(*arguments)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    assert "\n" not in line and str(arguments[0]) in line and peak < MOST, (line, peak)
    return line

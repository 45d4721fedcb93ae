"""Image sets as arrays (NHWC float32, integer labels), and the store of generated samples."""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.data.folders import write_edm_zip as write_edm_zip
    from dgu.data.formats import write_npz as write_npz
    from dgu.data.pixels import area_mean as area_mean
    from dgu.data.pixels import subset as subset
    from dgu.data.scaling import PixelScale as PixelScale
    from dgu.data.sets import ImageSet as ImageSet
    from dgu.data.sets import load as load
    from dgu.data.store import SampleStore as SampleStore

load_on_use(__name__)

"""Image sets as arrays (NHWC float32, integer labels), and the store of generated samples."""

from dgu.data.sets import ImageSet as ImageSet
from dgu.data.sets import load as load

"""Image sets from what is in memory: arrays, data sets of Hugging Face, of torchvision and of PyTorch."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dgu.core.arrays import as_plain, is_floating
from dgu.core.errors import InputError, require
from dgu.data.formats import Decoded, decoded

#: Names of columns that are taken for images and labels where their types do not say it.
_IMAGES, _LABELS = ("image", "img", "images", "pixel_values"), ("label", "labels", "fine_label", "target")


def decoded_arrays(
    images: Any, labels: Any, class_names: Sequence[str] | None, channels_first: bool | None, name: str
) -> Decoded:
    """Arrays, or a data set in place of images, with labels, as arrays of one layout; vectors ``(n, d)`` stay such.

    Raises:
        InputError: no numbers, no or two possible channel axes, labels that do not fit, a data set without images.
    """
    if not _is_array(images):
        require(labels is None, "labels", "given beside a data set", "left out: they are the data set's own")
        images, labels, own, first = _from_data_set(images, name)
        class_names = own if class_names is None else class_names
        channels_first = first if channels_first is None else channels_first
    array = as_plain(name, images)
    if array.dtype.kind == "O" or (array.dtype.kind not in "iuf" and not is_floating(array.dtype)):
        raise InputError(f"{name}: has dtype {array.dtype}; must be numbers")
    marks = None if labels is None else as_plain("labels", labels)
    if array.ndim == 2:
        wide = decoded(array[:, :, None], marks, class_names, name)
        return wide._replace(images=wide.images[:, :, 0, 0])
    if array.ndim == 4 and channels_first is not None:
        array = np.moveaxis(array, 1, -1) if channels_first else array
        # One layout is left: what the axes' sizes would say is not asked.
        parts = [decoded(array[..., channel], marks, class_names, name) for channel in range(array.shape[-1])]
        return parts[0]._replace(images=np.concatenate([part.images for part in parts], axis=-1))
    return decoded(array, marks, class_names, name)


def _is_array(value: Any) -> bool:
    """Whether a value is an array, of NumPy, JAX or PyTorch, or lists of numbers."""
    return (hasattr(value, "__array__") and hasattr(value, "shape")) or isinstance(value, list | tuple)


def _from_data_set(found: Any, name: str) -> tuple[Any, Any, tuple[str, ...] | None, bool | None]:
    """Images, labels, names of classes and whether channels come first, of a data set told by what it can do."""
    if hasattr(found, "features") and hasattr(found, "column_names"):
        return _from_columns(found, name)
    if not (hasattr(found, "__len__") and hasattr(found, "__getitem__")):
        raise InputError(
            f"{name} = {type(found).__name__}: must be an array, or a data set of Hugging Face, torchvision or PyTorch "
            "with a length and items"
        )
    items = [found[number] for number in range(len(found))]
    if not items:
        raise InputError(f"{name} = {type(found).__name__}: holds no items; must hold one image or more")
    labelled = isinstance(items[0], tuple | list) and len(items[0]) >= 2
    images, first = _stacked([item[0] if labelled else item for item in items], name)
    classes = getattr(found, "classes", None)
    return images, [item[1] for item in items] if labelled else None, _names(classes), first


def _from_columns(found: Any, name: str) -> tuple[Any, Any, tuple[str, ...] | None, bool | None]:
    """Of Hugging Face's ``datasets``: columns by their types, ``Image`` and ``ClassLabel``, else by their names."""

    def column(kind: str, names: Iterable[str]) -> str | None:
        of_kind = [each for each in found.column_names if type(found.features[each]).__name__ == kind]
        return next(iter([*of_kind, *(each for each in names if each in found.column_names)]), None)

    of_images, of_labels = column("Image", _IMAGES), column("ClassLabel", _LABELS)
    if of_images is None:
        raise InputError(f"{name}: columns {list(found.column_names)}; must have one of images, such as 'image'")
    images, first = _stacked(list(found[of_images]), name)
    labels = None if of_labels is None else list(found[of_labels])
    return (
        images,
        labels,
        None if of_labels is None else _names(getattr(found.features[of_labels], "names", None)),
        first,
    )


def _names(classes: Any) -> tuple[str, ...] | None:
    return tuple(str(each) for each in classes) if isinstance(classes, list | tuple) and classes else None


def _stacked(items: list[Any], name: str) -> tuple[np.ndarray, bool | None]:
    """Items as one array, and whether their channels come first: as tensors of PyTorch have them, pictures not."""
    tensors = type(items[0]).__module__.split(".")[0] == "torch" and items[0].ndim == 3
    arrays = [np.asarray(item) for item in items]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise InputError(f"{name}: images of shapes {sorted(shapes)[:3]}; must all have one shape")
    return np.stack(arrays), True if tensors else None

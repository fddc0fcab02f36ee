"""MNIST and CIFAR-10 in the formats they are published in, from files or downloaded.

The files are looked for under `$NTK_RESNET_DATA`, else `data` in the folder for caches,
by their published names, packed or not, at any depth. If there are none, the archives
are downloaded there and checked against their published digests.
"""

import gzip
import hashlib
import http.client
import os
import pathlib
import struct
import tarfile
import urllib.request
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from ntk_resnet._checks import check_choice
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.records.cache import cache_folder
from ntk_resnet.records.content import write_file

Images = UInt8[np.ndarray, "n height width channels"]


class Archive(NamedTuple):
    """A published file, what it is to be called, and its MD5."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
ARCHIVES = {
    "mnist": (
        Archive(
            _MNIST + "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"
        ),
        Archive(
            _MNIST + "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"
        ),
        Archive(
            _MNIST + "t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"
        ),
        Archive(
            _MNIST + "t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"
        ),
    ),
    "cifar10": (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
}
_CIFAR_PARTS = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
_CIFAR_CLASSES = np.array(
    [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
)
_CIFAR_SHAPE = (3, 32, 32)


def data_folder() -> pathlib.Path:
    """Where data sets lie: `$NTK_RESNET_DATA`, else `data` in the folder for caches.

    Raises:
        ValueError: neither is to be had.
    """
    if named := os.environ.get("NTK_RESNET_DATA"):
        return pathlib.Path(named)
    cache = cache_folder()
    if cache is None:
        raise ValueError(
            "there is no folder for data sets, since NTK_RESNET_CACHE is empty; set "
            "NTK_RESNET_DATA to the folder that they lie in."
        )
    return cache / "data"


def has_images(name: str) -> bool:
    """Whether the files of `"mnist"` or `"cifar10"` are at hand.

    Raises:
        ValueError: those of several folders are, or the name is another.
    """
    check_choice("name", name, ARCHIVES)
    anywhere = os.environ.get("NTK_RESNET_DATA") or cache_folder()
    return bool(anywhere and _local(name))


def _local(name):
    """The paths of the files, or of the archive that holds them; empty without."""
    archives = [archive.name for archive in ARCHIVES[name]]
    if name == "mnist":
        return _together([archive.removesuffix(".gz") for archive in archives])
    return _together(_CIFAR_PARTS) or _together(archives)


def read_images(name: str, progress: Progress = quiet) -> tuple[Images, np.ndarray]:
    """All images of `"mnist"` or `"cifar10"`, the training set first, and labels.

    Raises:
        ValueError: a file is damaged, or not of the published format.
        OSError: there are no files, and none can be downloaded.
    """
    if name == "mnist":
        return _read_mnist(progress)
    return _read_cifar(progress)


def _read_mnist(progress):
    paths = _local("mnist") or _download("mnist", progress)
    arrays = [_read_idx(path) for path in paths]
    for images, labels, path in zip(
        arrays[::2], arrays[1::2], paths[1::2], strict=True
    ):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"data file {str(path)!r} has labels of shape {labels.shape} for "
                f"images of shape {images.shape}; they do not belong together."
            )
        if labels.max(initial=0) > 9:
            raise ValueError(
                f"data file {str(path)!r} has the label {labels.max()}; those of MNIST "
                "are digits."
            )
    return np.concatenate(arrays[::2])[..., None], np.concatenate(arrays[1::2])


def _read_idx(path):
    """An array of bytes in the IDX format: type, number of axes, sizes, content."""
    content = _content(path)
    axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * axes
    if content[:3] != b"\0\0\x08" or len(content) < start:
        raise ValueError(
            f"data file {str(path)!r} is no IDX file of bytes; download it again."
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != np.prod(shape, dtype=object):
        raise ValueError(
            f"data file {str(path)!r} holds {len(content) - start} bytes for an array "
            f"of shape {shape}; download it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_cifar(progress):
    paths = _local("cifar10") or _download("cifar10", progress)
    if len(paths) > 1:
        parts = {path: _content(path) for path in paths}
    else:
        parts = _members(paths[0])
    size = 1 + int(np.prod(_CIFAR_SHAPE))
    arrays = []
    for path, content in parts.items():
        array = np.frombuffer(content, np.uint8)
        if array.size % size or array[::size].max(initial=0) >= len(_CIFAR_CLASSES):
            raise ValueError(
                f"data file {str(path)!r} is not of CIFAR-10's binary version: records "
                f"of a label below 10 and {size - 1} bytes; download it again."
            )
        arrays.append(array.reshape(-1, size))
    rows = np.concatenate(arrays)
    images = rows[:, 1:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return images, _CIFAR_CLASSES[rows[:, 0]]


def _members(path):
    """The parts of CIFAR-10 in its archive; nothing is unpacked to disk."""
    parts = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name).name
                content = archive.extractfile(member)
                if content is not None and name in _CIFAR_PARTS:
                    parts[name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile):
        parts = {}
    if len(parts) < len(_CIFAR_PARTS):
        raise ValueError(
            f"data file {str(path)!r} is damaged, or not CIFAR-10's binary version; "
            "remove it, or download it again."
        )
    return {path / name: parts[name] for name in _CIFAR_PARTS}


# ------------------------------------------------------------------------------- files


def _together(names):
    """The files of these names, packed or not, from one folder; none: an empty list.

    Other data sets come under the same names: files of two folders are never mixed.
    """
    found = {}
    for folder in {path.parent for path in data_folder().rglob(f"{names[0]}*")}:
        kinds = [(folder / name, folder / f"{name}.gz") for name in names]
        paths = [next(filter(pathlib.Path.is_file, both), None) for both in kinds]
        if all(paths):
            found[folder] = paths
    if len(found) > 1:
        folders = " and ".join(sorted(repr(str(folder)) for folder in found))
        raise ValueError(
            f"{names[0]!r} lies in {folders}; name the folder of one of them in "
            "NTK_RESNET_DATA."
        )
    return next(iter(found.values()), [])


def _content(path):
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ValueError(
            f"data file {str(path)!r} is damaged; download it again."
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"data file {str(path)!r} cannot be read: {reason}.") from None


def _download(name, progress):
    """Fetches all archives of a data set; each is there whole or not at all."""
    found = []
    archives = ARCHIVES[name]
    for number, archive in enumerate(archives):
        progress(number, len(archives), f"downloading {archive.name}")
        try:
            with urllib.request.urlopen(archive.url, timeout=30) as answer:
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise OSError(
                f"{name} is not under {str(data_folder())!r} and cannot be downloaded "
                f"from {archive.url} ({reason}); put its published files there, or "
                "name their folder in NTK_RESNET_DATA."
            ) from None
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if digest != archive.md5:
            raise ValueError(
                f"{archive.url} holds another file than was published (MD5 {digest}, "
                f"not {archive.md5}); get {name} elsewhere."
            )
        found.append(data_folder() / name / archive.name)
        write_file(found[-1], content)
    return found

"""MNIST and CIFAR-10 from small files in their published formats."""

import gzip
import hashlib
import http.client
import io
import re
import struct
import tarfile
import urllib.request

import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.data import images as data_images

RNG = np.random.default_rng(0)
TRAIN, TEST = 30, 12


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NTK_RESNET_DATA", str(tmp_path))
    return tmp_path


def idx(array):
    """By the format's definition: two zeros, type 8, axes, sizes big-endian, bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + (
        array.tobytes()
    )


@pytest.fixture
def digits():
    """What the four files of MNIST hold, by their names."""
    arrays = {}
    for part, rows in (("train", TRAIN), ("t10k", TEST)):
        images = RNG.integers(0, 256, (rows, 28, 28), np.uint8)
        arrays[f"{part}-images-idx3-ubyte"] = images
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(rows, dtype=np.uint8) % 10
    return arrays


def write_mnist(folder, arrays, packed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if packed:
            folder.joinpath(f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            folder.joinpath(name).write_bytes(idx(array))


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(folder, digits, packed):
    write_mnist(folder / "MNIST" / "raw", digits, packed)
    data = nr.load_data("mnist")
    assert (data.name, len(data), data.classes) == (
        "mnist",
        TRAIN + TEST,
        tuple(map(str, range(10))),
    )
    raw = np.concatenate(list(digits.values())[::2]).reshape(TRAIN + TEST, -1)
    wanted = raw - raw.mean()  # one channel: one mean, one scale
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(data.x, wanted, rtol=0, atol=16 * np.finfo(float).eps)
    np.testing.assert_array_equal(data.y, np.r_[np.arange(TRAIN), np.arange(TEST)] % 10)


def pictures():
    """Images in order of rows, columns, colours, and whole numbers of their classes."""
    shape = (6, 7, 32, 32, 3)  # parts, images in a part
    labels = np.arange(42).reshape(6, 7) % 10
    return RNG.integers(0, 256, shape, np.uint8), labels.astype(np.uint8)


def parts(images, labels):
    """The six files: a label, then the planes of red, green and blue, row by row."""
    planes = np.moveaxis(images, -1, 2).reshape(6, 7, -1)
    rows = np.concatenate([labels[..., None], planes], axis=2)
    names = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
    return {name: row.tobytes() for name, row in zip(names, rows, strict=True)}


def archive(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10(folder, packed):
    images, labels = pictures()
    if packed:
        path = folder / "cifar-10-binary.tar.gz"
        path.write_bytes(archive(parts(images, labels)))
    else:
        for name, content in parts(images, labels).items():
            folder.joinpath(name).write_bytes(content)
    found, names = data_images.read_images("cifar10")
    np.testing.assert_array_equal(found, images.reshape(42, 32, 32, 3))
    data = nr.load_data("cifar10")
    classes = [
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
    assert data.classes == tuple(classes)
    np.testing.assert_array_equal(data.y, labels.ravel())
    np.testing.assert_array_equal(names, np.array(classes)[labels.ravel()])
    flat = images.reshape(42, -1, 3).astype(float)
    wanted = (flat - flat.mean((0, 1))) / flat.std((0, 1))
    wanted = wanted.reshape(42, -1)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(data.x, wanted, rtol=0, atol=16 * np.finfo(float).eps)


# ------------------------------------------------------------------- what is not usable


def damaged_mnist(folder, digits, change):
    write_mnist(folder, digits, packed=False)
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], "bytes for an array of shape (30, 28, 28)"),
        (lambda content: b"\1" + content[1:], "no IDX file of bytes"),
        (lambda content: content[:9], "no IDX file of bytes"),
        (lambda content: b"", "no IDX file of bytes"),
    ],
)
def test_damaged_idx_files(folder, digits, change, message):
    damaged_mnist(folder, digits, change)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        nr.load_data("mnist")
    assert "train-images-idx3-ubyte" in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_of_other_images(folder, digits):
    digits["t10k-labels-idx1-ubyte"] = digits["train-labels-idx1-ubyte"]
    write_mnist(folder, digits, packed=False)
    with pytest.raises(ValueError, match="do not belong together"):
        nr.load_data("mnist")


def test_files_of_two_data_sets_are_not_mixed(folder, digits):
    """Fashion-MNIST has the same names."""
    write_mnist(folder / "mnist", digits, packed=False)
    wanted = nr.load_data("mnist")
    other = folder / "fashion"
    write_mnist(other, digits, packed=True)
    with pytest.raises(ValueError, match=r"fashion' and '.*mnist'; name the folder"):
        nr.load_data("mnist")
    (other / "t10k-labels-idx1-ubyte.gz").unlink()  # what is not complete is no set
    np.testing.assert_array_equal(nr.load_data("mnist").x, wanted.x)


def test_labels_that_are_no_digits(folder, digits):
    digits["t10k-labels-idx1-ubyte"][3] = 77
    write_mnist(folder, digits, packed=False)
    with pytest.raises(ValueError, match="has the label 77; those of MNIST are digits"):
        nr.load_data("mnist")


def test_a_cut_gzip_file(folder, digits):
    write_mnist(folder, digits, packed=True)
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is damaged; download it again"):
        nr.load_data("mnist")


def test_damaged_parts_of_cifar10(folder):
    files = parts(*pictures())
    for name, content in files.items():
        folder.joinpath(name).write_bytes(content)
    folder.joinpath("data_batch_3.bin").write_bytes(files["data_batch_3.bin"][:-1])
    with pytest.raises(ValueError, match=r"data_batch_3\.bin' is not of CIFAR-10's"):
        nr.load_data("cifar10")
    folder.joinpath("data_batch_3.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(ValueError, match="records of a label below 10"):
        nr.load_data("cifar10")


def test_damaged_archives_of_cifar10(folder):
    files = parts(*pictures())
    path = folder / "cifar-10-binary.tar.gz"
    path.write_bytes(archive(files)[:-500])
    with pytest.raises(ValueError, match="is damaged, or not CIFAR-10's binary"):
        nr.load_data("cifar10")
    del files["test_batch.bin"]
    path.write_bytes(archive(files))
    with pytest.raises(ValueError, match="is damaged, or not CIFAR-10's binary"):
        nr.load_data("cifar10")


# --------------------------------------------------------------------------- downloads


@pytest.fixture
def published(tmp_path_factory, monkeypatch):
    """The archive of CIFAR-10 at another address, with its digest."""
    images, labels = pictures()
    path = tmp_path_factory.mktemp("elsewhere") / "cifar-10-binary.tar.gz"
    path.write_bytes(archive(parts(images, labels)))
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    one = data_images.Archive(path.as_uri(), digest)
    monkeypatch.setitem(data_images.ARCHIVES, "cifar10", (one,))
    return path


def test_what_is_missing_is_downloaded_once(folder, published):
    seen = []
    data = nr.load_data("cifar10", progress=lambda *args: seen.append(args))
    assert len(data) == 42
    assert seen == [(0, 1, "downloading cifar-10-binary.tar.gz")]
    published.unlink()
    np.testing.assert_array_equal(nr.load_data("cifar10").x, data.x)
    assert [p.name for p in (folder / "cifar10").iterdir()] == [published.name]


def test_another_file_than_was_published_is_refused(folder, published):
    published.write_bytes(published.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="holds another file than was published"):
        nr.load_data("cifar10")
    assert list(folder.iterdir()) == []


def test_neither_files_nor_a_network(folder, published):
    published.unlink()
    with pytest.raises(OSError, match="put its published files there") as error:
        nr.load_data("cifar10")
    assert "\n" not in str(error.value)


def test_a_download_that_breaks_off(folder, published, monkeypatch):
    class Broken(io.BytesIO):
        def read(self):
            raise http.client.IncompleteRead(b"", 7)

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Broken())
    with pytest.raises(OSError, match=r"cannot be downloaded from .*IncompleteRead"):
        nr.load_data("cifar10")
    assert list(folder.iterdir()) == []


def test_nowhere_to_look(monkeypatch):
    monkeypatch.delenv("NTK_RESNET_DATA", raising=False)
    monkeypatch.setenv("NTK_RESNET_CACHE", "")
    with pytest.raises(ValueError, match="set NTK_RESNET_DATA"):
        nr.load_data("mnist")

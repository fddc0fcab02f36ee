"""Data sets as the studies want them: standardised, on the unit sphere, checked.

A bundled set by name, or a user's own file. Everything is read once, completely, and a
file that cannot be used says in one line why.
"""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float64, Int, Num, Shaped

from ntk_resnet._checks import check_choice, check_count
from ntk_resnet._progress import Progress, quiet
from ntk_resnet.data import files
from ntk_resnet.data.images import ARCHIVES, read_images

LEAST_ROWS = 10
"""Fewer rows than this are refused: no split of them would say anything."""


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Inputs on the unit sphere and their targets. Compared by identity.

    Attributes:
        x: float64 `(n, d)`, or images `(n, H, W, C)`; every row of length 1.
        y: `(n,)`; with classes, whole numbers that count into `classes`, else float64.
        classes: the names of the classes in order, or `None` for real targets.
        name: what to call the set in a table.
    """

    x: Float64[np.ndarray, "n *features"]
    y: Num[np.ndarray, " n"]
    classes: tuple[str, ...] | None
    name: str

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Int[np.ndarray, " m"]) -> "Data":
        """Some of the rows, in the order given; the classes stay those of the whole."""
        return dataclasses.replace(self, x=self.x[rows], y=self.y[rows])


def load_data(
    source: str | pathlib.Path,
    *,
    task: str = "auto",
    images: bool = False,
    progress: Progress = quiet,
) -> Data:
    """Reads a data set by name, or from a `.npz` or `.csv` file.

    Every feature is standardised over all rows (mean 0, variance 1), features that are
    the same in every row are dropped, and each row is then divided by its length. Of
    `"mnist"` and `"cifar10"` whole colour channels are standardised instead, as is the
    custom, so that pixels which hardly ever vary do not drown the others.

    Args:
        source: `"digits"` (1797 images of 8 x 8 pixels, bundled with scikit-learn);
            `"mnist"` (70,000 of 28 x 28) or `"cifar10"` (60,000 of 32 x 32 in colour),
            the training images first, from their published files (IDX; the binary
            version) under `$NTK_RESNET_DATA` or `~/.cache/ntk_resnet/data`, to which
            they are downloaded and checked if there are none; the path of a NumPy
            archive with `x` of shape (n, d) and `y` of shape (n,); or
            of a CSV file whose target is the column named `y`, or else the last one (a
            first line with a cell that is not a number, above one that is, is a
            header).
        images: whether `x` is to hold images `(n, height, width, channels)`, for
            convolutional networks, of which whole channels are standardised and every
            pixel is kept: of the three sets with a name, or of an archive whose `x` has
            that shape.
        task: `"classes"`, `"regression"`, or `"auto"`: classes if the targets are text,
            or whole numbers with at most 100 different values and two rows for each.
        progress: called as `progress(done, total, text)` for each file to download.

    Returns:
        The `Data`, float64, with at least 10 rows.

    Raises:
        ValueError: the source is unknown, missing, unreadable, empty, mis-shaped, not
            numeric, not finite, has too few rows, a single class or target value, or
            a row that is zero once standardised. One line that says which and where.
        OSError: the images are neither at hand nor to be downloaded.
    """
    check_choice("task", task, ("auto", "classes", "regression"))
    published = False
    if isinstance(source, str) and source in ARCHIVES:
        published, name = True, source
        x, y = read_images(name, progress)
    else:
        x, y, name = files.read(source)
    if images and source == "digits":
        x = x.reshape(-1, 8, 8, 1)
    shape = _check_images(name, x) if images or published else None
    x = _check_inputs(name, x if shape is None else x.reshape(len(x), -1))
    if shape is None:
        x = _standardised(name, x)
    else:
        x = _standardised_channels(name, x, shape[-1])
    y, classes = _check_targets(name, y, len(x), task)
    x = _on_sphere(name, x)
    return Data(x.reshape(shape) if images else x, y, classes, name)


def split(
    data: Data, *, train: int, test: int | None = None, seed: int = 0
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Rows for training and for testing, disjoint, drawn at random.

    With classes, each part holds every class in its share of the whole set, up to one
    row (stratified).

    Args:
        data: what to split.
        train: number of training rows.
        test: number of test rows; `None` takes all the others.
        seed: the same seed gives the same rows.

    Returns:
        Two arrays of row numbers.

    Raises:
        ValueError: there are not that many rows.
    """
    train = check_count("train", train)
    test = check_count("test", len(data) - train if test is None else test)
    if train + test > len(data):
        raise ValueError(
            f"train + test must be at most the {len(data)} rows of {data.name}, got "
            f"{train} + {test}; ask for fewer."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    if data.classes is not None:
        order = _interleave(order, data.y, rng)
    # The last rows, not the next ones: both ends of the order are then balanced alike.
    return order[:train], order[len(order) - test :]


def targets(data: Data) -> Float64[np.ndarray, "n k"]:
    """What a regression fits: centred one-hot columns, or the standardised real target.

    With `k` classes the entry of a row's own class is `1 - 1/k` and the others `-1/k`;
    a real target becomes one column of mean 0 and variance 1 over all rows.
    """
    if data.classes is not None:
        k = len(data.classes)
        return np.eye(k)[data.y] - 1 / k
    y = np.asarray(data.y, float)
    return ((y - y.mean()) / y.std())[:, None]


def _interleave(order, labels, rng):
    """Reorders rows so that every stretch has all classes in proportion."""
    place = np.empty(len(order))
    for label in np.unique(labels):
        own = labels[order] == label
        count = own.sum()
        place[own] = (np.arange(count) + rng.random()) / count
    return order[np.argsort(place, kind="stable")]


# ----------------------------------------------------------------------------- checking


def _check_images(name: str, x: Shaped[np.ndarray, "..."]) -> tuple[int, ...]:
    """The shape of images."""
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(
            f"x of {name} has the shape {x.shape}, so it holds no images; pass a "
            ".npz file with x of shape (n, height, width, channels), or one of "
            f"{', '.join(map(repr, [*files.NAMED, *ARCHIVES]))}."
        )
    return x.shape


def _check_inputs(
    name: str, x: Shaped[np.ndarray, "..."]
) -> Float64[np.ndarray, "n d"]:
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"x of {name} must have the shape (n, d) with n, d >= 1, got {x.shape}; "
            "give each example one row."
        )
    if x.dtype.kind not in "biuf":
        raise ValueError(
            f"x of {name} must hold real numbers, got dtype {x.dtype}; convert it "
            "first."
        )
    if len(x) < LEAST_ROWS:
        raise ValueError(
            f"x of {name} has {len(x)} rows; at least {LEAST_ROWS} are needed."
        )
    x = np.asarray(x, np.float64)
    _check_finite(f"x of {name}", x)
    return x


def _check_finite(what: str, values) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        place = ", ".join(map(str, bad[0]))
        more = f" ({len(bad)} such entries)" if len(bad) > 1 else ""
        raise ValueError(
            f"{what} has {values[tuple(bad[0])]} at [{place}]{more}; remove or fill it."
        )


def _check_targets(name, y, rows, task):
    if y.shape != (rows,):
        raise ValueError(
            f"y of {name} must have the shape ({rows},), one target for each row of x, "
            f"got {y.shape}."
        )
    text = y.dtype.kind in "US"
    if not text and y.dtype.kind not in "biuf":
        raise ValueError(
            f"y of {name} must hold class labels or real numbers, got dtype {y.dtype}."
        )
    if not text:
        _check_finite(f"y of {name}", y)
    values, labels = np.unique(y, return_inverse=True)
    if len(values) < 2:
        raise ValueError(
            f"y of {name} is {values[0]!s} in every row; there is nothing to learn."
        )
    if task == "auto":
        whole = text or bool(np.all(values == np.round(values.astype(float))))
        few = len(values) <= min(100, rows / 2)
        task = "classes" if text or (whole and few) else "regression"
    if task == "regression":
        if text:
            raise ValueError(
                f"y of {name} holds text, such as {values[0]!s}; task='regression' "
                "needs numbers."
            )
        return y.astype(np.float64), None
    if len(values) > rows / 2:
        raise ValueError(
            f"y of {name} has {len(values)} classes in {rows} rows; at least two rows "
            "for each class are needed, or task='regression'."
        )
    return labels.astype(np.int64), tuple(_label(value) for value in values)


def _label(value) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.floating) and value == round(value):
        return str(int(value))
    return str(value)


def _standardised(name, x) -> Float64[np.ndarray, "n d"]:
    """Columns of mean 0 and variance 1; those that do not vary are dropped."""
    # Dividing by the largest entry first keeps the squares of 1e200 in range.
    largest = np.max(np.abs(x), axis=0)
    x = x / np.where(largest > 0, largest, 1)
    x = x - x.mean(axis=0)
    deviation = x.std(axis=0)
    # Scaled to 1, a constant column keeps a deviation of a few eps from its mean.
    varies = deviation > 4 * np.finfo(float).eps
    if not varies.any():
        raise ValueError(
            f"x of {name} is the same in every row; there is nothing to tell rows "
            "apart."
        )
    return x[:, varies] / deviation[varies]


def _standardised_channels(name, x, channels) -> Float64[np.ndarray, "n d"]:
    """Channels of mean 0 and variance 1 over all pixels; every one must vary."""
    whole = _standardised(name, x.reshape(-1, channels))
    if whole.shape[1] < channels:
        raise ValueError(
            f"x of {name} has {channels - whole.shape[1]} channels that are the same "
            "in every pixel; leave them out."
        )
    return whole.reshape(len(x), -1)


def _on_sphere(name, x) -> Float64[np.ndarray, "n d"]:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    zero = np.flatnonzero(length[:, 0] <= 1e-12 * np.sqrt(x.shape[1]))
    if len(zero):
        raise ValueError(
            f"x of {name} has a row of zeros after standardising (row {zero[0]}), "
            "which has no direction; remove rows that equal the mean of all rows."
        )
    return x / length

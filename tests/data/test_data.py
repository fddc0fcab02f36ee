"""Data sets: what comes out is on the sphere, and every kind of bad file is named."""

import numpy as np
import pytest

import ntk_resnet as nr
from ntk_resnet.data import datasets


def good(rows=40, columns=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, columns)), rng.integers(0, 3, rows)


def npz(tmp_path, **arrays):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    return path


def text(tmp_path, content, name="set.csv"):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------- digits


def test_digits_are_standardised_on_the_sphere():
    digits = nr.load_data("digits")
    assert digits.x.shape == (1797, 61)  # 3 of the 64 pixels are always blank
    assert digits.x.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(digits.x, axis=1), 1, rtol=1e-15)
    assert digits.classes == tuple("0123456789")
    assert digits.y.shape == (1797,)
    assert digits.name == "digits"


def test_standardising_forgets_units_and_constant_columns(tmp_path):
    x, y = good()
    base = datasets.load_data(npz(tmp_path, x=x, y=y))
    scaled = x * [1e200, 1e-200, 1, -3, 1e5] + [0, 0, 7, 0, 0]
    with_constant = np.insert(scaled, 2, 0.1, axis=1)
    again = datasets.load_data(npz(tmp_path, x=with_constant, y=y))
    np.testing.assert_allclose(again.x, base.x * [1, 1, 1, -1, 1], atol=1e-13)


def test_data_cannot_be_changed():
    digits = nr.load_data("digits")
    with pytest.raises(AttributeError):
        digits.name = "other"
    assert len(digits.take(np.array([3, 1]))) == 2


# -------------------------------------------------------------------------------- files


@pytest.mark.quick
def test_npz_and_csv_with_and_without_header_agree(tmp_path):
    x, y = good()
    table = np.column_stack([x, y])
    lines = [",".join(map(repr, row.tolist())) for row in table]
    bare = datasets.load_data(text(tmp_path, "\n".join(lines)))
    header = "a,b,c,d,e,label\n" + "\n".join(lines)
    headed = datasets.load_data(text(tmp_path, header))
    moved = [",".join([row.split(",")[-1], *row.split(",")[:-1]]) for row in lines]
    named = datasets.load_data(text(tmp_path, "y,a,b,c,d,e\n" + "\n".join(moved)))
    archive = datasets.load_data(npz(tmp_path, x=x, y=y))
    for other in (bare, headed, named):
        np.testing.assert_array_equal(other.x, archive.x)
        np.testing.assert_array_equal(other.y, archive.y)
        assert other.classes == archive.classes == ("0", "1", "2")
    assert archive.name == "set"


def test_text_labels_are_classes(tmp_path):
    rows = [f"{k}.5,{k % 7},{'cat' if k % 2 else 'dog'}" for k in range(20)]
    found = datasets.load_data(text(tmp_path, "\n".join(rows)))
    assert found.classes == ("cat", "dog")
    assert list(found.y[:3]) == [1, 0, 1]
    headed = datasets.load_data(text(tmp_path, "a,b,pet\n" + "\n".join(rows)))
    np.testing.assert_array_equal(headed.x, found.x)


def test_real_targets_stay_real(tmp_path):
    x, _ = good()
    y = np.linspace(0, 1, 40)
    found = datasets.load_data(npz(tmp_path, x=x, y=y))
    assert found.classes is None
    np.testing.assert_array_equal(found.y, y)
    fitted = datasets.targets(found)
    assert fitted.shape == (40, 1)
    np.testing.assert_allclose([fitted.mean(), fitted.std()], [0, 1], atol=1e-12)


def test_the_task_can_be_said(tmp_path):
    x, y = good()
    path = npz(tmp_path, x=x, y=y)
    assert datasets.load_data(path).classes == ("0", "1", "2")
    assert datasets.load_data(path, task="regression").classes is None
    whole = npz(tmp_path, x=x, y=np.arange(40))  # whole numbers, but all different
    assert datasets.load_data(whole).classes is None
    with pytest.raises(ValueError, match="y of set has 40 classes in 40 rows"):
        datasets.load_data(whole, task="classes")
    with pytest.raises(ValueError, match="task must be one of"):
        datasets.load_data(path, task="guess")
    words = npz(tmp_path, x=x, y=np.array(["a", "b"] * 20))
    with pytest.raises(ValueError, match="y of set holds text"):
        datasets.load_data(words, task="regression")


# ---------------------------------------------------------------------------- bad input

X, Y = good()


def spoilt(value):
    x = X.copy()
    x[3, 2] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"has no array 'y', it holds 'x'"),
        ({"y": Y}, r"has no array 'x', it holds 'y'"),
        ({}, r"has no array 'x', it holds nothing"),
        ({"x": spoilt(np.nan), "y": Y}, r"x of set has nan at \[3, 2\]"),
        ({"x": spoilt(np.inf), "y": Y}, r"x of set has inf at \[3, 2\]"),
        ({"x": X, "y": np.where(Y == 0, np.nan, Y)}, r"y of set has nan at \[\d+\] \("),
        ({"x": np.zeros((0, 5)), "y": Y[:0]}, r"shape \(n, d\).* got \(0, 5\)"),
        ({"x": np.zeros((40, 0)), "y": Y}, r"shape \(n, d\).* got \(40, 0\)"),
        ({"x": X[:, 0], "y": Y}, r"shape \(n, d\).* got \(40,\)"),
        ({"x": X.reshape(40, 5, 1), "y": Y}, r"shape \(n, d\).* got \(40, 5, 1\)"),
        ({"x": X, "y": Y[:-1]}, r"y of set must have the shape \(40,\).* got \(39,\)"),
        ({"x": X, "y": Y[:, None]}, r"y of set must have the shape \(40,\)"),
        (
            {"x": X.astype(str), "y": Y},
            r"x of set must hold real numbers, got dtype <U",
        ),
        ({"x": X + 0j, "y": Y}, r"x of set must hold real numbers, got dtype complex"),
        ({"x": X, "y": Y + 0j}, r"y of set must hold class labels or real numbers"),
        ({"x": X[:9], "y": Y[:9]}, r"x of set has 9 rows; at least 10"),
        ({"x": np.full((40, 5), 0.1), "y": Y}, r"x of set is the same in every row"),
        ({"x": X, "y": np.ones(40)}, r"y of set is 1\.0 in every row"),
        (
            {"x": np.vstack([X, -X, np.zeros((1, 5))]), "y": np.append(Y, [*Y, 0])},
            r"row of zeros after standardising \(row 80\)",
        ),
    ],
)
def test_bad_arrays_are_named(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_data(npz(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b,y\n", r"0 rows of 3 columns|has 1 rows"),
        ("1\n2\n3\n", r"3 rows of 1 columns"),
        ("1,2,0\n1,2\n", r"has 2 cells in row 2 and 3 in row 1"),
        ("a,b,y\n1,2,0\n1,red,1\n", r"has 'red' in row 3, which is not a number"),
        ("1,2,0\n1,,1\n", r"has '' in row 2, which is not a number"),
        ("1,2,0\n1,3,\n", r"has no target in row 2"),
        ("1,2,0\n" * 5, r"has 5 rows; at least 10"),
        ("1,nan,0\n" * 12, r"x of set has nan at \[0, 1\]"),
    ],
)
def test_bad_tables_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_data(text(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_unknown_names_and_missing_or_foreign_files(tmp_path):
    with pytest.raises(ValueError, match="'digit' is neither a known name"):
        datasets.load_data("digit")
    with pytest.raises(ValueError, match="does not exist"):
        datasets.load_data(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="neither a known name"):
        datasets.load_data(text(tmp_path, "x", "set.parquet"))
    with pytest.raises(ValueError, match="not a NumPy archive"):
        datasets.load_data(text(tmp_path, "no archive", "set.npz"))
    (tmp_path / "set.npz").write_bytes(npz(tmp_path, x=X, y=Y).read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"not a NumPy archive|cannot be read"):
        datasets.load_data(tmp_path / "set.npz")
    (tmp_path / "set.csv").write_bytes(b"1,2\xff,3\n")
    with pytest.raises(ValueError, match="cannot be read"):
        datasets.load_data(tmp_path / "set.csv")
    with pytest.raises(ValueError, match="not a NumPy archive"):
        datasets.load_data(npz(tmp_path, x=np.array([{}], object), y=Y))
    np.save(tmp_path / "bare.npy", X)
    (tmp_path / "bare.npy").rename(tmp_path / "bare.npz")
    with pytest.raises(ValueError, match="not a NumPy archive"):
        datasets.load_data(tmp_path / "bare.npz")


# --------------------------------------------------------------------------- the splits


def test_splits_are_disjoint_stratified_and_repeatable():
    digits = nr.load_data("digits")
    train, test = datasets.split(digits, train=300, test=200, seed=1)
    assert len(train) == 300
    assert len(test) == 200
    assert not set(train) & set(test)
    again, _ = datasets.split(digits, train=300, test=200, seed=1)
    np.testing.assert_array_equal(train, again)
    other, _ = datasets.split(digits, train=300, test=200, seed=2)
    assert set(train) != set(other)
    share = np.bincount(digits.y) / len(digits)
    for part in (train, test):
        counts = np.bincount(digits.y[part], minlength=10)
        assert np.all(np.abs(counts - share * len(part)) <= 1)


def test_splits_of_real_targets_and_of_everything():
    x, _ = good()
    real = datasets.Data(x, np.linspace(0, 1, 40), None, "line")
    train, test = datasets.split(real, train=30, seed=0)
    assert sorted([*train, *test]) == list(range(40))


def test_splits_that_cannot_be_made():
    x, y = good()
    found = datasets.Data(x, y, ("a", "b", "c"), "small")
    with pytest.raises(ValueError, match=r"at most the 40 rows of small, got 30 \+ 11"):
        datasets.split(found, train=30, test=11)
    with pytest.raises(ValueError, match="test must be at least 1"):
        datasets.split(found, train=40)
    with pytest.raises(ValueError, match="train must be at least 1"):
        datasets.split(found, train=0)


def test_targets_of_classes_are_centred_one_hot():
    x, y = good()
    found = datasets.targets(datasets.Data(x, y, ("a", "b", "c"), "small"))
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-15)
    np.testing.assert_array_equal(found.argmax(axis=1), y)
    assert found[0, y[0]] == 1 - 1 / 3


# --------------------------------------------------------------------------- the images


def test_digits_as_images_keep_their_pixels():
    digits = nr.load_data("digits", images=True)
    assert digits.x.shape == (1797, 8, 8, 1)
    from sklearn.datasets import load_digits

    raw = load_digits().data
    wanted = raw - raw.mean()
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(digits.x.reshape(1797, -1), wanted, atol=1e-15)
    np.testing.assert_array_equal(digits.y, nr.load_data("digits").y)
    assert digits.take(np.array([1, 2])).x.shape == (2, 8, 8, 1)


def test_images_of_the_users_own(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 3, 5, 2)) * [1, 100] + [5, 0]
    path = npz(tmp_path, x=x, y=np.arange(12) % 2)
    found = nr.load_data(path, images=True).x
    wanted = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    wanted /= np.linalg.norm(wanted.reshape(12, -1), axis=1)[:, None, None, None]
    np.testing.assert_allclose(found, wanted, atol=1e-15)
    with pytest.raises(ValueError, match=r"must have the shape \(n, d\)"):
        nr.load_data(path)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X, r"x of set has the shape \(40, 5\), so it holds no images"),
        (np.ones((40, 2, 2, 1)) * np.arange(40)[:, None, None, None] * 0, "same"),
        (np.stack([X, X * 0], -1)[:, None], "1 channels that are the same"),
        (np.full((40, 2, 2, 1), np.nan), "nan"),
    ],
)
def test_what_holds_no_images(tmp_path, x, message):
    path = npz(tmp_path, x=x, y=Y)
    with pytest.raises(ValueError, match=message) as error:
        nr.load_data(path, images=True)
    assert "\n" not in str(error.value)

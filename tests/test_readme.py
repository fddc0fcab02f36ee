"""The README's Python runs as it stands, and its files exist."""

import pathlib
import re

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_examples_run():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(block, names)
    assert names["matrix"].shape == (50, 50)
    assert names["both"].ntk.shape == (50, 5)
    assert abs(float(names["sweep"].ntk.sel(depth=1000)[3]) - 0.2533) < 1e-4
    np.testing.assert_allclose(
        names["k_reference"](names["x"][:3]),
        names["nr"].kernel_fn(names["plain"].replace(depth=20))(names["x"][:3]),
        atol=1e-12,
    )
    # Width 256: a relative error of order 256^-1/2 = 0.06, here within eight of that.
    error = np.linalg.norm(names["empirical"] - names["limit"])
    assert error / np.linalg.norm(names["limit"]) < 0.5


def test_linked_files_exist():
    for link in re.findall(r"\]\(([^)h][^)]*)\)", TEXT):
        assert (ROOT / link).exists(), link
    for target in re.findall(r"^make (\w+)", TEXT, re.M):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()

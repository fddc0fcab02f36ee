"""Laws of what becomes of a specification: JSON, a Flax network, a spectrum."""

import json

import numpy as np
import pytest
from marks import slow_but_for
from models import deviation, kernel_samples
from specifications import ROWS, SCALES, SPECS, inputs, is_cheap, is_typical

import ntk_resnet as nr
from ntk_resnet.specification.scales import BranchScale

BOTH = ("nngp", "ntk")


@pytest.mark.quick
@pytest.mark.parametrize("name", SPECS)
def test_json_and_back(name):
    spec = SPECS[name]
    again = nr.from_json(nr.to_json(spec))
    assert again == spec
    assert again is not spec
    assert hash(again) == hash(spec)
    assert spec.replace(weight_variance=3.0) != spec
    assert json.loads(nr.to_json(spec))["kind"] == type(spec).__name__


def test_the_table_has_every_block_and_scale():
    specs = SPECS.values()
    for kind in (nr.ResNet, nr.ConvResNet):
        assert {s.block for s in specs if isinstance(s, kind)} == set(kind.blocks)
    ours = {
        kind
        for kind in BranchScale.__subclasses__()
        if kind.__module__ == BranchScale.__module__
    }
    assert {type(scale) for scale in SCALES.values()} == ours
    assert len(set(SPECS.values())) == len(SPECS)


@pytest.mark.parametrize("name", slow_but_for(SPECS, is_typical))
def test_wide_networks_have_the_limit_kernels(name):
    """Mean over 64 networks of width 128, of 20 entries: 4.5 standard errors.

    An entry is out of that by chance once in 150,000. The bias, of order 1/width (about
    1 %), is below a standard error (2 to 3 %).
    """
    spec, x = SPECS[name], inputs(name, 4)
    exact = nr.kernel_fn(spec, normalised=False)(x, get=BOTH)
    samples = kernel_samples(spec, x, 128, 64)
    assert deviation(samples, np.stack(exact)) < 4.5


@pytest.mark.parametrize("name", slow_but_for(ROWS, is_cheap))
@pytest.mark.parametrize("get", BOTH)
def test_mercer_eigenvalues_expand_the_kernel(name, get):
    """None is negative, and what the first ones leave of the kernel is the tail."""
    spec, angles = SPECS[name], np.array([0.0, 0.2, 1.0, 2.0, 3.0])
    x = np.sqrt(6) * np.stack([np.cos(angles), np.sin(angles), *np.zeros((4, 5))], 1)
    exact = np.asarray(nr.kernel_fn(spec)(x, get=BOTH)[BOTH.index(get)])[0]
    found = nr.mercer(spec, dim=4, max_degree=30, get=get)
    eigenvalue, degree = found.eigenvalue.values, found.degree.values[:, None]
    assert (eigenvalue >= 0).all()
    # On the sphere in four dimensions: sin (k + 1) theta / ((k + 1) sin theta).
    size = (degree + 1) * np.sin(np.maximum(angles, 1e-300))
    zonal = np.where(angles > 0, np.sin((degree + 1) * angles) / size, 1)
    left = exact - (eigenvalue * found.multiplicity.values) @ zonal
    tail, rounding = float(found["tail"]), 64 * np.finfo(float).eps
    assert abs(left[0] - tail) <= rounding
    assert np.abs(left).max() <= tail + rounding

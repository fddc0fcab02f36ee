"""Products with the empirical NTK, and what they tell of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import CONVOLUTIONS, DENSE, convolutions, dense, normal

import ntk_resnet as nr
from ntk_resnet.finite import empirical_ntk, empirical_ntk_operator, ntk_methods

pytestmark = pytest.mark.quick

EPS = np.finfo(float).eps
X = normal(7, 5)


def matrix(model, x):
    full = np.asarray(empirical_ntk(model, x))
    return full.transpose(0, 2, 1, 3).reshape(full.shape[0] * full.shape[2], -1)


@pytest.mark.parametrize("batch_rows", [3, 100])
def test_products_are_those_of_the_matrix(batch_rows):
    model = dense, DENSE
    operator = empirical_ntk_operator(model, X, batch_rows=batch_rows)
    whole = matrix(model, X)
    assert operator.shape == whole.shape == (21, 21)
    assert operator.dtype == np.float64
    v = normal(21, 2)
    atol = 200 * EPS * np.abs(whole).max() * np.abs(v).sum()
    np.testing.assert_allclose(operator @ v, whole @ v, rtol=0, atol=atol)
    np.testing.assert_allclose(operator(v[:, 0]), whole @ v[:, 0], rtol=0, atol=atol)
    inside = jax.jit(lambda operator, v: operator @ v)
    np.testing.assert_allclose(inside(operator, v), whole @ v, rtol=0, atol=atol)
    np.testing.assert_allclose(operator.diagonal(), np.diag(whole), rtol=200 * EPS)


def test_its_spectrum():
    """All Lanczos steps: what the quadrature says of the matrix is exact."""
    model, x = (convolutions, CONVOLUTIONS), normal(4, 60)
    operator = empirical_ntk_operator(model, x)
    dense_one = nr.spectrum(matrix(model, x))
    found = nr.spectrum(operator, steps=8, probes=4, top=3)
    np.testing.assert_allclose(found.eigenvalue, dense_one.eigenvalue[:3], rtol=1e-8)
    np.testing.assert_allclose(found.trace, dense_one.trace, rtol=1e-12)
    for name in ("frobenius_norm", "effective_rank"):
        off = abs(float(found[name] - dense_one[name]))
        assert off <= 4 * float(found[f"{name}_error"])
    np.testing.assert_allclose(
        dense_one.frobenius_norm, np.linalg.norm(matrix(model, x)), rtol=1e-12
    )


def test_what_is_done_for_each_weight():
    found = {m.parameter: m for m in ntk_methods((dense, DENSE), X)}
    assert {name: m.method for name, m in found.items()} == {
        "['first']": "factors",
        "['second']": "factors",
        "['bias']": "jacobian",
    }
    # n^2 (fan_in + k^2 fan_out) and n^2 k^2 size.
    assert found["['first']"].products == 49 * (5 + 9 * 6)
    assert found["['bias']"].products == 49 * 9 * 3
    images = {
        m.parameter: m.method
        for m in ntk_methods((convolutions, CONVOLUTIONS), normal(3, 60))
    }
    assert images["['grouped']"] == "jacobian"
    assert set(images.values()) <= {"factors", "positions", "gradients", "jacobian"}
    few, many = (
        sum(m.products for m in ntk_methods((dense, DENSE), X, outputs=outputs))
        for outputs in ("trace", "full")
    )
    assert few < many


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


def reverse_only(p, x):
    return doubled(dense(p, x))


def test_a_model_with_reverse_derivatives_alone():
    found = empirical_ntk((reverse_only, DENSE), X)
    np.testing.assert_array_equal(found, 4 * empirical_ntk((dense, DENSE), X))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: empirical_ntk_operator((dense, DENSE), X[0]), "x has shape"),
        (lambda: empirical_ntk_operator(3, X), "model must be"),
        (lambda: empirical_ntk_operator((dense, DENSE), X, batch_rows=0), "batch_rows"),
        (lambda: empirical_ntk_operator((dense, DENSE), X) @ X, "v has shape"),
        (
            lambda: empirical_ntk_operator((dense, DENSE), X) @ np.full(21, np.nan),
            "v holds nan",
        ),
        (lambda: ntk_methods((dense, DENSE), X, outputs="all"), "outputs must be"),
        (lambda: ntk_methods((dense, DENSE), X, X[:, :4]), "rows of one shape"),
        (
            lambda: empirical_ntk_operator((reverse_only, DENSE), X),
            "no forward derivatives",
        ),
    ],
)
def test_bad_input(call, words, as_users_run_it):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_single_precision_stays_single():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), DENSE)
    operator = empirical_ntk_operator((dense, params), X.astype(np.float32))
    assert operator.dtype == np.float32
    assert (operator @ np.ones(21)).dtype == np.float32


def test_half_precision_is_summed_in_single():
    """Of 2,000 rows one at a time; in half precision a sum stops at 2^8 summands."""
    x = jnp.ones((2000, 1), jnp.bfloat16)
    operator = empirical_ntk_operator(
        (lambda p, x: x @ p, jnp.ones((1, 1), jnp.bfloat16)), x, batch_rows=1
    )
    assert operator.dtype == np.float32
    # The sum is rounded once, to the dtype of the weight.
    np.testing.assert_allclose(operator @ np.ones(2000), 2000, rtol=2.0**-8)

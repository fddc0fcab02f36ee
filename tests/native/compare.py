"""How far neural-tangents on today's JAX is from its native home, call by call.

`python tests/native/compare.py` prints the table (`make accuracy` does); the tests
assert on the same numbers. The tables of values are of `make_tables.py`, on JAX 0.5.3.
"""

import contextlib
import functools
import io
import pathlib
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np

if __name__ == "__main__":
    import cases
else:
    from native import cases

from ntk_resnet import neural_tangents as nt

TABLES = dict(np.load(pathlib.Path(__file__).parent / "tables.npz"))
ARRAYS = {
    name.removeprefix("arrays/"): value
    for name, value in TABLES.items()
    if name.startswith("arrays/")
}
NATIVE = {name: name for name in cases.CASES}  # call: the table of its values
CALLS = dict(cases.CASES)
for _kind in ("dense", "residual", "convolution"):
    for _implementation in (3, nt.NtkImplementation.AUTO):
        _name = f"empirical_ntk-{_kind}-{int(_implementation)}"
        NATIVE[_name] = f"empirical_ntk-{_kind}-1"
        CALLS[_name] = functools.partial(
            cases.empirical_ntk, kind=_kind, implementation=_implementation
        )
for _axes in ("full", "diagonal", "vmap"):
    _name = f"empirical_ntk-dense-3-{_axes}"
    NATIVE[_name] = f"empirical_ntk-dense-1-{_axes}"
    CALLS[_name] = functools.partial(
        cases.empirical_ntk, kind="dense", implementation=3, axes=_axes
    )
# No activation with a kink: the diagonal does not cancel (see `cases.evaluate`).
SMOOTH = ("erf", "gelu", "sin", "polynomial", "tanh", "user_dual", "smooth")


def values(name, mode):
    """Pairs (found, native) of one call, by place in its result."""

    def call(arrays):
        return CALLS[name](nt, arrays)

    call = jax.jit(call) if mode == "jit" else call
    found = cases.named_leaves(call({k: jnp.asarray(v) for k, v in ARRAYS.items()}))
    native = {
        place.removeprefix(f"{NATIVE[name]}/"): table
        for place, table in TABLES.items()
        if place.startswith(f"{NATIVE[name]}/")
    }
    assert set(found) == set(native)
    return {place: (found[place], native[place]) for place in found}


def deviation(found, native):
    """Worst difference over the largest entry of the table."""
    return float(np.max(np.abs(found - native)) / np.max(np.abs(native)))


def cancels(name, place):
    """Whether neural-tangents subtracts nearly equal numbers there, natively too."""
    return "own_diagonal" in place and not any(s in name for s in SMOOTH)


def main():
    """Prints the worst deviation of every call, eagerly and compiled."""
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")  # neural-tangents' own advice
    print(f"neural-tangents on JAX {jax.__version__} against JAX 0.5.3, float64")
    print(f"{'call':44} {'eager':>8} {'jit':>8}  {'(cancelling diagonals)':>22}")
    for name in sorted(CALLS):
        worst, diagonal = [], 0.0
        for mode in ("eager", "jit"):
            with contextlib.redirect_stdout(io.StringIO()):  # upstream prints flops
                pairs = values(name, mode)
            errors = {place: deviation(*pair) for place, pair in pairs.items()}
            worst.append(max(e for p, e in errors.items() if not cancels(name, p)))
            diagonal = max([diagonal, *errors.values()])
        shown = f"{diagonal:22.0e}" if diagonal > max(worst) else ""
        print(f"{name:44} {worst[0]:8.0e} {worst[1]:8.0e}  {shown}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes `tables.npz`: neural-tangents 0.6.5 on JAX 0.5.3, its last native home.

Run from the repository in a throw-away environment (Python 3.11); TensorFlow and tf2jax
(1.9 GB) are left out by the override, and this script puts an empty module in place of
the only one that needs them, `neural_tangents.experimental`, which no case uses:

    printf 'tensorflow ; python_version < "3"\\ntf2jax ; python_version < "3"\\n' \
        > /tmp/no-tensorflow.txt
    uv venv --python 3.11 /tmp/native
    uv pip install --python /tmp/native/bin/python \
        --override /tmp/no-tensorflow.txt \
        neural-tangents==0.6.5 jax==0.5.3 jaxlib==0.5.3 "numpy<2.3" "scipy<1.14"
    JAX_PLATFORMS=cpu /tmp/native/bin/python tests/native/make_tables.py

SciPy is that old for `nt.predict.max_learning_rate`, which passes an argument that 1.14
removed. Nothing of `ntk_resnet` runs here. Everything is float64 on the CPU.
"""

import pathlib
import sys
import types

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

_BRIDGE = "neural_tangents.experimental"
sys.modules[_BRIDGE] = types.ModuleType(_BRIDGE)

import cases  # noqa: E402
import neural_tangents as nt  # noqa: E402

if __name__ == "__main__":
    found = nt.__version__, jax.__version__
    if found != ("0.6.5", "0.5.3"):
        sys.exit(f"needs neural-tangents 0.6.5 on JAX 0.5.3, found {found}.")
    arrays = cases.make_arrays()
    tables = {f"arrays/{name}": value for name, value in arrays.items()}
    for name, function in cases.CASES.items():
        for place, leaf in cases.named_leaves(function(nt, arrays)).items():
            if leaf.dtype != np.float64 or not np.all(np.isfinite(leaf)):
                sys.exit(f"{name}, {place}: {leaf.dtype}, or not finite.")
            tables[f"{name}/{place}"] = leaf
        print(name)
    path = pathlib.Path(__file__).with_name("tables.npz")
    np.savez_compressed(path, **tables)
    print(path, path.stat().st_size, "bytes")

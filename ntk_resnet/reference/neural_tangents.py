"""Imports neural-tangents 0.6.5 on today's JAX, without writing to `jax`.

neural-tangents is archived; its last release asks for names that JAX has moved since
0.6, and for TensorFlow, for a bridge that nobody here needs. While it is imported, and
only then, a finder gives each of its modules an `__import__` of its own, which answers
`jax`, `jax.core`, `jax.util` and a few more with read-only views in which the moved
names are back. Where a name is not enough, a function of neural-tangents is replaced,
by public JAX functions.

Importing this module performs the import: `neural_tangents` is the working module, and
a plain `import neural_tangents` finds the same one afterwards. Python executes a module
once, under its import lock, so other threads wait for the finished one.
"""

import builtins
import contextlib
import functools
import importlib
import importlib.machinery
import importlib.metadata
import math
import sys
import types
import warnings
from typing import Any

import jax
import jax.extend.core
import jax.interpreters.ad
import jax.numpy as jnp

_NAME, _VERSION = "neural_tangents", "0.6.5"


class _View(types.ModuleType):
    """A read-only face of the module `real`, in which `names` are there as well."""

    def __init__(self, real, **names):
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(names, _real=real)

    def __getattr__(self, name):
        return getattr(self._real, name)

    def __setattr__(self, name, value):
        raise AttributeError(f"{self.__name__} is read-only here: {name} was not set.")

    def __delattr__(self, name):
        raise AttributeError(f"{self.__name__} is read-only here: {name} was kept.")


def _make_views() -> dict[str, types.ModuleType]:
    """What neural-tangents sees in place of JAX's modules, by their names."""
    moved = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    core = _View(
        jax.core,
        # JAX 0.6 moved these to jax.extend.core.
        **{name: getattr(jax.extend.core, name) for name in moved},
        Value=Any,  # only ever an annotation
        # 0.8 removed shapes that depend on data: no type is ever this one.
        DShapedArray=type("DShapedArray", (), {}),
        # Since 0.4.36 eval_context fails at tracers; this one computes what is concrete
        # and lets a traced training kernel through.
        eval_context=jax.ensure_compile_time_eval,
    )
    # 0.8 removed the module.
    util = types.ModuleType("jax.util")
    vars(util).update(
        safe_zip=lambda *args: list(zip(*args, strict=True)),
        safe_map=lambda f, *args: [f(*a) for a in zip(*args, strict=True)],
    )
    ad = _View(
        jax.interpreters.ad,
        # 0.9 removed this primitive: no program contains it.
        zeros_like_p=jax.extend.core.Primitive("zeros_like"),
        # 0.4.26 hid these: names of operations for profiles, and a debugging mode.
        source_info_util=types.SimpleNamespace(
            transform_name_stack=lambda _: contextlib.nullcontext()
        ),
        config=types.SimpleNamespace(jax_enable_checks=False),
    )

    def shape(x):
        return x.shape if hasattr(x, "shape") else jnp.shape(x)

    def size(x, axis=None):
        return math.prod(shape(x)) if axis is None else shape(x)[axis]

    # Since 0.10 these warn at a ShapeDtypeStruct, or an array as a dtype.
    numpy = _View(
        jnp,
        shape=shape,
        size=size,
        dtype=lambda x: jnp.dtype(getattr(x, "dtype", x)),
    )
    interpreters = _View(jax.interpreters, ad=ad)
    top = _View(jax, core=core, interpreters=interpreters, numpy=numpy, util=util)
    views = (top, core, interpreters, ad, numpy, util)
    return {view.__name__: view for view in views}


class _Loader(importlib.machinery.SourceFileLoader):
    """Executes a module of neural-tangents with the views, and repairs it."""

    ntk_resnet = True  # known by this even to a second copy of this file

    def __init__(self, fullname, path, views):
        super().__init__(fullname, path)
        self._views = views

    def exec_module(self, module):
        # Python takes `import` from a module's own builtins, and so do its functions.
        module.__builtins__ = vars(builtins) | {"__import__": self._import}
        super().exec_module(module)
        _REPAIRS.get(module.__name__, lambda _: None)(module)

    def _import(self, name, globals=None, locals=None, fromlist=(), level=0):
        if level == 0 and fromlist and name in self._views:
            return self._views[name]
        module = builtins.__import__(name, globals, locals, fromlist, level)
        return self._views["jax"] if module is jax else module


class _Finder:
    """Finds neural-tangents' modules, and no others."""

    def __init__(self):
        self._views = _make_views()

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != _NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader(name, spec.origin, self._views)
        return spec


def _repair_empirical(module):
    """Structured derivatives and the automatic choice of an implementation."""
    Zero, Unknown = jax.interpreters.ad.Zero, jax.interpreters.ad.UndefinedPrimal

    def get_primals_out_and_pullback(fn, mode, _j_rules, _s_rules, _fwd, *primals):
        # 0.10 changed ad.linearize. Without jit, as upstream, so that no call is left.
        with jax.disable_jit():
            primals_out, tangent_fn = jax.linearize(fn, *primals)
            linear = jax.make_jaxpr(tangent_fn)(*primals)
        unknown = [Unknown(v.aval) for v in linear.jaxpr.invars]

        def pullback(*cotangents):
            outs = module._backward_pass(
                linear.jaxpr, mode, linear.consts, unknown, jax.tree.leaves(cotangents),
                _j_rules, _s_rules, _fwd,
            )  # fmt: skip
            return jax.tree.unflatten(jax.tree.structure(primals), outs)

        return primals_out, pullback

    def eqn_vjp_fn(eqn, cotangent, *invals):
        # 0.10 removed the tables of transposition rules that upstream reads.
        if eqn is None:  # the identity
            return (cotangent,)
        unknown = [i for i, x in enumerate(invals) if isinstance(x, Unknown)]
        outs = {i: Zero(invals[i].aval) for i in unknown}

        def apply(*linear):
            inputs = list(invals)
            for i, x in zip(unknown, linear, strict=True):
                inputs[i] = x
            return eqn.primitive.bind(*inputs, **eqn.params)

        if not isinstance(cotangent, Zero):
            transpose = jax.linear_transpose(apply, *(invals[i].aval for i in unknown))
            outs = dict(zip(unknown, transpose(cotangent), strict=True))
        return [outs.get(i) for i in range(len(invals))]

    def get_flops(f, optimize, *args, **kwargs):
        # 0.5 made a dictionary of the list of one; some devices do not count.
        lowered = jax.jit(f).lower(*args, **kwargs)
        cost = (lowered.compile() if optimize else lowered).cost_analysis() or {}
        return cost.get("flops", sys.float_info.max)

    module._get_primals_out_and_pullback = get_primals_out_and_pullback
    module._eqn_vjp_fn = eqn_vjp_fn
    module._get_flops = get_flops


def _repair_predict(module):
    """Predictors keep a factorised training kernel; let them never keep a tracer."""

    def repaired(make):
        @functools.wraps(make)
        def make_predictor(*args, **kwargs):
            kept = make(*args, **kwargs)
            leaves = jax.tree.leaves((args, kwargs))
            traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)

            @functools.wraps(kept)
            def predict_fn(*predict_args, **predict_kwargs):
                # Concrete training data are factorised at once, even if the first call
                # is made under jit; traced ones anew in every call.
                with jax.ensure_compile_time_eval():
                    predict = make(*args, **kwargs) if traced else kept
                    return predict(*predict_args, **predict_kwargs)

            return predict_fn

        return make_predictor

    mse = "gradient_descent_mse"
    for name in (mse, f"{mse}_ensemble", "gp_inference"):
        setattr(module, name, repaired(getattr(module, name)))
    # max_learning_rate asks SciPy, on the CPU, for an argument that 1.14 removed.
    module._is_on_cpu = lambda x: False


def _wrap_predict(module):
    """The predictors that users call say so where float64 is computed in float32."""

    def telling(function):
        @functools.wraps(function)
        def told(*args, **kwargs):
            if _loses_digits((args, kwargs)):
                _tell_of_precision()
            found = function(*args, **kwargs)
            return telling(found) if callable(found) else found

        return told

    mse = "gradient_descent_mse"
    for name in ("gradient_descent", mse, f"{mse}_ensemble", "gp_inference"):
        setattr(module, name, telling(getattr(module, name)))


def _loses_digits(values):
    """Whether there are float64 arrays, and JAX's x64 mode is off."""
    arrays = (v for v in jax.tree.leaves(values) if getattr(v, "ndim", 0))
    return jnp.zeros(()).dtype == "float32" and any(
        v.dtype == "float64" for v in arrays
    )


@functools.cache
def _tell_of_precision():
    """Once a process."""
    warnings.warn(
        "nt.predict computes in float32 while JAX's x64 mode is off, and was given "
        'float64: call jax.config.update("jax_enable_x64", True) first, or take '
        "nr.kernel_ridge, which computes in float64.",
        stacklevel=3,
    )


_REPAIRS = {
    f"{_NAME}._src.empirical": _repair_empirical,
    f"{_NAME}._src.predict": _repair_predict,
    f"{_NAME}.predict": _wrap_predict,
}


def _no_tensorflow() -> types.ModuleType:
    """An empty `neural_tangents.experimental`; it needs TensorFlow."""

    def explain(name):
        raise AttributeError(
            f"neural_tangents.experimental.{name} is not there: ntk_resnet imports "
            "neural-tangents without its TensorFlow bridge."
        )

    module = types.ModuleType(f"{_NAME}.experimental")
    vars(module)["__getattr__"] = explain
    return module


def _import_neural_tangents() -> types.ModuleType:
    """The working module.

    Raises:
        ImportError: neural-tangents is missing, is another release, or was imported by
            other means before; the text says what to do.
    """
    remedy = f"run `pip install --no-deps neural-tangents=={_VERSION} frozendict`."
    try:
        version = importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"neural-tangents is not installed; {remedy}") from None
    if version != _VERSION:
        raise ImportError(
            f"ntk_resnet needs neural-tangents {_VERSION}, found {version}; {remedy}"
        )
    if (module := sys.modules.get(_NAME)) is not None:
        loader = getattr(module.__spec__, "loader", None)
        if getattr(loader, "ntk_resnet", False):
            return module
        raise ImportError(
            "neural_tangents was imported before, but not by ntk_resnet; put "
            "`from ntk_resnet import neural_tangents` in front of that import."
        )
    # An import that failed leaves behind those of its submodules that had worked.
    for name in [n for n in sys.modules if n.startswith(f"{_NAME}.")]:
        del sys.modules[name]
    stub = _no_tensorflow()
    sys.modules[stub.__name__] = stub
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(_NAME)
    finally:
        sys.meta_path.remove(finder)


neural_tangents = _import_neural_tangents()

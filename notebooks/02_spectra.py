# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Spectra of deep kernels, and what they predict
#
# Kernel regression learns along the eigenvectors of its kernel, those of large
# eigenvalues first. This notebook takes the eigenvalues of the neural tangent kernel on
# the sphere and on data, and predicts from them how the error of regression falls with
# the number of examples. At full size: `ntk-resnet reproduce belfer2024 simon2023`.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import ntk_resnet as nr

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("NTK_RESNET_SMALL") == "1"  # what the tests run

networks = {
    "plain, L = 1": nr.FeedForward(depth=1, trained="blocks"),
    "plain, L = 10": nr.FeedForward(depth=10, trained="blocks"),
    "plain, L = 100": nr.FeedForward(depth=100, trained="blocks"),
    "residual, L = 100, γ = 1/2": nr.ResNet(depth=100, branch_scale=nr.DepthScale(0.5)),
    "residual, L = 100, γ = 1": nr.ResNet(depth=100, branch_scale=nr.DepthScale(1.0)),
}
colours = dict(
    zip(networks, ["#e69f00", "#d55e00", "#8c3a00", "#009e73", "#0072b2"], strict=True)
)

# %% [markdown]
# ## On the sphere
#
# Eigenfunctions are the spherical harmonics; there is one eigenvalue a degree $k$. All
# kernels of ReLU networks end in the same power, $(k + (d-2)/2)^{-d}$ for the NTK and
# two more for the NNGP (Belfer et al. 2024), but where this begins depends on depth.

# %%
degrees = 20 if SMALL else 120
figure, ax = plt.subplots(layout="constrained")
for name, spec in networks.items():
    spectrum = nr.mercer(spec, dim=3, max_degree=degrees)
    even = spectrum.isel(degree=slice(2, None, 2))
    ax.plot(even.degree + 0.5, even.log10_eigenvalue, color=colours[name], label=name)
    odd = spectrum.isel(degree=slice(1, None, 2))
    ax.plot(odd.degree + 0.5, odd.log10_eigenvalue, ".", color=colours[name])
    fit = nr.decay_exponent(spectrum, (degrees // 3, degrees))
    print(f"{name}: exponent {fit.exponent:.3f} [{fit.low:.3f}, {fit.high:.3f}]")
ax.set(xscale="log", xlabel="k + 1/2", ylabel="log10 of the eigenvalue, d = 3")
ax.legend(title="lines: even, dots: odd degrees")
plt.show()

# %% [markdown]
# Eigenvalues and multiplicities come with their logarithms, which are right where
# float64 has no number, and with what more bits and nodes would change.

# %%
deep = nr.mercer(nr.FeedForward(depth=100), dim=300, max_degree=10 if SMALL else 100)
print(f"log10 of the last eigenvalue: {float(deep.log10_eigenvalue[-1]):.12f}")
print(f"of its multiplicity: {float(deep.log10_multiplicity[-1]):.12f}")
print(f"largest change: {float(deep.error):.1e}")

# %% [markdown]
# Without biases, a residual kernel with branches scaled by $L^{-\gamma}$ and
# $\gamma > 1/2$ is nearly blind to odd frequencies, as that of one block is; at
# $\gamma = 1/2$ it is not.

# %%
for gamma in (0.5, 0.75, 1.0):
    res = nr.ResNet(depth=50, branch_scale=nr.DepthScale(gamma))
    ratio = nr.parity_imbalance(nr.mercer(res, dim=3, max_degree=3))
    print(f"γ = {gamma}: μ3/μ2 = {float(ratio.sel(degree=3)):.4f}")

# %% [markdown]
# ## On data
#
# The same on rows of the digits: with depth the plain kernel keeps one large
# eigenvalue, and all others become alike.

# %%
data = nr.load_data("digits")
x = data.x[: 60 if SMALL else 800]
figure, ax = plt.subplots(layout="constrained")
for name, spec in networks.items():
    values = nr.spectrum(nr.gram(spec, x)).eigenvalue.values
    ax.loglog(
        np.arange(1, len(x) + 1), values / len(x), color=colours[name], label=name
    )
ax.set(xlabel="index i", ylabel="eigenvalue / n")
ax.legend()
plt.show()

# %% [markdown]
# Where the matrix does not fit in memory, only products with it are taken. The
# log-determinant comes with its standard error, each eigenvalue with a residual.

# %%
operator = nr.gram_operator(nr.ResNet(depth=1000, branch_scale=nr.DepthScale(0.5)), x)
sampled = nr.spectrum(operator, top=5, steps=30 if SMALL else 100)
print(sampled.eigenvalue.values.round(3), sampled.residual.values.max() < 1e-6)
error = float(sampled.log_determinant_error)
print(f"ln det {float(sampled.log_determinant):.1f} ± {error:.1f}")

# %% [markdown]
# ## Learning curves
#
# The error of ridge regression against the number of training points: measured, and as
# the eigenvalues and the power of the target in their eigenspaces predict it (dashed).

# %%
sizes, trials = ([10, 20], 2) if SMALL else ([20, 50, 100, 200, 400], 12)
figure, ax = plt.subplots(layout="constrained")
for name, spec in networks.items():
    curve = nr.learning_curve_on_sphere(
        spec, 5, sizes, {1: 0.5, 2: 0.3, 4: 0.2}, ridge=1e-3, trials=trials
    )
    ax.errorbar(
        curve.n,
        curve.measured_test_mse,
        3 * curve.measured_test_mse_error,
        fmt="o",
        color=colours[name],
        label=name,
    )
    ax.plot(curve.n, curve.test_mse, "--", color="k", linewidth=0.8)
ax.set(xscale="log", yscale="log", xlabel="training points n", ylabel="test error")
ax.set_xticks(sizes, labels=sizes)
ax.set_xticks([], minor=True)
ax.legend()
plt.show()

# %% [markdown]
# ## Regression
#
# The estimators are scikit-learn's: pipelines, grids and cross-validation take them.
# The leave-one-out error comes with the fit.

# %%
rows = np.random.default_rng(0).permutation(len(data.x))
train, test = rows[: 100 if SMALL else 1000], rows[-300:]
for gamma in (0.25, 0.5, 1.0):
    spec = nr.ResNet(depth=1000, branch_scale=nr.DepthScale(gamma))
    model = nr.NTKClassifier(spec, ridge=1e-3).fit(data.x[train], data.y[train])
    score, left_out = model.score(data.x[test], data.y[test]), 1 - model.loo_error_
    print(f"γ = {gamma}: accuracy {score:.3f}, leave-one-out {left_out:.3f}")

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
# # Why deep residual kernels do not degenerate, in five pictures
#
# An infinitely wide network, trained by gradient flow, is regression with a fixed
# kernel: its neural tangent kernel (NTK). What happens to that kernel as the network
# gets deeper decides what the network can learn. This notebook compares a plain fully
# connected network with residual ones whose branches are scaled by $L^{-\gamma}$ at
# depth $L$, after Huang, Wang, Tao and Zhao (2020). As in their paper the first weights
# of the residual networks and the readouts of all are frozen: `trained="blocks"`, the
# default of residual networks. `ntk-resnet reproduce huang2020` runs it at full size.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import ntk_resnet as nr

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("NTK_RESNET_SMALL") == "1"  # what the tests run

depths = [1, 10, 100] if SMALL else [1, 3, 10, 30, 100, 300, 1000]
families = {
    "plain": nr.FeedForward(depth=1, trained="blocks"),
    "residual, γ = 1": nr.ResNet(depth=1, branch_scale=nr.DepthScale(1.0)),
    "residual, γ = 1/2": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.5)),
    "residual, γ = 1/4": nr.ResNet(depth=1, branch_scale=nr.DepthScale(0.25)),
}
colours = dict(zip(families, ["#d55e00", "#0072b2", "#009e73", "#e69f00"], strict=True))
plt.rcParams.update({"figure.dpi": 70, "figure.figsize": (6, 3.2)})

# %% [markdown]
# ## 1. Depth flattens the plain kernel
#
# The normalised NTK against the angle between two inputs. With depth the plain one
# tends to 1/4 at every angle but 0: it can tell two inputs apart, but not how different
# they are. At $\gamma = 1/2$ it keeps a shape. The rings are the same kernel computed
# by neural-tangents.

# %%
angles = np.linspace(0, np.pi, 31 if SMALL else 181)
figure, axes = plt.subplots(1, 2, sharey=True, layout="constrained")
shades = plt.get_cmap("plasma")(np.linspace(0.2, 0.87, len(depths)))
for ax, name in zip(axes, ["plain", "residual, γ = 1/2"], strict=True):
    swept = nr.sweep_depth(families[name], depths, angles=angles)
    for depth, shade in zip(depths, shades, strict=True):
        ax.plot(angles, swept.ntk.sel(depth=depth), color=shade, label=f"L = {depth}")
    few = np.linspace(0.1, np.pi - 0.1, 12)
    x = np.column_stack([np.cos(few), np.sin(few)])
    k = nr.kernel_fn(families[name].replace(depth=10), engine="neural_tangents")
    rings = np.asarray(k(np.array([[1.0, 0.0]]), x))[0]
    ax.plot(few, rings, "o", color="black", markerfacecolor="none", markersize=4)
    ax.axhline(0.25, color="black", linestyle="--", linewidth=0.8)
    ax.set(title=name, xlabel="angle θ (rad)")
axes[0].set_ylabel("normalised NTK")
axes[1].legend(fontsize=7)
plt.show()

# %% [markdown]
# ## 2. The rates are known
#
# The plain kernel approaches 1/4 like $\frac{3}{8} \ln L / L$; the residual one at
# $\gamma = 1$ approaches the kernel of a single block like $1/L$.

# %%
blocks = np.geomspace(100, 1000 if SMALL else 10_000, 5).round().astype(int)
long = 10 * blocks
right_angle = [np.pi / 2]
plain = nr.sweep_depth(families["plain"], long, angles=right_angle).ntk[:, 0]
deep = nr.sweep_depth(families["residual, γ = 1"], blocks, angles=right_angle).ntk[:, 0]
block = nr.sweep_depth(families["residual, γ = 1"], 1, angles=right_angle).ntk[:, 0]
away = np.abs(deep - float(block[0]))

figure, axes = plt.subplots(1, 2, layout="constrained")
excess = plain.depth * (plain - 0.25)
axes[0].semilogx(long, excess, "o-", color=colours["plain"], label="plain")
line = float(excess[-1]) + 0.375 * np.log(long / long[-1])
axes[0].semilogx(long, line, "k--", linewidth=0.8, label="slope 3/8")
axes[0].set(xlabel="depth L", ylabel="L (NTK − 1/4)")
axes[1].loglog(blocks, away, "o-", color=colours["residual, γ = 1"], label="γ = 1")
line = float(away[-1]) * blocks[-1] / blocks
axes[1].loglog(blocks, line, "k--", linewidth=0.8, label="1/L")
axes[1].set(xlabel="depth L", ylabel="|NTK − one block|")
for ax in axes:
    ax.legend()
plt.show()

slope = float(excess[-1] - excess[-2]) / np.log(long[-1] / long[-2])
print(f"last slope of the plain kernel in ln L: {slope:.4f} (3/8 = 0.375)")

# %% [markdown]
# ## 3. What it does to regression on real data
#
# Kernel ridge regression on handwritten digits. The squared error of the deep plain
# kernel rises to that of the best constant. Its accuracy falls much less: predictions
# shrink towards a constant, but keep their order. (All classes are equally frequent
# here; if they are not, the constant in the end names the most frequent one.)

# %%
digits = nr.load_data("digits")
rng, each = np.random.default_rng(0), 8 if SMALL else 40
rows = [rng.permutation(np.flatnonzero(digits.y == k))[:each] for k in range(10)]
rows = np.transpose(rows).ravel()  # 0, 1, ..., 9, 0, 1, ...
train, test = np.split(np.arange(len(rows)), 2)
y = np.eye(10)[digits.y[rows]] - 0.1

figure, axes = plt.subplots(1, 2, layout="constrained")
for name, spec in families.items():
    grams = nr.sweep_depth(spec, depths, x=digits.x[rows]).ntk.values
    error, accuracy = [], []
    for gram in grams:
        k_train, k_test = gram[np.ix_(train, train)], gram[np.ix_(test, train)]
        guess = nr.kernel_ridge(k_train, k_test, y[train], ridge=1e-3)
        error.append(np.mean((guess - y[test]) ** 2) / np.var(y[test], axis=0).mean())
        accuracy.append(np.mean(guess.argmax(1) == y[test].argmax(1)))
    axes[0].semilogx(depths, error, "o-", color=colours[name], label=name)
    axes[1].semilogx(depths, accuracy, "o-", color=colours[name])
axes[0].axhline(1, color="black", linestyle="--", linewidth=0.8)
axes[0].set(xlabel="depth L", ylabel="test MSE / variance", ylim=(0, 1.1))
axes[1].set(xlabel="depth L", ylabel="test accuracy", ylim=(0, 1.1))
axes[0].legend(fontsize=7)
plt.show()

# %% [markdown]
# ## 4. Finite networks have these kernels
#
# The same specification as a Flax network: its empirical kernels approach the closed
# forms like width$^{-1/2}$.

# %%
network = nr.ResNet(depth=3, branch_scale=nr.DepthScale(0.5))
widths, seeds = ([8, 16], 2) if SMALL else ([32, 64, 128, 256], 10)
study = nr.finite.width_study(network, digits.x[rows[:10]], widths, seeds)

figure, ax = plt.subplots(layout="constrained")
for kernel, colour in (("ntk", "#d55e00"), ("nngp", "#0072b2")):
    low, high = (float(study[f"{kernel}_exponent_{end}"]) for end in ("low", "high"))
    exponent = float(study[f"{kernel}_exponent"])
    label = f"{kernel.upper()}: exponent {exponent:.2f} [{low:.2f}, {high:.2f}]"
    mean, bar = study[f"{kernel}_error_mean"], 2 * study[f"{kernel}_error_sem"]
    ax.errorbar(widths, mean, bar, color=colour, marker="o", capsize=3, label=label)
    line = float(mean[-1]) * (np.array(widths) / widths[-1]) ** -0.5
    ax.plot(widths, line, "k--", linewidth=0.8)
ax.set(xscale="log", yscale="log", xlabel="width", ylabel="relative error")
ax.set_xticks(widths, [str(width) for width in widths])
ax.xaxis.minorticks_off()
ax.legend()
plt.show()

# %% [markdown]
# ## 5. And train as they predict
#
# Full-batch gradient descent. Dots are the outputs of networks, dashed lines what the
# closed-form kernel predicts of the same steps, started from the same outputs.

# %%
few = rows[:12]
target = np.where(digits.y[few] % 2 == 0, 1.0, -1.0)  # even or odd
width = 16 if SMALL else 512
study = nr.finite.train_study(network, digits.x[few], target, [width], 1)

figure, ax = plt.subplots(layout="constrained")
one = study.isel(width=0, seed=0, output=0)
for point in range(5):
    shown = one.isel(point=point, time=slice(1, None))
    ax.semilogx(shown.time, shown.outputs, "o", markersize=4)
    ax.semilogx(shown.time, shown.predicted_outputs, "k--", linewidth=0.8)
ax.set(xlabel="time (rate × steps)", ylabel=f"outputs, width {width}")
plt.show()

drift = float(one.ntk_drift[-1])
print(f"relative change of the NTK while training: {drift:.3f}")

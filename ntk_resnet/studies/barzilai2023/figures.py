"""Decay, locality and condition numbers."""

from ntk_resnet.plot import drawing
from ntk_resnet.plot.families import looks
from ntk_resnet.studies.barzilai2023.claims import near_over_far
from ntk_resnet.studies.study import Figure


def draw_decay(found):
    """Eigenvalues against the frequency, in both directions."""
    panels = drawing.new_axes(1, 2, height=2.6, sharey=True)
    with drawing.style():
        for ax, direction in zip(panels.flat, found.direction.values, strict=True):
            one = found.eigenvalue.sel(direction=direction)
            for name, look in looks(found.network.values).items():
                own = look | {"markersize": 3, "linestyle": ""}
                ax.plot(found.frequency, one.sel(network=name), **own, label=name)
            k = found.frequency.values[-8:].astype(float)
            last = float(one.isel(network=0, frequency=-1))
            line = 2 * last * (k / k[-1]) ** -3
            drawing.theory_line(ax, k, line, "theory, ∝ k⁻³")
            drawing.log_axis(ax.xaxis, steps=(1, 2, 5))
            drawing.log_axis(ax.yaxis)
            ax.yaxis.set_major_formatter("{x:.0e}")
            ax.set_title(f"frequency in {direction}")
            ax.set_xlabel("frequency k, even")
        panels[0, 0].set_ylabel("eigenvalue of the NTK")
    drawing.figure_legend(panels)
    return panels


def draw_locality(found):
    """Eigenvalues by distance of the pixels, and near over far against depth."""
    panels = drawing.new_axes(1, 2, height=2.6)
    left, right = panels.flat
    middle = found.depth.values[len(found.depth) // 2]
    ratio = near_over_far(found)
    with drawing.style():
        for name, look in looks(found.network.values).items():
            one = found.eigenvalue.sel(network=name, depth=middle)
            left.plot(found.distance, one / one[0], **look, label=name)
            right.plot(found.depth, ratio.sel(network=name), **look, label=name)
        left.set_xticks(found.distance.values)
        left.set_xlabel("distance of the two pixels")
        left.set_ylabel("eigenvalue / that of neighbours")
        left.set_title(f"L = {middle}")
        right.set_xlabel("depth L")
        right.set_ylabel("neighbours / farthest apart")
        drawing.width_axes(right, found.depth.values)
        drawing.log_axis(left.yaxis, steps=(1, 2, 5))
    drawing.figure_legend(panels)
    return panels


def draw_conditioning(found):
    """Condition numbers against depth."""
    panels = drawing.new_axes(
        len(found.kernel), len(found.inputs), height=2.2, sharex=True
    )
    dashes = dict(zip(found.readout.values, ("-", ":"), strict=False))
    with drawing.style():
        for row, kernel in zip(panels, found.kernel.values, strict=True):
            for ax, inputs in zip(row, found.inputs.values, strict=True):
                for name, look in looks(found.network.values).items():
                    for readout, dash in dashes.items():
                        one = found.condition_number.sel(
                            kernel=kernel,
                            inputs=inputs,
                            network=name,
                            readout=readout,
                        )
                        word = ", pooled" if readout == "pool" else ""
                        own = look | {"linestyle": dash, "markersize": 3}
                        ax.plot(found.depth, one, **own, label=name + word)
                drawing.width_axes(ax, found.depth.values)
                ax.set_title(f"{kernel.upper()}, {inputs} images")
            row[0].set_ylabel("condition number")
        for ax in panels[-1]:
            ax.set_xlabel("depth L")
    drawing.figure_legend(panels)
    return panels


FIGURES = {
    "conditioning": Figure(
        of="conditioning",
        draw=draw_conditioning,
        title="Condition numbers of kernels between {images} images, against depth",
        caption="Gram matrices of plain and residual convolutional kernels of equal "
        "depth on the same images: of {data}, and random ones of the same size.",
    ),
    "locality": Figure(
        of="locality",
        draw=draw_locality,
        title="Eigenvalues of products of two pixels, by their distance",
        caption="Images of a row of {pixels} pixels, each one of four points of a "
        "circle: the eigenvalue of frequency 1 in two pixels, a mean over pairs at that"
        " distance (left), and neighbours over the largest distance (right).",
    ),
    "decay": Figure(
        of="decay",
        draw=draw_decay,
        title="Eigenvalues on images of two pixels, L = {depth}",
        caption="Each pixel is a point of a circle, and eigenvalues are the kernel's "
        "Fourier coefficients: frequencies (k, 0) (left) and (k, k) (right).",
    ),
}

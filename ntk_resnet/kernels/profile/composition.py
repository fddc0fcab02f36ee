r"""What many equal blocks do to a pair of inputs: the composition of what fewer do.

A pair is at an angle :math:`\theta`, given as a place: `r`, which is
:math:`\sin(\theta/2)`, or :math:`\cos(\theta/2)` if `obtuse`. A block of the ReLU
family lowers the gap :math:`g = 1-\cos\theta` by :math:`\mu s`, :math:`s = \sin\theta -
\theta\cos\theta`, and the NTK of the weights before it by the factor :math:`1 -
\mu\theta`. Of :math:`n` blocks are known, at each place,

* the shrinkage :math:`h = -\ln(g_n/g_0)` and the rise :math:`k = g_0-g_n`,
* the loss :math:`e`, one minus the product of those factors,
* the gap :math:`t` of the blocks' own weights: one minus their normalised NTK.

Blocks `a` followed by blocks `b`, these at the place :math:`r'` to which `a` leads, are

.. math::
    h = h_a(r) + h_b(r'), \quad k = k_a(r) + k_b(r'), \quad
    e = e_a(r) + [1-e_a(r)]\,e_b(r'), \quad
    t = \frac{n_a\,\{t_a(r) + e_b(r')\,[1-t_a(r)]\} + n_b\,t_b(r')}{n_a+n_b}

(the NTK of `a`, carried through `b`, and that of `b` add up). Nothing is cancelled:
acute places move by :math:`r'=r\,e^{-h/2}`, obtuse ones by :math:`r'^2=r^2+k/2`. Blocks
that are doubled over and over reach any depth in the time of its logarithm.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ntk_resnet.kernels.profile import lookup
from ntk_resnet.specification.blocks import ACTIVATE, activations_behind


class Places(NamedTuple):
    """Angles, told from 0 and from pi as exactly as floats are from 0."""

    r: Float[np.ndarray, " n"]
    obtuse: Bool[np.ndarray, " n"]

    @property
    def gap(self) -> Float[np.ndarray, " n"]:
        """One minus the cosine."""
        square = self.r * self.r
        return 2 * np.where(self.obtuse, 1 - square, square)

    def after(self, passage: "Passage") -> "Places":
        """Where the blocks lead whose passage at these places is given."""
        square = self.r * self.r
        cosine = np.sqrt(np.where(self.obtuse, square, 1 - square) + passage.rise / 2)
        sine = np.where(self.obtuse, np.sqrt(1 - square), self.r)
        obtuse = self.obtuse & (cosine < lookup.END)
        r = np.where(obtuse, cosine, sine * np.exp(-passage.shrinkage / 2))
        return Places(r, obtuse)


class Passage(NamedTuple):
    """What a `number` of equal blocks does at some places, in the module's words.

    Inside a block the number is that of weights, which have equal parts in the NTK.
    """

    number: int
    shrinkage: Float[np.ndarray, " n"]
    rise: Float[np.ndarray, " n"]
    loss: Float[np.ndarray, " n"]
    ntk_gap: Float[np.ndarray, " n"]

    def then(self, other: "Passage") -> "Passage":
        """These blocks, and behind them others, known at the places they lead to."""
        number = self.number + other.number
        carried = self.ntk_gap + other.loss * (1 - self.ntk_gap)
        return Passage(
            number,
            self.shrinkage + other.shrinkage,
            self.rise + other.rise,
            self.loss + (1 - self.loss) * other.loss,
            (self.number * carried + other.number * other.ntk_gap) / (number or 1),
        )


# To which powers of r the fields of a passage are proportional next to 0.
_POWERS = np.array([1, 3, 1, 1])[:, None]
# s by powers of the angle, exact to rounding up to 1.7.
_SERIES = [
    (-1) ** (k + 1) * 2 * k / math.factorial(2 * k + 1) for k in range(14, 0, -1)
]


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of a network, its activation's slopes of one sign, without a bias."""

    even_share: float
    """lambda of the activation, in [0, 1/2]."""
    share: float
    """Of the branch in the features that leave the block: 1 without a trunk."""
    operations: tuple[str, ...]
    """Of the branch, see `ntk_resnet.specification.blocks`."""
    number: ClassVar[int] = 1

    @property
    def bend(self) -> float:
        """mu: the block lowers the gap by about mu s where that is small."""
        bends = self.operations.count(ACTIVATE)
        return bends * self.share * self.even_share * 2 / math.pi

    def at(self, places: Places) -> Passage:
        """What it does, in closed form."""
        branch = self._branch(places)
        rise = self.share * branch.rise
        return Passage(
            self.number,
            shrinkage=-np.log1p(-rise / places.gap),
            rise=rise,
            loss=self.share * branch.loss,
            ntk_gap=branch.ntk_gap,
        )

    def _branch(self, places):
        """What its operations do."""
        nothing = np.zeros_like(places.r)
        passage, after = Passage(0, *[nothing] * 4), places
        for operation in self.operations:
            if operation == ACTIVATE:
                bent = activation_alone(self.even_share, after)
                passage, after = passage.then(bent), after.after(bent)
            else:
                own = Passage(1, nothing, nothing, nothing, after.gap)
                passage = passage.then(own)
        return passage

    def layers(self, count: int) -> tuple[float, float]:
        """How far from 0 and from pi, in `r`, so many blocks have singularities.

        Next to 0 `r` becomes r / (1 + 2 mu n r / 3), and the gap of the NTK, a multiple
        of r plus about 2 r^2, vanishes at a negative `r`. Next to pi `r` becomes the
        root of r^2 + k / 2, k the rise at pi.
        """
        behind = activations_behind(self.operations)
        inner = sum(behind) / len(behind)
        slope = inner * self.even_share * 4 / math.pi + self.bend * (count - 1)
        acute = 1.5 / (self.bend * count) if self.bend else math.inf
        rise = self.at(Places(np.zeros(1), np.ones(1, bool))).rise.item()
        return min(acute, slope / 2 or math.inf), math.sqrt(rise / 2)


def activation_alone(even_share: float, places: Places) -> Passage:
    """What an activation does, without weights."""
    rest = 2 * np.arcsin(places.r)  # to the end of the side
    acute = rest**3 * np.polyval(_SERIES, rest * rest)
    obtuse = np.sin(rest) + (math.pi - rest) * np.cos(rest)
    s = np.where(places.obtuse, obtuse, acute)
    theta = np.where(places.obtuse, math.pi - rest, rest)
    bend = even_share * 2 / math.pi
    shrinkage = -np.log1p(-bend * s / places.gap)
    return Passage(0, shrinkage, bend * s, bend * theta, np.zeros_like(s))


class Blocks(NamedTuple):
    """A number of equal blocks, at any place."""

    number: int
    series: "Series"

    def at(self, places: Places) -> Passage:
        """What they do, for `r <= 3/4`."""
        return Passage(self.number, *self.series(places))


class Composition(NamedTuple):
    """A number of equal blocks, known at the nodes of a grid, and how it came about."""

    block: Block
    grid: "Grid"
    whole: Passage
    parts: list[Block | Blocks]
    """What was doubled, one after the other."""

    @property
    def blocks(self) -> Block | Blocks:
        """The blocks at any place. Alone, a pre-activation block has t ~ r^2."""
        if self.whole.number == 1:
            return self.block
        series = self.grid.series(np.stack(self.whole[1:]), _POWERS)
        return Blocks(self.whole.number, series)

    def then(self, blocks: Block | Blocks) -> Passage:
        """At the nodes, those blocks behind these."""
        after = self.grid.nodes.after(self.whole)
        return self.whole.then(blocks.at(after))

    def in_another_order(self, places: Places) -> Passage:
        """The blocks at any places by other steps, to check against.

        One by one, or if they are many some of them, then each of the parts once.
        """
        count = self.whole.number
        parts = self.parts if count > _FEW else []
        singly = count - sum(part.number for part in parts)
        total = self.block.at(places)
        for part in [self.block] * (singly - 1) + parts:
            total = total.then(part.at(places.after(total)))
        return total


_FEW = 256  # blocks that one by one take about as long as the composition


def compose(block: Block, count: int, grid: "Grid") -> Composition:
    """So many of these blocks, by the binary digits of their number."""
    made = Composition(block, grid, block.at(grid.nodes), [])
    for digit in bin(count)[3:]:
        half = made.blocks
        made.parts.append(half)
        made = made._replace(whole=made.then(half))
        if digit == "1":
            made = made._replace(whole=made.then(block))
    return made


# ------------------------------------------------------------ functions between nodes

_TERMS = 32
_PANEL = 1.0  # longest; the nearest singularity, that at r = 1, is .29 away
_NODES = np.cos(np.pi * (np.arange(_TERMS) + 0.5) / _TERMS)


class Grid:
    """Chebyshev's nodes on panels in `ln(r + width)`, on both sides, `r` to 3/4."""

    def __init__(self, widths: Float[np.ndarray, "2"]):
        self.widths = widths
        lengths = np.log1p(0.75 / self.widths)
        self.counts = np.ceil(lengths / _PANEL).astype(int)
        self.lengths = lengths / self.counts
        self.first = np.array([0, self.counts[0]])
        side = np.repeat([0, 1], self.counts)
        number = np.arange(len(side)) - self.first[side]
        self.half = self.lengths[side] / 2
        self.middle = self.widths[side] * np.exp((2 * number + 1) * self.half)
        r = self.middle * np.exp(self.half * _NODES[:, None]) - self.widths[side]
        obtuse = np.broadcast_to(side == 1, r.shape)
        self.nodes = Places(r.ravel(), obtuse.ravel())

    def series(self, values: Float[np.ndarray, "k n"], powers: np.ndarray) -> "Series":
        """Functions, positive and proportional to those powers of r next to 0."""
        ratios = values / self.nodes.r ** np.where(self.nodes.obtuse, 0, powers)
        ratios = ratios.reshape(len(values), _TERMS, -1)
        sizes = ratios[:, _TERMS // 2]
        logs = np.log(ratios / sizes[:, None])
        coefficients = lookup.chebyshev_coefficients(np.moveaxis(logs, 1, 0))
        return Series(self, powers, sizes, coefficients)


class Series(NamedTuple):
    """Functions at any place, by the Chebyshev series of their logarithms.

    The logarithms are of ratios to a value amidst each panel: they are small, and so is
    their rounding.
    """

    grid: Grid
    powers: np.ndarray
    sizes: Float[np.ndarray, "k panels"]
    coefficients: Float[np.ndarray, "terms k panels"]

    def __call__(self, places: Places) -> Float[np.ndarray, "k n"]:
        grid, r, side = self.grid, places.r, places.obtuse.astype(int)
        width = grid.widths[side]
        panel = (np.log1p(r / width) / grid.lengths[side]).astype(int)
        panel = grid.first[side] + np.minimum(panel, grid.counts[side] - 1)
        t = np.log((r + width) / grid.middle[panel]) / grid.half[panel]
        logs = lookup.chebyshev_sum(self.coefficients[:, :, panel], t)
        factor = r ** np.where(places.obtuse, 0, self.powers)
        return factor * self.sizes[:, panel] * np.exp(logs)

"""What a study is made of: measurements, the claims read off them, and figures."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import xarray as xr

from ntk_resnet.studies.ledger import Claim, Entry, named

Results = Mapping[str, xr.Dataset]
"""Those of a study's measurements, by name."""


class NotRun(Exception):
    """Raised where something cannot be measured here; the text says why.

    By a measurement, or by what reads a claim off its result.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """A function that returns a Dataset, and its settings."""

    measure: Callable[..., xr.Dataset]
    """Called as `measure(**settings, progress=progress)`, where it takes data with
    these before."""
    full: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    """Its arguments, or what returns them, where they depend on the device."""
    quick: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is smaller in a quick run."""
    data: Literal["", "rows", "images"] = ""
    """Whether it takes data, and as what."""
    source: str = ""
    """The data it takes, for `load_data`; by default those of the run."""

    def settings(self, quick: bool) -> dict[str, Any]:
        """Those of a full or a quick run."""
        full = self.full() if callable(self.full) else self.full
        return dict(full) | (dict(self.quick) if quick else {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of one measurement, drawn from its saved result."""

    of: str
    """The measurement."""
    draw: Callable[[xr.Dataset], Any]
    """Returns the axes, one or an array of them."""
    title: str
    """What is drawn; `{name}` stands for an attribute of the result."""
    caption: str
    """What its lines and points are. What became of the claims is added to it."""


class Budget(NamedTuple):
    """Seconds that a study may take on two cores."""

    quick: float
    full: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A paper, or a question, whose claims are tested."""

    name: str
    title: str
    reference: str
    """BibTeX."""
    question: str
    summary: str
    """What the paper says, in our words."""
    answer: Callable[[Results, Sequence[Entry]], str]
    """Two sentences, from the results and the verdicts."""
    measurements: Mapping[str, Measurement]
    claims: Sequence[Claim]
    figures: Mapping[str, Figure]
    """By name, in the order of the page; the first one shows the answer."""
    budget: Budget

    def __post_init__(self):
        for claim in self.claims:
            for kind, name in (("measurements", claim.of), ("figures", claim.figure)):
                if name and name not in getattr(self, kind):
                    raise ValueError(
                        f"claim {claim.name} of {self.name} names {name!r}, which is "
                        f"none of its {kind}."
                    )
        for name, figure in self.figures.items():
            if figure.of not in self.measurements:
                raise ValueError(
                    f"figure {name!r} of {self.name} is of {figure.of!r}, which is "
                    "none of its measurements."
                )

    def wanted(self, names: Sequence[str]) -> list[Claim]:
        """The claims of these names, or that begin with one; all without any.

        Raises:
            ValueError: there is no such claim.
        """
        known = [claim.name for claim in self.claims]
        for name in names:
            if not any(named(one, [name]) for one in known):
                raise ValueError(
                    f"claim {name!r} is none of {self.name}; it has {', '.join(known)}."
                )
        return [c for c in self.claims if not names or named(c.name, names)]

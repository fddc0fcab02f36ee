"""A section of the report: a figure, its title, caption and numbers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from ntk_resnet.report import tables


@dataclasses.dataclass(frozen=True)
class Section:
    """A figure with its words and numbers."""

    name: str  # of the part of the study, and of its files
    title: str
    caption: str
    draw: Callable[[], Any]
    table: str  # HTML
    picture: str = ""  # file name of the figure; the part's name by default

    @property
    def short(self) -> str:
        """What the contents call it."""
        return _SHORT[self.stem]

    @property
    def stem(self) -> str:
        return self.picture or self.name


_SHORT = {
    "paper": "The paper's figure",
    "kernels_ntk": "Tangent kernels",
    "kernels_nngp": "Feature kernels",
    "degeneracy": "Real data",
    "regression": "Regression",
    "teacher": "Known target",
    "rates": "Rates",
    "spectra": "Spectra",
    "mercer": "On the sphere",
    "curves": "Learning curves",
    "data_curves": "Curves on data",
    "ridge": "Ridge",
    "images": "Images",
    "image_rates": "Rates on images",
    "image_networks": "Finite, on images",
    "width": "Finite width",
    "dispersion": "Dispersion",
    "training": "Training",
}


def rows_section(name, title, caption, plot, found, over, columns):
    """A section whose caption names attributes and whose table has a row an entry."""
    return Section(
        name,
        title,
        caption.format_map(found.attrs),
        functools.partial(plot, found),
        tables.rows_table(found, over, columns),
    )

"""All studies by name, in the order of the index."""

import importlib

from ntk_resnet._checks import check_choice
from ntk_resnet.studies.study import Study

NAMES = (
    "huang2020",
    "belfer2024",
    "effective_depth",
    "hayou2021",
    "tian2024",
    "xiao2020",
    "bietti2021",
    "hanin2020",
    "yang2017",
    "simon2023",
    "barzilai2023",
    "scaling2022",
    "images",
    "digits",
    "li2016",
    "desmith2020",
    "dherin2025",
)


def study(name: str) -> Study:
    """The study of that name: the constant `STUDY` of its module.

    Raises:
        ValueError: there is none.
    """
    check_choice("study", name, NAMES)
    return importlib.import_module(f"ntk_resnet.studies.{name}").STUDY

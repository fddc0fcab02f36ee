"""All studies by name, in the order of the index."""

import importlib

from ntk_resnet._checks import check_choice
from ntk_resnet.studies.study import Study

NAMES = ("belfer2024",)


def study(name: str) -> Study:
    """The study of that name: the constant `STUDY` of its module.

    Raises:
        ValueError: there is none.
    """
    check_choice("study", name, NAMES)
    return importlib.import_module(f"ntk_resnet.studies.{name}").STUDY

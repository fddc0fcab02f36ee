"""Runs studies: each measurement once, saved as soon as it is there, then judged.

A measurement whose saved result was made by the same code, versions, settings and data
is loaded instead of computed, so that a second run is instant and a killed one goes on.
"""

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from ntk_resnet._progress import Progress, part_of, quiet
from ntk_resnet.data.datasets import load_data
from ntk_resnet.data.images import ARCHIVES, has_images
from ntk_resnet.records import results as records
from ntk_resnet.records.cache import cache_folder
from ntk_resnet.records.code import function_digest, recipe
from ntk_resnet.records.content import digest, write_file
from ntk_resnet.studies.ledger import Entry, judge, not_run
from ntk_resnet.studies.study import Measurement, NotRun, Results, Study


class Run(NamedTuple):
    """What became of a study."""

    study: Study
    size: str
    """"quick" or "full"."""
    results: Results
    entries: list[Entry]


def run(
    studies: Sequence[Study],
    *,
    quick: bool = False,
    claims: Sequence[str] = (),
    source: Any = "digits",
    folder: pathlib.Path | None = None,
    progress: Progress = quiet,
) -> list[Run]:
    """Measures what is not yet there, and judges all claims.

    Args:
        studies: each once.
        quick: in their smaller sizes.
        claims: names of those to judge, of one study; all if none are named.
        source: of the data, as for `load_data`.
        folder: for the results, `folder/<study>/<quick or full>/<measurement>.zarr` and
            CSV; they are cached as well, for runs without one.
        progress: its total is in seconds, infinite where it is not known how long
            something takes: that is known of what was measured here before.

    Raises:
        ValueError: a claim or the data are none that there are.
        OSError: the folder is not writable.
    """
    size = "quick" if quick else "full"
    jobs = []
    for one in studies:
        names = dict.fromkeys(claim.of for claim in one.wanted(claims))
        for name in names if claims else one.measurements:
            part = one.measurements[name]
            settings = part.settings(quick)
            data = part.source or source
            jobs.append(_Job(one, name, part, settings, data, size, folder))
    found = _results(jobs, progress)
    runs = []
    for one in studies:
        own = {job.name: value for job, value in found if job.study is one}
        made = {k: value for k, value in own.items() if not isinstance(value, NotRun)}
        runs.append(Run(one, size, made, _entries(one, claims, own)))
    return runs


def _entries(study, claims, found):
    return [_entry(study, claim, found[claim.of]) for claim in study.wanted(claims)]


def _entry(study, claim, value):
    try:
        if isinstance(value, NotRun):
            raise value
        return judge(study.name, claim, value, value.attrs["seconds"])
    except NotRun as why:
        return not_run(study.name, claim, str(why))


# ------------------------------------------------------------------------------ results


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """A measurement to be made, or to be found."""

    study: Study
    name: str
    part: Measurement
    settings: dict[str, Any]
    source: Any
    size: str
    folder: pathlib.Path | None

    @property
    def key(self):
        return f"{self.study.name} {self.name} {self.size}"

    @functools.cached_property
    def about(self):
        """What decides the result besides the code; of the data their digest."""
        about: dict[str, Any] = {"study": self.study.name, "measurement": self.name}
        about |= {"settings": self.settings}
        if self.part.data:
            data = self.data
            about |= {"data": data.name, "data_sha256": digest(data.x, data.y)}
        return about

    @functools.cached_property
    def recipe(self):
        return recipe(self.about | {"function": function_digest(self.part.measure)})

    @property
    def data(self):
        """What the measurement takes, if there is such; nothing is downloaded."""
        if self.part.source in ARCHIVES and not has_images(self.part.source):
            raise NotRun(
                f"the files of {self.part.source} are not here; --data "
                f"{self.part.source} would fetch them."
            )
        rows = _data(self.source, False)
        if self.part.data == "rows":
            return rows
        try:
            return _data(self.source, True)
        except ValueError as error:  # rows that are no images
            raise NotRun(str(error)) from None

    def compute(self, progress):
        inputs = (self.data,) if self.part.data else ()
        return self.part.measure(*inputs, **self.settings, progress=progress)

    @property
    def kept(self):
        """Where the result is kept: in the user's folder, if there is one."""
        if self.folder is None:
            return None
        return self.folder / self.study.name / self.size / f"{self.name}.zarr"

    @property
    def cached(self):
        """Where it is among what is cached, a place for each data and settings."""
        home = _cached("studies")
        if home is None:
            return None
        which = digest(json.dumps(self.about, sort_keys=True))[:12]
        return home / self.study.name / self.size / f"{self.name}-{which}.zarr"


@functools.lru_cache(4)
def _data(source, images):
    return load_data(source, images=images)


def _results(jobs, progress):
    """Each job with its result, or with the `NotRun` that says why there is none."""
    found = [_known(job) for job in jobs]
    missing = [k for k, value in enumerate(found) if value is None]
    for k in missing:
        if (place := jobs[k].kept) is not None:
            records.check_replaceable(place)  # before the work, not after it
    known = _durations()
    shares = [max(known.get(jobs[k].key, math.nan), 0.1) for k in missing]
    total, done = math.fsum(shares), 0.0
    if math.isnan(total):  # something was never measured here
        shares, total = [1.0] * len(missing), math.inf
    for k, share in zip(missing, shares, strict=True):
        text = f"{jobs[k].study.name}, {jobs[k].name}"
        progress(done, total, text)
        report = part_of(progress, done, share, total, f"{text}: ")
        try:
            found[k] = _made(jobs[k], report)
        except NotRun as why:
            found[k] = why
        done += share
    progress(1, 1, "all measured")
    return list(zip(jobs, found, strict=True))


def _known(job):
    """The result from an earlier run, `None`, or the `NotRun` of its data."""
    try:
        wanted, places = job.recipe, (job.kept, job.cached)
    except NotRun as why:
        return why
    for place in places:
        value = place and records.load_made_by(wanted, place)
        if value is not None:
            if place != job.kept and job.kept is not None:
                records.save(value, job.kept, csv=True)
            return value
    return None


def _made(job, progress):
    value = records.made_by(job.recipe, functools.partial(job.compute, progress))
    _remember(job.key, value.attrs["seconds"])
    if job.cached is not None:
        with contextlib.suppress(OSError):  # it need not be writable
            _free(job.cached)
            records.save(value, job.cached)
    if job.kept is not None:
        records.save(value, job.kept, csv=True)
    place = job.kept or job.cached
    return records.load(place) if place is not None and place.exists() else value


def _free(place):
    """Takes away what is no store from a place of ours."""
    if place.is_dir() and not (place / "zarr.json").is_file():
        shutil.rmtree(place)
    elif place.is_file():
        place.unlink()


# ---------------------------------------------------------------------------- durations


def _cached(name):
    home = cache_folder()
    return home and home / name


def _durations() -> dict[str, float]:
    """Seconds that measurements took on this machine, by their keys."""
    path = _cached("durations.json")
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text())) if path else {}
    return {}


def _remember(key, seconds):
    path = _cached("durations.json")
    if path is not None:
        with contextlib.suppress(OSError):  # it need not be writable
            write_file(path, json.dumps(_durations() | {key: seconds}))

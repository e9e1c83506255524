"""Report on a whole data set, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from ddep.data.checks.problems import KINDS, Problem
from ddep.data.checks.records import ImageReport

# At most this many problems of a kind are kept; all are counted.
MAX_LISTED = 10_000
# At most this many problems of a kind are printed.
_MAX_PRINTED = 5


class DatasetReport:
    """Sums up the :class:`ImageReport` of each image; its size does not grow with their number."""

    def __init__(self, name: str, class_names: Sequence[str]) -> None:
        """
        Args:
            name: of the data set.
            class_names: by class; a class without a name goes by its number.
        """
        self.name = name
        self.class_names = class_names
        self.videos = 0  # whose frames are the images
        self.images = 0
        self.problems: dict[str, list[Problem]] = {}
        self.problem_counts: Counter[str] = Counter()
        self.histogram = np.zeros((3, 256), dtype=np.int64)
        self.sizes: tuple[list[int], list[int]] = ([], [])
        self.pixels: Counter[int] = Counter()
        self.objects: Counter[int] = Counter()
        self.images_with: Counter[int] = Counter()
        self.crowds = 0
        self.unlabelled = 0

    def add_problems(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.problem_counts[problem.kind] += 1
            listed = self.problems.setdefault(problem.kind, [])
            if len(listed) < MAX_LISTED:
                listed.append(problem)

    def add(self, image: ImageReport) -> None:
        """Add the report on one image."""
        self.images += 1
        self.add_problems(image.problems)
        if image.size is not None:
            self.histogram += image.histogram
            for extremes, side in zip(self.sizes, image.size, strict=True):
                extremes[:] = [min([side, *extremes]), max([side, *extremes])]
        classes = image.class_pixels.keys() | image.class_objects.keys() | image.classes
        self.pixels.update(image.class_pixels)
        self.objects.update(image.class_objects)
        self.images_with.update(classes)
        self.crowds += image.crowds
        self.unlabelled += not classes

    @property
    def fine(self) -> bool:
        """Whether there are no problems."""
        return not self.problem_counts

    def pixel_statistics(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation of red, green and blue, 0..255; None without pixels."""
        number = int(self.histogram[0].sum())
        if not number:
            return None
        values = np.arange(256)
        mean = self.histogram @ values / number
        variance = self.histogram @ values**2 / number - mean**2
        return mean.tolist(), np.sqrt(variance.clip(0)).tolist()

    def to_json(self) -> dict[str, Any]:
        """The whole report as JSON values.

        ``pixel_mean_rgb`` and ``pixel_std_rgb`` are for ``MODEL.PIXEL_MEAN`` and
        ``MODEL.PIXEL_STD`` if ``INPUT.FORMAT`` is RGB; reverse them for BGR.
        """
        mean, std = self.pixel_statistics() or (None, None)
        return {
            "name": self.name,
            **({"videos": self.videos} if self.videos else {}),
            "images": self.images,
            "problem_counts": dict(self.problem_counts),
            "problems": {
                kind: [{"file": problem.file, "message": problem.message} for problem in problems]
                for kind, problems in self.problems.items()
            },
            "heights": self.sizes[0],
            "widths": self.sizes[1],
            "pixel_mean_rgb": mean,
            "pixel_std_rgb": std,
            "classes": [
                {
                    "class": number,
                    "name": self._class_name(number),
                    "images": self.images_with[number],
                    "pixels": self.pixels[number],
                    "objects": self.objects[number],
                }
                for number in self._classes()
            ],
            "crowds": self.crowds,
            "images_without_labels": self.unlabelled if self._classes() else None,
        }

    def __str__(self) -> str:
        """The statistics, then the first problems of each kind, on several lines."""
        return "\n".join([*self._statistics(), *self._problems()])

    def _statistics(self) -> list[str]:
        videos = f"{self.videos} videos, " if self.videos else ""
        lines = [f"{self.name}: {videos}{self.images} images"]
        statistics = self.pixel_statistics()
        if statistics:
            heights, widths = ("-".join(map(str, sorted(set(ends)))) for ends in self.sizes)
            mean, std = (", ".join(f"{value:.3f}" for value in values) for values in statistics)
            lines.append(f"widths {widths}, heights {heights} pixels")
            lines.append(f"MODEL.PIXEL_MEAN [{mean}], MODEL.PIXEL_STD [{std}] for INPUT.FORMAT RGB")
        if self._classes():
            total = max(1, self.pixels.total())
            columns = {
                "class": [self._class_name(number) for number in self._classes()],
                "images": [self.images_with[number] for number in self._classes()],
                "objects": [self.objects[number] for number in self._classes()],
                "% of labelled pixels": [100 * self.pixels[n] / total for n in self._classes()],
            }
            if not self.objects:
                del columns["objects"]
            if not self.pixels:
                del columns["% of labelled pixels"]
            lines += ["", tabulate(columns, "keys", "pipe", floatfmt=".2f"), ""]
            lines.append(
                f"{self.unlabelled} images without labels, {self.crowds} crowds, "
                f"{columns['images'].count(0)} classes that do not occur"
            )
        return lines

    def _problems(self) -> list[str]:
        total = self.problem_counts.total()
        lines = [f"{total or 'no'} problem{'s' * (total != 1)}"]
        for kind in KINDS:
            if kind not in self.problems:
                continue
            number = self.problem_counts[kind]
            lines.append(f"{kind} ({number}): {KINDS[kind]}")
            lines += [f"  {problem.message}" for problem in self.problems[kind][:_MAX_PRINTED]]
            if number > _MAX_PRINTED:
                lines.append(f"  ... and {number - _MAX_PRINTED} more")
        return lines

    def _classes(self) -> list[int]:
        """All classes that have a name or occur; none in a data set without labels."""
        return sorted({*range(len(self.class_names)), *self.images_with})

    def _class_name(self, number: int) -> str:
        return self.class_names[number] if 0 <= number < len(self.class_names) else str(number)

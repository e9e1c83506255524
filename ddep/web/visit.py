"""What one visitor sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddep.web.analysis import INSTANCES, Analysis, triptych
from ddep.web.picture import draw_segments
from ddep.web.segments import NOTHING, Segments


@dataclass(frozen=True)
class Visit:
    """What one visitor sees; no other visitor has it.

    Attributes:
        analysis: of the image; None before there is one.
        view: kind of result that is shown.
        hidden: names of the classes that are switched off.
        min_score: of instances.
        selected: position of the selected segment, or NOTHING.
    """

    analysis: Analysis | None = None
    view: str = ""
    hidden: frozenset[str] = frozenset()
    min_score: float = 0.5
    selected: int = NOTHING

    @property
    def segments(self) -> Segments | None:
        """Those of the view."""
        return self.analysis.views.get(self.view) if self.analysis else None

    @property
    def min_score_of_view(self) -> float:
        return self.min_score if self.view == INSTANCES else 0.0

    def picture(self, size: tuple[int, int]) -> np.ndarray | None:
        """The segments over the image, (*size, 3) uint8, RGB; None if there are none."""
        if self.segments is None:
            return None
        return draw_segments(
            self.analysis.image,
            self.seen(),
            self.segments.found,
            selected=self.selected,
            filled=self.segments.filled,
            size=size,
        )

    def summary(self) -> str:
        """A line about the image and what is seen in it."""
        height, width = self.analysis.image.shape[:2]
        line = f"{self.analysis.name}, {width}x{height}"
        if self.segments is not None:
            seen = self.seen()
            count = len(np.unique(seen[seen != NOTHING]))
            return f"{line}: {count} {'segment' if count == 1 else 'segments'}"
        if "denoised" in self.analysis.outputs:
            _, (noisy, denoised) = triptych(self.analysis)
            return f"{line}: PSNR {noisy:.1f} dB with the noise, {denoised:.1f} dB denoised"
        return line

    def seen(self) -> np.ndarray:
        """See :meth:`Segments.seen`."""
        return self.segments.seen(self.hidden, self.min_score_of_view)

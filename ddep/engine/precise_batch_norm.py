"""Statistics of batch norms that are those of many batches."""

from __future__ import annotations

from detectron2.engine import hooks


class PreciseBatchNorm(hooks.PreciseBN):
    """detectron2's hook (TEST.PRECISE_BN), over the images that training sees next.

    detectron2's goes on behind those that it took the last time, which a resumed run does not know.
    """

    def update_stats(self) -> None:
        """Compute the statistics anew, in every norm that trains."""
        self._data_loader.load_state_dict(self.trainer.data_loader.state_dict())
        self._data_iter = None  # starts there
        super().update_stats()

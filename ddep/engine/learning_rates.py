"""The learning rate of each parameter at the start of a run, before the schedule's factor."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from detectron2.config import CfgNode
from torch import nn

from ddep.checkpoint.groups import group_of, own_groups
from ddep.modeling.encoder_layers import encoder_layers


class Part(NamedTuple):
    """Parameters with one learning rate. Parts sort in the order of the optimizer's groups.

    Attributes:
        in_backbone: whether they belong to the encoder.
        is_transferred: whether they were taken from MODEL.WEIGHTS and the config tells such
            parameters from new ones.
        layer: of the encoder; None where layers do not differ.
    """

    in_backbone: bool
    is_transferred: bool = False
    layer: int | None = None

    @property
    def name(self) -> str:
        """Such as ``head``, ``transferred head`` or ``backbone layer 3``."""
        origin = "transferred " if self.is_transferred else ""
        layer = "" if self.layer is None else f" layer {self.layer}"
        return f"{origin}{'backbone' if self.in_backbone else 'head'}{layer}"


def tells_transferred(cfg: CfgNode) -> bool:
    """Whether parameters that were taken from MODEL.WEIGHTS train in another way than new ones."""
    return cfg.SOLVER.TRANSFERRED_MULTIPLIER != 1 or cfg.SOLVER.NEW_ONLY_ITERS > 0


class LearningRates:
    """The part and the learning rate of each parameter.

    Outside of the encoder (the group ``backbone`` of :mod:`ddep.checkpoint.groups`) the rate is
    BASE_LR, times TRANSFERRED_MULTIPLIER for what was transferred. In the encoder it is ``BASE_LR *
    BACKBONE_MULTIPLIER``, transferred or not. There LAYER_DECAY multiplies it once for each layer
    from the parameter's to the last one, both included (BEiT, arXiv 2106.08254, appendix).
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, transferred: Collection[str] = ()) -> None:
        """
        Args:
            cfg: reads SOLVER.
            model: its class may say by ``weight_groups`` which names are the encoder's.
            transferred: names of the weights that were taken from MODEL.WEIGHTS.

        Raises:
            UserError: LAYER_DECAY is not 1, and the encoder's layers are not known.
        """
        self._solver = cfg.SOLVER
        self._own = own_groups(model)
        self._transferred = frozenset(transferred if tells_transferred(cfg) else ())
        self._layers = encoder_layers(model) if cfg.SOLVER.LAYER_DECAY != 1 else {}
        self._num_layers = 1 + max(self._layers.values(), default=-1)

    def part(self, name: str) -> Part:
        """The part that the parameter called ``name`` belongs to."""
        in_backbone = group_of(name, self._own) == "backbone"
        layer = self._layers.get(name) if in_backbone else None
        return Part(in_backbone, name in self._transferred, layer)

    def of(self, part: Part) -> float:
        """The learning rate of ``part``."""
        solver = self._solver
        if not part.in_backbone:
            multiplier = solver.TRANSFERRED_MULTIPLIER if part.is_transferred else 1.0
            return solver.BASE_LR * multiplier
        rate = solver.BASE_LR * solver.BACKBONE_MULTIPLIER
        if part.layer is None:
            return rate
        return rate * solver.LAYER_DECAY ** (self._num_layers - part.layer)

"""Checks that a frozen backbone has pretrained weights."""

from __future__ import annotations

import logging

from ddep.checkpoint import Checkpointer
from ddep.checkpoint.groups import group_of, own_groups
from ddep.errors import UserError
from ddep.modeling.encoder import encoder_parameters

logger = logging.getLogger(__name__)


def check_backbone_is_loaded(checkpointer: Checkpointer, freeze_key: str) -> None:
    """Raise UserError unless the checkpoint that was loaded last holds most of the encoder.

    The encoder is the group ``backbone`` of :mod:`ddep.checkpoint.groups`. If a few of its weights
    are missing, a warning says so.

    Args:
        checkpointer: of a model with a frozen encoder.
        freeze_key: the config key that froze it.
    """
    report, model = checkpointer.report, checkpointer.model
    own = own_groups(model)
    for name, (found, expected) in report.mismatched.items():
        if group_of(name, own) == "backbone":
            raise frozen_backbone_error(
                f"{name} is {found} in {report.path} and {expected} in the model", freeze_key
            )
    # Tensors of one dimension are norms and biases, which start out neutral.
    tables = [name for name, p in encoder_parameters(model).items() if p.ndim > 1]
    loaded = set(report.loaded)
    random = [name for name in tables if name not in loaded]
    if 2 * len(random) > len(tables):
        raise frozen_backbone_error(
            f"{report.path} has {len(tables) - len(random)} of its {len(tables)} weights, norms "
            f"and biases not counted; {random[0]} is missing",
            freeze_key,
        )
    if random:
        logger.warning(
            f"{len(random)} weights of the frozen backbone, such as {random[0]}, are not in "
            f"{report.path}: they stay random"
        )


def frozen_backbone_error(found: str, freeze_key: str) -> UserError:
    """The error for a frozen backbone that would stay random.

    Args:
        found: why it would.
        freeze_key: the config key that froze it.
    """
    return UserError(
        f"the backbone is frozen but has no pretrained weights ({found}); either set MODEL.WEIGHTS "
        f"to a checkpoint of a pretrained backbone, or train it as well with {freeze_key} False"
    )

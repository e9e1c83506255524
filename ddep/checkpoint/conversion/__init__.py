"""Turn checkpoints of other projects into ones that MODEL.WEIGHTS takes.

A format is a module with

* ``LOOKED_FOR``: the names by which its checkpoints are recognised, in a few words;
* ``recognises(weights) -> bool``;
* ``entries(weights, settings) -> Entries``: the weights of the model, and their sources;
* ``config_of(weights, settings) -> dict``: the config keys and values that describe the model;
  empty if the checkpoint does not determine them, or keeps its names (OWN_NAMES).

``weights`` is the source's state dict, ``settings`` the content of the ``config.json`` beside it.
"""

from ddep.checkpoint.conversion.convert_weights import FORMATS, OWN_NAMES, Conversion, convert

__all__ = ["FORMATS", "OWN_NAMES", "Conversion", "convert"]

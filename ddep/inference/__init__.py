"""From a config and its weights to results on images, and pictures of them."""

from ddep.inference.predict_files import predict_files
from ddep.inference.predictor import Predictor

__all__ = ["Predictor", "predict_files"]

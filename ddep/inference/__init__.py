"""From a config and its weights to results on images, and pictures of them."""

from ddep.inference.predict_files import predict_files
from ddep.inference.predictor import Predictor
from ddep.inference.visualisation import draw_outputs

__all__ = ["Predictor", "draw_outputs", "predict_files"]

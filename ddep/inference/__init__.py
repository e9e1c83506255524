"""From a trained model and images to predictions, and files of them."""

from ddep.inference.predict_files import predict_files
from ddep.inference.prediction import Prediction
from ddep.inference.predictor import Predictor

__all__ = ["Prediction", "Predictor", "predict_files"]

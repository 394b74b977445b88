"""Tasks: Lightning modules that train, validate and apply a network, one a file."""

from perception.tasks.export import ModelExport, PredictionWriter
from perception.tasks.schedule import WarmupCosine
from perception.tasks.segmentation import Segmentation

__all__ = ["ModelExport", "PredictionWriter", "Segmentation", "WarmupCosine"]

"""Tasks: Lightning modules that train, validate and apply a network, one a file."""

from perception.tasks.averaging import AveragedWeights
from perception.tasks.export import ModelExport, PredictionWriter, WholeCheckpoints
from perception.tasks.processes import SparseSyncBatchNorm
from perception.tasks.schedule import OneCycle, WarmupCosine
from perception.tasks.segmentation import Segmentation

__all__ = [
    "AveragedWeights",
    "ModelExport",
    "OneCycle",
    "PredictionWriter",
    "Segmentation",
    "SparseSyncBatchNorm",
    "WarmupCosine",
    "WholeCheckpoints",
]

"""Metrics as torchmetrics modules."""

from perception.metrics.iou import IoU, SegmentationIoU

__all__ = ["IoU", "SegmentationIoU"]

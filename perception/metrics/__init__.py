"""Metrics as torchmetrics modules."""

from perception.metrics.iou import IoU, SegmentationIoU, label_iou

__all__ = ["IoU", "SegmentationIoU", "label_iou"]

"""Metrics as torchmetrics modules."""

from perception.metrics.iou import IoU, Mean, SegmentationIoU, label_iou

__all__ = ["IoU", "Mean", "SegmentationIoU", "label_iou"]

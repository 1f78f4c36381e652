"""Mask R-CNN on a searched network: COCO-format data, training, average precision."""

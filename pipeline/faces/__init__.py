"""Faces out of paintings and photographs: detectors, boxes, crops, their catalogue, and its review by hand."""

"""Predict with exported files where there is no torch: ``finetune.runtime.load("room.onnx").predict(image)``."""

from finetune.inference.exported import ExportedModel, load

__all__ = ["ExportedModel", "load"]

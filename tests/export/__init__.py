"""Weights, the ONNX export and its parity."""

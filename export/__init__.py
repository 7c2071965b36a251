"""Weights and the VGG19-to-ONNX export; installed as `nst_daemon.export`."""

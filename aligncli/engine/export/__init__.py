"""Detectors as files that run without aligncli: in onnxruntime, or in PyTorch alone."""

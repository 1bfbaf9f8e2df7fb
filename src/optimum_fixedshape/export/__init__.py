"""PyTorch models: writing them as ONNX graphs whose shapes are baked in."""

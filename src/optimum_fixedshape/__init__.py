"""ONNX graphs with baked-in shapes that behave, inside Hugging Face code, like the PyTorch models they came from."""

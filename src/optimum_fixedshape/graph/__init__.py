"""ONNX files: reading what they demand, and writing them with other shapes."""

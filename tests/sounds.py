"""Sounds and clips to test with, made on the spot, and graphs that take them."""

import contextlib
import functools
import http.server
import threading

import numpy as np

from optimum_fixedshape.contract import Axis, ShapeContract, TensorSpec
from optimum_fixedshape.ladder import ShapeLadder

RATE = 16000


def tone(samples, *, rate=RATE, pitch=440.0, seed=0):
    """A tone with noise on it: float32, between -1 and 1."""
    noise = np.random.default_rng(seed).normal(0, 0.02, samples)
    return (0.4 * np.sin(2 * np.pi * pitch * np.arange(samples) / rate) + noise).astype(np.float32)


def write_sound(path, samples, rate=RATE, **options):
    import soundfile

    soundfile.write(path, samples, rate, **options)
    return path


def clip(frames, *, height=48, width=64, seed=0):
    """Frames that differ: uint8, (frames, height, width, 3)."""
    down, across = np.linspace(0, 120, height)[:, None, None], np.linspace(0, 80, width)[:, None]
    start = (down + across + np.random.default_rng(seed).uniform(0, 20, 3))[None]
    return (start + np.linspace(0, 30, frames)[:, None, None, None]).astype(np.uint8)


def write_clip(path, frames, *, codec="mpeg4", rate=10, **options):
    import av

    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def spec(name, dtype, **roles):
    """An input: `spec("input_values", "float32", batch_size=1, audio_sequence_length=100)`; `_` is no role."""
    axes = (Axis(size, role=None if role.startswith("_") else role) for role, size in roles.items())
    return TensorSpec(name, dtype, tuple(axes))


def ladder_of(*rungs):
    """A ladder of graphs, each a list of inputs."""
    return ShapeLadder(tuple(ShapeContract(tuple(inputs), ()) for inputs in rungs))


def waves(*lengths, rows=1, mask=False, dtype="float32", name="input_values"):
    """A ladder of graphs that take waveforms."""
    inputs = [(name, dtype)] + ([("attention_mask", "int64")] if mask else [])
    return ladder_of(
        *([spec(n, t, batch_size=rows, audio_sequence_length=length) for n, t in inputs] for length in lengths)
    )


@contextlib.contextmanager
def served(folder):
    """Serves a folder; gives the URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()

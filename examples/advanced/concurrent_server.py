"""A small HTTP server on a graph that takes exactly 16 texts: calls of many clients are joined into full batches.

Without arguments it starts the server, sends messages from many clients at once, compares each answer with that of a
call by itself, and ends. What to look for: throughput beside the same server with one call at a time, which fills 15 of
16 rows with nothing; that a client with a bad message gets the error, and its neighbours in the batch their answers;
and that a full queue turns clients away at once. With ``--serve`` it runs until Ctrl+C, and prints a line for curl.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optimum_fixedshape import InputTooLongError, export_model, pipeline
from optimum_fixedshape.errors import QueueFullError

sys.path.insert(0, str(Path(__file__).parents[1]))

from offline import NEUTRAL, TOPICS, text_classifier

SHAPES = {"batch_size": 16, "sequence_length": [32, 128]}


class Server(ThreadingHTTPServer):
    """A thread for each request, which waits for its own answer."""

    request_queue_size = 128
    daemon_threads = False  # closing waits for the answers under way

    def __init__(self, port: int, answer: Callable[[str], Any]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answer = answer


class Handler(BaseHTTPRequestHandler):
    """``POST {"text": ...}`` gives ``{"label": ..., "score": ...}``."""

    server: Server

    def do_POST(self) -> None:
        """Replies with the answer, or with what is wrong with this request and no other."""
        status, reply = self.reply_to(self.rfile.read(int(self.headers["Content-Length"] or 0)))
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def reply_to(self, body: bytes) -> tuple[int, Any]:
        """The status and the reply."""
        try:
            message = json.loads(body)
            if not isinstance(message, dict) or not isinstance(message.get("text"), str):
                raise ValueError("expected an object with a text")
            return 200, self.server.answer(message["text"])
        except InputTooLongError as error:
            return 413, {"error": str(error)}
        except QueueFullError as error:
            return 503, {"error": str(error)}
        except ValueError as error:  # not JSON, or not ours
            return 400, {"error": str(error)}

    def log_message(self, *_: Any) -> None:
        """Logs nothing: there are thousands of requests."""


def serve(pipe: Any, port: int) -> None:
    """Runs until Ctrl+C, or the signal that process managers send; what is under way is answered."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with pipe.stream(max_queue=256, timeout=0.5) as batcher, Server(port, batcher) as server:
        print(f'curl -d \'{{"text": "my parcel is late"}}\' http://127.0.0.1:{server.server_port}/', flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("Closing.")


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a text classifier in PyTorch form, to export: a folder or a Hub id")
    parser.add_argument("--clients", type=int, default=32, help="how many at once (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=640, help="how many in all (default: %(default)s)")
    parser.add_argument("--serve", action="store_true", help="serve until Ctrl+C, in place of all that")
    parser.add_argument("--port", type=int, default=8000, help="where --serve listens (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = arguments.model or text_classifier(Path(temporary) / "torch")
        folder = export_model(source, Path(temporary) / "fixed", shapes=SHAPES, progress=False)
        pipe = pipeline("text-classification", model=folder)
        if arguments.serve:
            serve(pipe, arguments.port)
        else:
            compare(pipe, arguments.clients, arguments.requests)
            show_errors(pipe)
            show_back_pressure(pipe)


class Reply(NamedTuple):
    """What a client got, and after how many seconds."""

    status: int
    body: Any
    seconds: float


def ask(port: int, body: str) -> Reply:
    """One request of one client."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("POST", "/", body)
        reply = connection.getresponse()
        return Reply(reply.status, json.loads(reply.read()), time.perf_counter() - start)
    finally:
        connection.close()


@contextmanager
def running(answer: Callable[[str], Any]) -> Iterator[int]:
    """A server in a thread of its own; gives its port."""
    with Server(0, answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def replies_to(answer: Callable[[str], Any], bodies: list[str], clients: int) -> tuple[list[Reply], float]:
    """The replies, and the seconds that all of them took."""
    with running(answer) as port, ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        replies = list(pool.map(lambda body: ask(port, body), bodies))
        return replies, time.perf_counter() - start


def compare(pipe: Any, clients: int, requests: int) -> None:
    """Measures the server with calls that are joined, and with one at a time."""
    chance, lock = random.Random(1), threading.Lock()
    texts = [message(chance) for _ in range(requests)]
    bodies = [json.dumps({"text": text}) for text in texts]
    expected = [pipe(text)[0] for text in texts]

    def one_at_a_time(text: str) -> Any:
        with lock:
            return pipe(text)[0]

    print(f"{requests} requests of {clients} clients at once; clients and server share this process.\n")
    with pipe.stream() as batcher:
        ways = {"one call at a time": one_at_a_time, "pipe.stream()": batcher}
        rates = []
        for name, answer in ways.items():
            before = sum(rung.runs for rung in pipe.model.stats)
            replies, seconds = replies_to(answer, bodies, clients)
            runs = sum(rung.runs for rung in pipe.model.stats) - before
            middle, slow = np.percentile([1000 * reply.seconds for reply in replies], [50, 99])
            rates.append(requests / seconds)
            print(f"{name:<20}{rates[-1]:6.0f} requests/s   median {middle:6.1f} ms   p99 {slow:6.1f} ms   {runs} runs")
    same = all(reply.body["label"] == wanted["label"] for reply, wanted in zip(replies, expected, strict=True))
    apart = max(abs(reply.body["score"] - wanted["score"]) for reply, wanted in zip(replies, expected, strict=True))
    print(f"\nThroughput: {rates[1] / rates[0]:.1f} times that of one call at a time.")
    print(f"Every answer is that of a call by itself: {same}. Largest difference of a score: {apart:.0e}.")


def show_errors(pipe: Any) -> None:
    """Sends good and bad requests together: each client gets what is its own."""
    bodies = [json.dumps({"text": "my parcel is late"}), json.dumps({"text": "my parcel " * 100}), "no json"] * 8
    with pipe.stream() as batcher:
        replies, _ = replies_to(batcher, bodies, len(bodies))
    print(f"\nEight good, eight too long, eight no JSON: {sorted(Counter(reply.status for reply in replies).items())}")
    print(f"Each of them to its own client: {[reply.status for reply in replies] == [200, 413, 400] * 8}.")
    print(f"   413: {replies[1].body['error'][:108]} ...")


def show_back_pressure(pipe: Any) -> None:
    """Sends more than a short queue holds: who finds it full is told so at once, and may come again."""
    bodies = [json.dumps({"text": "my parcel is late"})] * 64
    with pipe.stream(batch_size=1, max_queue=2, timeout=0) as batcher:
        replies, _ = replies_to(batcher, bodies, len(bodies))
    count = Counter(reply.status for reply in replies)
    print(f"\nA queue of 2, no waiting for a place, 64 at once: {count[200]} answered, {count[503]} turned away (503).")


def message(chance: random.Random) -> str:
    """A message to a shop, of 3 to 80 words or so."""
    thing, trouble = (chance.choice(part.split("|")) for part in chance.choice(list(TOPICS.values())))
    start, more = chance.randrange(len(NEUTRAL) - 80), int(min(chance.lognormvariate(2, 1), 80))
    return " ".join([thing, trouble, *NEUTRAL[start : start + more]])


if __name__ == "__main__":
    main()

"""Atheris target: whatever the bytes are, the .tflite reader gives a Graph or a TfliteError.

    python -m tests.fuzz.fuzz_tflite CORPUS... -max_total_time=60     (libFuzzer's options)

Never another exception, a warning, a hang or a memory bomb; what is read can be written, and read again as the same graph.
"""

import resource
import sys
import time
import warnings

import atheris

with atheris.instrument_imports(include=["firmware.compiler"]):
    from firmware.compiler.tflite import TfliteError, graphs_equal, read_metadata, read_tflite, write_tflite
from tests.fuzz.mutate_tflite import mutate_tflite

MOST_MEMORY = 4 << 30  # of addresses, most of them numpy's libraries
MOST_SECONDS = 5  # of CPU


def check(data: bytes) -> None:
    """Raises for whatever breaks the reader's promise."""
    graph, started = None, time.process_time()
    for reader in (read_metadata, read_tflite):
        try:
            graph = reader(data)
        except TfliteError as error:
            graph = None
            if len(str(error)) > 2000 or "\n" in str(error):
                raise AssertionError("an error's message is one line of readable length") from error
    if graph is not None and not graphs_equal(read_tflite(write_tflite(graph)), graph):
        raise AssertionError("read(write(read(file))) is another graph")
    if time.process_time() - started > MOST_SECONDS:
        raise AssertionError("reading takes too long")


def mutator(data: bytes, max_size: int, seed: int) -> bytes:
    return (mutate_tflite(data, seed) if seed % 4 else atheris.Mutate(data, max_size))[:max_size]


def main() -> None:
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    atheris.Setup(sys.argv, check, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

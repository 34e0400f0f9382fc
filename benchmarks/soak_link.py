"""A thousand bad lines: `make soak-link`, or `python -m benchmarks.soak_link --schedules N`.

For each seed a schedule of faults (tests/firmware/link_rig.py) between the host's end of the link and the device's C code:
pictures as network rows and as camera frames, now and then a new model. Every picture's bytes equal those of the runtime
called directly, or the host stops with an error; then the rest is run on a healthy line, as --resume would. The average precision
that the device counts on the way is the host's to the bit. Then emulators are killed (`--kills N`) after any number of bytes, and
each time another one goes on. The first difference stops the soak and names its seed.
"""

import argparse
import collections
import platform
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.soak import write_outcome
from firmware.build import Image, build_link
from firmware.header import read_header
from firmware.host import HostModel, firmware_id
from firmware.link.client import NETWORK_ROWS, Client
from firmware.link.counting import Counting
from firmware.link.session import LinkError, PortClosed, Timing
from tests.firmware.link_rig import Faults, Flash, MortalEmulator, SimulatedPort
from tests.firmware.test_device import HEIGHT, WIDTH, make_tess
from tests.firmware.test_link_counting import host_precision, make_truth

MOST_BYTES = 60_000  # of an emulator's life; all pictures and their results are fewer
KINDS = ("layers", "stream", "least")
RGB565_LE = 2


class Soak:
    """What all seeds share: models, pictures and what the runtime makes of them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.models = {kind: make_tess(kind) for kind in KINDS}
        self.headers = {kind: read_header(model) for kind, model in self.models.items()}
        self.frames = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
        self.camera = rng.integers(0, 256, (60, 81, 2), dtype=np.uint8)
        model = HostModel(self.models["stream"])  # schedules do not change bytes
        self.expected = [model.run_and_detect(frame) for frame in self.frames]
        self.expected.append(model.run_and_detect(self.camera, "rgb565_le"))
        found = [boxes for _, boxes in self.expected]
        self.truth = [make_truth(boxes, rng, number) for number, boxes in enumerate(found)]
        self.precision = host_precision(found, self.truth)

    def check(self, seed: int) -> collections.Counter:
        """Run one schedule. Raises AssertionError naming the seed where bytes differ."""
        counts = collections.Counter(schedules=1)
        kind, loaded = KINDS[seed % 3], KINDS[(seed + 1) % 3]
        faults = Faults(seed)
        arena = max(header.arena for header in self.headers.values())
        port = SimulatedPort(self.models[kind], faults, rows_ahead=seed % 5, flash=Flash(16384), memory=arena)
        done = 0
        try:
            client = Client(port)
            client.connect(self.models[kind])
            counting = Counting(client)
            for done in range(len(self.expected)):
                counts += self._picture(client, seed, kind, done, counting)
            counts += self._figure(counting, seed)
            if seed % 8 == 0:
                client.load(self.models[loaded])
                counts += self._picture(client, seed, loaded, 0) + collections.Counter(loads=1)
        except LinkError:
            counts["stopped"] += 1
            port.faults = None
            client = Client(port)
            crc = client.connect().identity.crc
            kind = next(k for k in KINDS if self.models[k][12:16] == crc.to_bytes(4, "little"))
            counting = self._known(client, done)
            for rest in range(done, len(self.expected)):
                counts += self._picture(client, seed, kind, rest, counting)
            counts += self._figure(counting, seed)
        finally:
            port.close()
        counts.update({f"fault_{name}": number for name, number in faults.happened.items()})
        counts.update(restarts=port.resets, repeated=client.session.counters.repeated, damaged=client.session.counters.damaged)
        return counts

    def kill(self, seed: int, image: Image) -> collections.Counter:
        """Emulators that die after some bytes, one after the other, until one lives to the end. Raises as `check` does."""
        counts = collections.Counter(emulators=1)
        rng = np.random.default_rng(seed)
        MortalEmulator.budgets = rng.integers(50, MOST_BYTES, rng.integers(1, 4)).tolist()
        done, figure = 0, None
        while figure is None:
            port = MortalEmulator("emulator", image)
            try:
                client = Client(port, Timing(retry=1.0, patience=120.0, connect=60.0))
                client.connect(self.models["stream"])
                counting = self._known(client, done)
                while done < len(self.expected):
                    counts += self._picture(client, seed, "stream", done, counting)
                    done += 1
                figure = self._figure(counting, seed)
            except PortClosed:
                counts.update(emulators=1, emulators_killed=1)
            finally:
                port.close()
        return counts + figure

    def _known(self, client: Client, done: int) -> Counting:
        """What --resume does with the journal's pictures."""
        counting = Counting(client)
        for (_, boxes), truth in zip(self.expected[:done], self.truth, strict=False):
            counting.add(boxes, truth, None)
        return counting

    def _figure(self, counting: Counting, seed: int) -> collections.Counter:
        if counting.result() != self.precision:
            raise AssertionError(f"seed {seed}: the device counted another average precision")
        return collections.Counter(figures=1)

    def _picture(
        self, client: Client, seed: int, kind: str, number: int, counting: Counting | None = None
    ) -> collections.Counter:
        network = number < len(self.frames)
        picture, pixels = (self.frames[number], NETWORK_ROWS) if network else (self.camera, RGB565_LE)
        answer = client.run(picture, pixels, (WIDTH, HEIGHT), self.headers[kind], True, True)
        heads, boxes = self.expected[number]
        if not np.array_equal(answer.boxes, boxes) or any(not np.array_equal(answer.heads[n], heads[n]) for n in heads):
            raise AssertionError(f"seed {seed}: picture {number} under schedule '{kind}' differs")
        if counting is not None:
            counting.add(answer.boxes, self.truth[number], answer.found)
        return collections.Counter(pictures=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=50, help="rounds of emulators that are killed; 0 where there is no QEMU")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: 0)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/soak_link.json"))
    options = parser.parse_args()
    soak, counts = Soak(), collections.Counter(differences=0, stopped=0)
    started = time.process_time()
    for seed in range(options.first, options.first + options.schedules):
        counts += soak.check(seed)
        if counts["schedules"] % 100 == 0:
            print(f"{counts['schedules']} of {options.schedules} schedules, {counts['pictures']} pictures equal", flush=True)
    image = build_link("mps2-an500", soak.models["stream"]) if options.kills else None
    for seed in range(options.first, options.first + options.kills):
        counts += soak.kill(seed, image)
    outcome = {"first": options.first, "differences": 0, "stopped": 0, **dict(sorted(counts.items()))}
    outcome |= {"cpu_seconds": round(time.process_time() - started, 1), "firmware": firmware_id()}
    write_outcome(options.json, outcome | {"python": platform.python_version()})
    return 0


if __name__ == "__main__":
    sys.exit(main())

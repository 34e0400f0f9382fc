"""A rehearsed camera for tests: an interpreter whose card, ROMFS and camera hold what a test put there."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from firmware.openmv.package import romfs_image
from firmware.openmv.rehearsal import Rehearsal

GUEST = Path(__file__).parent / "openmv_guest"
MEGABYTE = 1 << 20


def write_tree(files: Mapping[str, bytes]) -> bytes:
    """A ROMFS of files, of which some lie in folders: "pictures/truth.csv"."""
    from mpremote.romfs import VfsRomWriter

    writer = VfsRomWriter()
    for folder in sorted({name.rpartition("/")[0] for name in files}):
        if folder:
            writer.opendir(folder)
        for name, data in sorted(files.items()):
            if name.rpartition("/")[0] == folder:
                writer.mkfile(name.rpartition("/")[2], data)
        if folder:
            writer.closedir()
    return bytes(writer.finalise())


def feed(pictures: list[np.ndarray], order: str = ">u2") -> bytes:
    """uint16 (h, w) RGB565 pictures as frames of the rehearsal's camera, high byte first unless `order` says otherwise."""
    names = [f"{i:03d}_{p.shape[1]}x{p.shape[0]}.bin" for i, p in enumerate(pictures)]
    return romfs_image({name: p.astype(order).tobytes() for name, p in zip(names, pictures, strict=True)})


class Camera:
    """`places` are ROMFS images by name: "rom...", "feed..." and "card..." for ROMFS, pictures and the contents of SD cards."""

    def __init__(self, places: Mapping[str, bytes], work: Path) -> None:
        guest = write_tree({str(path.relative_to(GUEST)): path.read_bytes() for path in sorted(GUEST.rglob("*.py"))})
        self.board = Rehearsal({"guest": guest, **places}, work)

    def start(self, card: str, size: int = 4 * MEGABYTE, rom: str = "rom", feed: str = "feed", firmware: int = 5) -> None:
        """A fresh interpreter with a card of `size` bytes in it, and the camera module of that firmware."""
        at = self.board.files_at
        self.board.restart()
        self.board.run(f"import vfs, uctypes, sys\nvfs.mount(vfs.VfsRom(uctypes.bytearray_at{at['guest']}), '/guest')\n"
                       f"sys.path += ['/guest', '/guest/firmware{firmware}']\nimport card\n"
                       + "".join(f"card.mount_rom(*{at[name]}, '/{place}')\n"
                                 for name, place in ((rom, "rom"), (feed, "feed"), (card, "source")) if name in at)
                       + f"card.mount_card({self.board.free:#x}, {size}, '/source')\nimport main\nmain.LED = None\n")  # fmt: skip

    def run(self, script: str) -> str:
        return self.board.run(script)

    def main(self, settings: str = "") -> list[str]:
        """What main.py prints until the camera has no more pictures; the error of a Stop as main.py would print it."""
        return self.run(
            f"{settings}\ntry:\n    main.main()\nexcept main.Stop as stop:\n    print('error: %s' % stop)\n"
            "except KeyboardInterrupt:\n    pass\n"
        ).splitlines()

"""Puts files that the host placed in memory onto file systems: /rom and /feed to read, /card as an SD card with FAT."""

import os

import uctypes
import vfs


class Disk:
    def __init__(self, at, size):
        self.memory, self.size = memoryview(uctypes.bytearray_at(at, size)), size

    def readblocks(self, number, buffer):
        buffer[:] = self.memory[512 * number : 512 * number + len(buffer)]

    def writeblocks(self, number, buffer):
        self.memory[512 * number : 512 * number + len(buffer)] = buffer

    def ioctl(self, operation, argument):
        return self.size // 512 if operation == 4 else 512 if operation == 5 else 0


def mount_rom(at, size, place):
    vfs.mount(vfs.VfsRom(uctypes.bytearray_at(at, size)), place)


def mount_card(at, size, source):
    """A new FAT file system with everything that lies in `source`."""
    disk = Disk(at, size)
    vfs.VfsFat.mkfs(disk)
    vfs.mount(vfs.VfsFat(disk), "/card")
    copy(source, "/card")
    os.chdir("/card")


def copy(source, target):
    chunk = bytearray(4096)
    for name, kind, *_ in os.ilistdir(source):
        if kind == 0x4000:
            os.mkdir(target + "/" + name)
            copy(source + "/" + name, target + "/" + name)
            continue
        with open(source + "/" + name, "rb") as origin, open(target + "/" + name, "wb") as made:
            while True:
                count = origin.readinto(chunk)
                if not count:
                    break
                made.write(memoryview(chunk)[:count])

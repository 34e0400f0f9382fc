"""What the rehearsal's camera sees: the pictures of a folder, RGB565 in the order of bytes of `image`, then Ctrl-C."""

import os

from image import Frame


class Frames:
    def __init__(self, folder):
        self.folder, self.names = folder, sorted(os.listdir(folder))

    def take(self):
        if not self.names:
            raise KeyboardInterrupt
        name = self.names.pop(0)
        width, height = [int(part) for part in name.split(".")[0].split("_")[1].split("x")]
        with open(self.folder + "/" + name, "rb") as file:
            return Frame(memoryview(file), width, height)

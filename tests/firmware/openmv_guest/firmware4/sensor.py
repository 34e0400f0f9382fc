"""The camera as firmware before 5 has it, a module of functions, which must be called in their order; here low byte first."""

import image
from frames import Frames

RGB565, QVGA = "RGB565", "QVGA"
image.LOW_BYTE_FIRST = True
done = []


def reset():
    done.append("reset")


def set_pixformat(layout):
    assert done == ["reset"] and layout == RGB565
    done.append("layout")


def set_framesize(size):
    assert done == ["reset", "layout"] and size == QVGA
    done.append("size")


def skip_frames(time):
    assert done == ["reset", "layout", "size"] and time > 0
    done.append(Frames("/feed"))


def snapshot():
    return done[3].take()

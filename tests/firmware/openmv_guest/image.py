"""Images for the rehearsal: a buffer of RGB565, and a list of what was drawn."""

RGB565 = "RGB565"
LOW_BYTE_FIRST = False  # firmwares differ
drawn = []
saved = []


class Frame(memoryview):
    """A view of memory outside of the heap, as a camera's frame buffer is."""

    def __init__(self, pixels, width, height):
        super().__init__(pixels)
        self.size = width, height

    def width(self):
        return self.size[0]

    def height(self):
        return self.size[1]

    def set_pixel(self, x, y, colour):
        red, green, blue = colour
        value = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3
        at = 2 * (y * self.size[0] + x)
        self[at + LOW_BYTE_FIRST], self[at + 1 - LOW_BYTE_FIRST] = value >> 8, value & 255

    def draw_rectangle(self, corners, color):
        drawn.append(corners)

    def draw_string(self, x, y, text, color):
        drawn.append((x, y, text))

    def save(self, path):
        saved.append(path)
        with open(path, "wb") as file:
            file.write(self)


def Image(width, height, layout):
    assert layout == RGB565
    return Frame(bytearray(2 * width * height), width, height)

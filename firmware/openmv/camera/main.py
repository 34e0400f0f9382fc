# Tessera on an OpenMV Cam: finds objects in what the camera sees, draws them, and says what it found, a line of JSON a picture.
# Needs tessera.mpy, model.tess and files.json beside it (export.py wrote them); model.tess may be in the ROMFS instead.

# ---- Settings ----
THRESHOLD = 0.3  # least score (0..1) of what is drawn, reported and acted upon
CLASSES = None  # names of the classes that count, such as ("face",); None: all of them
LED = "LED_GREEN"  # lights up while something is found; None: no LED
PIN = None  # goes high while something is found, such as "P0"; None: no pin
SAVE = None  # folder for pictures of what was found, such as "found"; None: no pictures
SAVE_EVERY_MS = 2000  # at most one picture in this time
LOG = "tessera.jsonl"  # file on the card that gets the lines of JSON as well; None: USB only
DRAW = True  # boxes, names and frames per second on the picture
SELFTEST = True  # at the start, run the model on its built-in picture and compare with what the compiler computed
EVALUATE = "pictures"  # folder with truth.csv: where it is there, score the model on it first; None: never
MAX_BOXES = 100  # most boxes of a picture
MAX_OBJECTS = 500  # most true objects of a picture, for EVALUATE
# ------------------

import gc
import json
import os
import struct
import sys
import time
from array import array
from binascii import crc32

ROM = "/rom/"
COLOUR = (0, 255, 0)


class Stop(Exception):
    """What ends the program, in one line for people."""


# ---- Files ----


def read_chunks(path):
    chunk = bytearray(1024)
    view = memoryview(chunk)
    with open(path, "rb") as file:
        while True:
            count = file.readinto(chunk)
            if not count:
                return
            yield view[:count]


def check_file(path, expected):
    """A card that was pulled out too early holds files that end too early."""
    size, checksum = expected
    found = os.stat(path)[6]
    again = "write romfs.img anew (mpremote romfs deploy)" if path.startswith(ROM) else "copy it again"
    if found != size:
        raise Stop("%s has %d bytes and should have %d: %s" % (path, found, size, again))
    value = 0
    for chunk in read_chunks(path):
        value = crc32(chunk, value)
    if value & 0xFFFFFFFF != checksum:
        raise Stop("%s is damaged: %s" % (path, again))


def exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def find_files():
    """Path of each file that export.py wrote, checked."""
    if not exists("files.json"):
        raise Stop("files.json is missing: copy everything that export.py wrote to the card")
    try:
        with open("files.json") as file:
            expected = json.load(file)
        paths = {name: ROM + name if exists(ROM + name) else name for name in expected}
    except (ValueError, AttributeError):
        raise Stop("files.json is damaged: copy it again")
    for name, path in paths.items():
        if not exists(path):
            raise Stop("%s is missing: copy it to the card" % name)
        check_file(path, expected[name])
    return paths


def import_tessera():
    try:
        import tessera
    except ValueError as error:  # MicroPython's word for an .mpy of another version or processor
        raise Stop("this firmware does not take tessera.mpy (%s): it needs one with MicroPython 1.23 or newer" % error)
    except MemoryError:
        raise Stop("no memory for tessera.mpy: no other script may run before main.py")
    return tessera


def load_model(path):
    """The model where it lies, if the file system can show it, else a copy in the heap."""
    with open(path, "rb") as file:
        try:
            return memoryview(file)
        except TypeError:
            pass
        size = os.stat(path)[6]
        try:
            return file.read(size)
        except MemoryError:
            raise Stop("the heap has no %d bytes in one piece for %s: put it into the ROMFS" % (size, path))


def open_detector(tessera, path):
    model = load_model(path)
    try:
        needed = tessera.needed(model)
        gc.collect()
        detector = tessera.Detector(model, bytearray(needed))
        if SELFTEST:
            detector.selftest()
    except ValueError as error:
        raise Stop("%s: %s" % (path, error.args[0]))
    except MemoryError:
        raise Stop("%s needs %d bytes of work memory in one piece, more than this board has free: export it for this "
                   "board, or with a smaller --sram" % (path, needed))  # fmt: skip
    return detector


# ---- Results ----


def reason(error):
    """Why nothing could be written. FAT says 13 where a folder has no place left."""
    reasons = {28: "the card is full", 13: "the card is full or locked", 30: "the card is locked"}
    return reasons.get(error.args[0], "error %s" % error.args[0])


class Log:
    """Lines of JSON to USB and to the card. A full card ends the file, not the program."""

    def __init__(self, path):
        self.file = None
        try:
            self.file = open(path, "a") if path else None
        except OSError as error:
            self.failed(path, error)
        self.path = path

    def write(self, record):
        line = json.dumps(record)
        print(line)
        if self.file is None:
            return
        try:
            self.file.write(line + "\n")
            self.file.flush()
        except OSError as error:
            self.file = None
            self.failed(self.path, error)

    def failed(self, path, error):
        print("warning: %s: %s; going on without it" % (path, reason(error)))


def unpack(boxes, count, classes):
    """(name, score, x1, y1, x2, y2) of each box that counts; corners in 1/16 pixel of the network's frame."""
    for i in range(count):
        x1, y1, x2, y2, score, label = struct.unpack_from("<hhhhHH", boxes, 12 * i)
        if score >= THRESHOLD * 32768 and (CLASSES is None or classes[label] in CLASSES):
            yield classes[label], score, x1, y1, x2, y2


def to_picture(found, width, height, content):
    """The same with the score in 0..1 and corners in pixels of the picture."""
    name, score, x1, y1, x2, y2 = found
    columns, rows = 16 * content[0], 16 * content[1]
    return name, score / 32768, x1 * width // columns, y1 * height // rows, x2 * width // columns, y2 * height // rows


# ---- Camera ----


def open_camera():
    """A function that takes a picture: `csi` since firmware 5, `sensor` before."""
    try:
        import csi

        camera = csi.CSI()
        camera.reset()
        camera.pixformat(csi.RGB565)
        camera.framesize(csi.QVGA)
        camera.snapshot(time=2000)  # the exposure settles
        return camera.snapshot
    except ImportError:
        pass
    import sensor

    sensor.reset()
    sensor.set_pixformat(sensor.RGB565)
    sensor.set_framesize(sensor.QVGA)
    sensor.skip_frames(time=2000)
    return sensor.snapshot


def picture_format(tessera):
    """Which byte of an RGB565 pixel comes first has changed between firmwares: paint one red and look."""
    import image

    probe = image.Image(8, 1, image.RGB565)
    for x in range(8):
        probe.set_pixel(x, 0, (255, 0, 0))
    return tessera.RGB565_BE if bytes(probe)[0] == 0xF8 else tessera.RGB565_LE


class Actions:
    """What happens when something is found."""

    def __init__(self):
        self.outputs = []
        if LED:
            from machine import LED as Led

            self.outputs.append(Led(LED))
        if PIN:
            from machine import Pin

            self.outputs.append(Pin(PIN, Pin.OUT))
        self.folder, self.number, self.saved = SAVE, 0, None
        if SAVE and not exists(SAVE):
            try:
                os.mkdir(SAVE)
            except OSError as error:
                self.give_up(error)

    def take(self, picture, found):
        for output in self.outputs:
            (output.on if found else output.off)()
        now = time.ticks_us()
        if self.folder and found and (self.saved is None or time.ticks_diff(now, self.saved) >= 1000 * SAVE_EVERY_MS):
            self.saved = now
            self.save(picture)

    def save(self, picture):
        while exists("%s/%05d.jpg" % (self.folder, self.number)):
            self.number += 1
        try:
            picture.save("%s/%05d.jpg" % (self.folder, self.number))
        except OSError as error:
            self.give_up(error)

    def give_up(self, error):
        print("warning: %s: %s; no pictures are saved" % (self.folder, reason(error)))
        self.folder = None


def draw(picture, found, rate):
    for name, score, x1, y1, x2, y2 in found:
        picture.draw_rectangle((x1, y1, x2 - x1, y2 - y1), color=COLOUR)
        picture.draw_string(x1, max(0, y1 - 10), "%s %d%%" % (name, 100 * score + 0.5), color=COLOUR)
    picture.draw_string(2, 2, rate, color=COLOUR)


def watch(tessera, detector, log):
    """Detect in what the camera sees, for ever."""
    classes = detector.info()[5]
    take_picture, layout = open_camera(), picture_format(tessera)
    actions, boxes = Actions(), bytearray(12 * MAX_BOXES)
    number, before = 0, time.ticks_us()
    while True:
        picture = take_picture()
        width, height = picture.width(), picture.height()
        start = time.ticks_us()
        count = detector.detect(picture, width, height, layout, boxes)
        latency = time.ticks_diff(time.ticks_us(), start)
        content = detector.content()
        found = [to_picture(one, width, height, content) for one in unpack(boxes, count, classes)]
        now = time.ticks_us()
        period, before, number = max(1, time.ticks_diff(now, before)), now, number + 1
        actions.take(picture, found)
        if DRAW:
            draw(picture, found, "%.1f fps, %d ms" % (1e6 / period, latency // 1000))
        log.write({"picture": number, "us": latency, "fps": 1e6 / period, "found": found})


# ---- Evaluation ----


class Bitmap:
    """A 16-bit .bmp (RGB565) on the card, a line at a time: the picture never is in memory as a whole."""

    def __init__(self, path):
        self.path = path
        self.file = open(path, "rb")
        head = self.file.read(70)
        if len(head) < 70 or head[:2] != b"BM":
            raise Stop("%s is no .bmp, or cut off" % path)
        self.start = struct.unpack_from("<I", head, 10)[0]
        self.width, height, _, bits, packing = struct.unpack_from("<iiHHI", head, 18)
        if bits != 16 or packing != 3 or struct.unpack_from("<III", head, 54) != (0xF800, 0x07E0, 0x001F):
            raise Stop("%s: only .bmp with 16 bits a pixel (5, 6, 5) are read" % path)
        self.height, self.top_down = abs(height), height < 0
        if not (0 < self.width <= 8192 and 0 < self.height <= 8192):
            raise Stop("%s: a picture of %d x %d is none for this camera" % (path, self.width, self.height))
        self.line = bytearray((2 * self.width + 3) // 4 * 4)
        self.at = None

    def read_line(self, y):
        if y != self.at:
            row = y if self.top_down else self.height - 1 - y
            self.file.seek(self.start + row * len(self.line))
            if self.file.readinto(self.line) != len(self.line):
                raise Stop("%s is cut off in line %d: copy it again" % (self.path, y))
            self.at = y
        return self.line

    def close(self):
        self.file.close()


def read_truth(path):
    """Line by line: name,width,height and, of an object, ,x1,y1,x2,y2,class,ignore in pixels of a picture of that size."""
    with open(path, "rb") as file:
        number = 0
        for line in file:
            number += 1
            try:
                cells = line.decode().strip().split(",")
                if len(cells) not in (3, 9):
                    raise ValueError
                size, corners = [int(cell) for cell in cells[1:3]], [int(16 * float(cell) + 0.5) for cell in cells[3:7]]
            except (ValueError, OverflowError):
                raise Stop("%s, line %d: expected name,width,height[,x1,y1,x2,y2,class,ignore]" % (path, number))
            yield cells[0], size, corners, cells[7:]


class Truth:
    """The objects of one picture, as the runtime takes them."""

    def __init__(self, classes):
        self.classes = classes
        self.records = array("i", [0] * (6 * MAX_OBJECTS))
        self.name, self.size, self.count = None, None, 0

    def begin(self, name, size):
        self.name, self.size, self.count = name, size, 0

    def add(self, corners, kind):
        if not corners:
            return
        name, ignore = kind
        if name not in self.classes:
            raise Stop("%s: the model knows no '%s', only %s" % (self.name, name, ", ".join(self.classes)))
        if self.count == MAX_OBJECTS:
            raise Stop("%s has more than %d objects: raise MAX_OBJECTS" % (self.name, MAX_OBJECTS))
        values = corners + [self.classes.index(name), int(ignore != "0")]
        for i, value in enumerate(values):
            self.records[6 * self.count + i] = value
        self.count += 1


class Evaluation:
    def __init__(self, tessera, detector, folder, log):
        self.tessera, self.detector, self.folder, self.log = tessera, detector, folder, log
        most = detector.info()[6]
        self.boxes = bytearray(12 * most)
        try:
            self.ap = tessera.AveragePrecision(detector, bytearray(detector.ap_needed(MAX_OBJECTS)))
        except ValueError as error:
            raise Stop("this model cannot be scored: %s" % error.args[0])
        self.pictures, self.us = 0, []  # latencies in microseconds

    def add(self, truth):
        """One picture with all its objects."""
        bitmap = Bitmap(self.folder + "/" + truth.name)
        try:
            start = time.ticks_us()
            count = self.detector.detect(
                bitmap.read_line, bitmap.width, bitmap.height, self.tessera.RGB565_LE, self.boxes
            )
            latency = time.ticks_diff(time.ticks_us(), start)
        finally:
            bitmap.close()
        try:
            self.ap.add(self.boxes, count, truth.records, truth.count, truth.size[0], truth.size[1])
        except ValueError as error:
            raise Stop("%s: its truth: %s" % (truth.name, error.args[0]))
        self.pictures += 1
        if len(self.us) < 1000:  # the heap is small
            self.us.append(latency)
        sum_of_boxes = crc32(memoryview(self.boxes)[: 12 * count]) & 0xFFFFFFFF
        self.log.write({"picture": truth.name, "us": latency, "boxes": count, "crc32": sum_of_boxes})

    def finish(self, classes):
        """The figure, and whether it is the one that the host found on the same files."""
        by_class = {name: self.ap.result(label) for label, name in enumerate(classes)}
        mean = self.ap.mean()
        result = {"pictures": self.pictures, "ap50_q30": mean, "by_class_q30": by_class}
        record = {"ap50": None if mean is None else mean / 2**30, "us_p50": self.middle(), "us_max": max(self.us or [0])}
        if exists(self.folder + "/expected.json"):
            record["equals_host"] = self.expected() == result
        record.update(result)
        self.log.write(record)

    def expected(self):
        path = self.folder + "/expected.json"
        try:
            with open(path) as file:
                return json.load(file)
        except ValueError:
            raise Stop("%s is damaged: copy it again" % path)

    def middle(self):
        return sorted(self.us)[len(self.us) // 2] if self.us else None


def evaluate(tessera, detector, folder, log):
    """Score the model on a folder of the card; a figure only when all of it could be read."""
    classes = detector.info()[5]
    evaluation, truth = Evaluation(tessera, detector, folder, log), Truth(classes)
    for name, size, corners, kind in read_truth(folder + "/truth.csv"):
        if name != truth.name:
            if truth.name is not None:
                evaluation.add(truth)
            truth.begin(name, size)
        truth.add(corners, kind)
    if truth.name is not None:
        evaluation.add(truth)
    evaluation.finish(classes)


# ---- Program ----


def main():
    paths = find_files()
    tessera = import_tessera()
    detector = open_detector(tessera, paths["model.tess"])
    log = Log(LOG)
    if EVALUATE and exists(EVALUATE + "/truth.csv"):
        evaluate(tessera, detector, EVALUATE, log)
    watch(tessera, detector, log)


if __name__ == "__main__":
    try:
        main()
    except Stop as stop:
        print("error: %s" % stop)
        sys.exit(1)
    except OSError as error:
        print("error: the card cannot be read (error %s)" % error.args[0])
        sys.exit(1)
    except RuntimeError as error:
        print("error: the camera does not work: %s" % error)
        sys.exit(1)
    except KeyboardInterrupt:
        pass

# What fuzz_openmv.c runs in MicroPython: each byte of `data` is a choice, of a call of the module or of an argument. Mostly
# something that is right, so that the calls get somewhere, at times anything.
import gc
from array import array

PROMISED = (TypeError, ValueError, RuntimeError, MemoryError, OverflowError, ZeroDivisionError, StopIteration)
WIDTH, HEIGHT = 12, 8
choices = iter(data)


def choose(count):
    return next(choices) % count


def number():
    return next(choices) | next(choices) << 8


class Odd:
    """An integer that does something when it is looked at."""

    def __init__(self, value, action):
        self.value, self.action = value, action

    def __int__(self):
        self.action()
        return self.value


def grow():
    """Work memory in the heap that moves."""
    heap[0].extend(bytes(number() % 4096))


heap = [bytearray(64)]  # may be resized; everything else must not be, Python itself does not stand it
models, detectors, figures = [model], [], []
boxes = outside(12 * 40)
truth = array("i", [0, 0, 60, 60, 0, 0] * 8)


def anything():
    return (
        None, 0, -1, 1, 65535, 65536, 1 << 31, 1 << 40, 1.5, "text", b"", bytes(33), (1, 2), anything, boxes, truth,
        models[-1], heap[0], memoryview(boxes)[1:], outside(number() % 5000), Odd(number(), grow), Odd(5, gc.collect),
        detectors[-1], figures[-1], tessera, type(detectors[-1]),
    )[choose(26)]  # fmt: skip


def maybe(right):
    return anything() if choose(16) == 0 else right()


def damaged():
    """A model with a few other bytes, its checksum wrong or mended."""
    made = bytearray(models[0])
    for _ in range(choose(4)):
        made[number() % len(made)] ^= 1 << choose(8)
    if choose(4):
        mend(made)
    return frozen(made)


def some_model():
    return models[choose(len(models))]


def work_memory(wanted):
    """The right size, one byte less, more; in the heap or not."""
    size = wanted + (0, 0, 0, -1, 1, 15, 100)[choose(7)]
    if choose(3):
        return memoryview(outside(size + 3))[choose(4) :] if choose(4) == 0 else outside(size)
    heap[0] = bytearray(size)
    return heap[0]


def lines(size):
    """A function that is asked for lines, and may do anything meanwhile."""
    wrong = choose(3 * HEIGHT)

    def line(y):
        if y == wrong:
            act = choose(7)
            if act == 0:
                return 1 // 0
            if act == 1:
                return bytes(size - 1)
            if act == 2:
                return None
            (grow, gc.collect, lambda: detectors[-1].selftest(), lambda: call_detect())[act - 3]()
        return outside(size) if choose(8) == 0 else bytes(size)

    return line


def call_needed():
    tessera.needed(maybe(some_model))


def call_detector():
    of = maybe(some_model)
    made = tessera.Detector(of, maybe(lambda: work_memory(tessera.needed(of))))
    detectors.append(made)


def call_detect():
    layout = maybe(lambda: choose(4))
    width, height = maybe(lambda: (WIDTH, 1, 40, 7)[choose(4)]), maybe(lambda: (HEIGHT, 1, 40, 9)[choose(4)])
    try:
        size = width * (3, 2, 2, 1)[layout]
        picture = maybe(lambda: lines(size) if choose(2) else outside(size * height))
    except (TypeError, IndexError, OverflowError):
        picture = anything()
    detectors[-1].detect(picture, width, height, layout, maybe(lambda: boxes))


def call_precision():
    of = maybe(lambda: detectors[-1])
    figures.append(tessera.AveragePrecision(of, maybe(lambda: work_memory(detectors[-1].ap_needed(choose(9))))))


def call_add():
    if choose(3) == 0:
        for _ in range(choose(5)):
            truth[choose(48)] = number() - 20000
    figures[-1].add(
        maybe(lambda: boxes), maybe(lambda: choose(45)), maybe(lambda: truth), maybe(lambda: choose(10)), maybe(lambda: WIDTH),
        maybe(lambda: HEIGHT),
    )  # fmt: skip


def call_wrongly():
    """A method of one type with an object of another."""
    kinds = type(detectors[-1]), type(figures[-1])
    method = (kinds[0].selftest, kinds[0].info, kinds[0].content, kinds[1].mean)[choose(4)]
    method(anything())


CALLS = (
    call_needed, call_detector, call_detect, call_detect, call_precision, call_add, call_add, call_wrongly, grow, gc.collect,
    lambda: models.append(damaged()) if len(models) < 4 else None, lambda: detectors[-1].selftest(), lambda: detectors[-1].info(),
    lambda: detectors[-1].content(), lambda: detectors[-1].ap_needed(anything()),
    lambda: figures[-1].result(maybe(lambda: choose(4))),
    lambda: figures[-1].mean(), lambda: detectors.pop() if len(detectors) > 1 else None,
    lambda: figures.pop() if len(figures) > 1 else None,
)  # fmt: skip


def main():
    detectors.append(tessera.Detector(model, outside(tessera.needed(model))))
    figures.append(tessera.AveragePrecision(detectors[0], outside(detectors[0].ap_needed(6))))
    try:
        for _ in range(200):
            try:
                CALLS[choose(len(CALLS))]()
            except StopIteration:
                raise
            except PROMISED:
                pass
    except StopIteration:
        pass
    except Exception as error:
        broken("%s: %s" % (type(error).__name__, error))
    try:
        detectors[0].selftest()  # its memory was never touched: it lives, whatever happened
    except Exception as error:
        broken("the first detector is dead: %s" % error)


main()

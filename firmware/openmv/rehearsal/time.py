"""The part of MicroPython's `time` that main.py uses; the QEMU port has none. Reads the board's 25 MHz timer."""

from machine import mem32

_TIMER0 = 0x40000000  # CMSDK timer: control, value (counts down), reload

mem32[_TIMER0 + 8] = mem32[_TIMER0 + 4] = 0xFFFFFFFF
mem32[_TIMER0] = 1


def ticks_us():
    return (0xFFFFFFFF - (mem32[_TIMER0 + 4] & 0xFFFFFFFF)) // 25 & 0x3FFFFFFF


def ticks_diff(later, earlier):
    return (later - earlier) & 0x3FFFFFFF

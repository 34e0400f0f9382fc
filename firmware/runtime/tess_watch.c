/*
 * See tess_watch.h.
 */
#include "tess_watch.h"

enum { GUARD_BYTE = 0xA7 };

static uint8_t painted(size_t at, uint32_t pattern) {
    return (uint8_t)(pattern >> 8 * (at & 3));
}

void tess_watch_paint(uint8_t *memory, size_t size, uint32_t pattern) {
    for (size_t i = 0; i < size; i++) {
        memory[i] = painted(i, pattern);
    }
    for (size_t i = 0; i < TESS_WATCH_GUARD; i++) {
        memory[size + i] = GUARD_BYTE;
        *(memory - 1 - i) = GUARD_BYTE;
    }
}

size_t tess_watch_touched(const uint8_t *memory, size_t size, uint32_t pattern) {
    while (size > 0 && memory[size - 1] == painted(size - 1, pattern)) {
        size--;
    }
    return size;
}

int tess_watch_broken(const uint8_t *memory, size_t size) {
    int broken = 0;
    for (size_t i = 0; i < TESS_WATCH_GUARD; i++) {
        broken |= memory[size + i] != GUARD_BYTE || *(memory - 1 - i) != GUARD_BYTE;
    }
    return broken;
}

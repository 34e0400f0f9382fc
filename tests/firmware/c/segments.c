/* Runs the loops of segments.c under sanitizers: numbers in by stdin, as tests/firmware/test_segments.py writes them, numbers out.
 * Every array is a block of exactly its size, so one number too many is seen. */
#include "segments.h"

#include <stdio.h>
#include <stdlib.h>

static void *blocks[32];
static int taken;

static int64_t *block(int64_t count)
{
    int64_t *found = malloc((size_t)count * sizeof(int64_t));
    if (found == NULL) {
        exit(2);
    }
    blocks[taken++] = found;
    return found;
}

static int64_t *numbers(int64_t count)
{
    int64_t *found = block(count);
    if (fread(found, sizeof(int64_t), (size_t)count, stdin) != (size_t)count) {
        exit(2);
    }
    return found;
}

int main(void)
{
    const int64_t *head = numbers(9); /* nodes, columns, modes, and of the flow: first, nodes, runs, push; taste, limit */
    const int64_t side = head[0] + 1, cells = head[2] * side * side;
    const int64_t *row_bytes = numbers(head[0]), *reader = numbers(head[0]), *widest = numbers(side * head[0] * head[1]);
    const int64_t *whole = numbers(side * side), *savable = numbers(side * side), *work = numbers(cells);
    int64_t *peak = numbers(cells), *likely = numbers(cells), *latched = numbers(cells);
    const int64_t *leaning = numbers(cells), *rings = numbers(4 * head[4]), *firsts = numbers(head[5]), *stops = numbers(head[5]);
    uint8_t *flags = calloc(2 * (size_t)cells, 1);
    const tables_t tables = {(int32_t)head[0], (int32_t)head[1], row_bytes, reader, widest, whole, savable, work,
                             peak, likely, latched, flags, flags + cells};
    segments_measure(&tables, rings, head[3], head[4], firsts, stops, (int32_t)head[5], (int32_t)head[6], block(side));
    for (int64_t i = 0; i < cells; i++) {
        printf("%lld %lld %lld ", (long long)peak[i], (long long)likely[i], (long long)latched[i]);
    }
    int32_t *path = malloc(3 * (size_t)side * sizeof(int32_t));
    const int32_t steps = segments_path((int32_t)head[0], (int32_t)head[2], work, peak, leaning, (int32_t)head[7], 1000, head[8],
                                        block(3 * side), path);
    for (int32_t i = 0; i < 3 * steps; i++) {
        printf("%d ", path[i]);
    }
    while (taken) {
        free(blocks[--taken]);
    }
    free(flags);
    free(path);
    return 0;
}

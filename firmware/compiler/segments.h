/* What segments.py calls in segments.c. */
#ifndef TESSERA_SEGMENTS_H
#define TESSERA_SEGMENTS_H

#include <stdint.h>

typedef struct {
    int32_t count;   /* nodes */
    int32_t columns; /* choices of how many strips, the first is one */
    const int64_t *row_bytes; /* [count] of one column */
    const int64_t *reader;    /* [count] last reader */
    const int64_t *widest;    /* [count + 1][count][columns] columns of a node's widest strip in runs up to a stop */
    const int64_t *whole;     /* [count + 1][count + 1] bytes that no mode can shrink */
    const int64_t *savable;   /* [count + 1][count + 1] the most that overlaps could save */
    const int64_t *work;      /* [modes][count + 1][count + 1] and so are the others */
    int64_t *peak;
    int64_t *likely;
    int64_t *latched;
    uint8_t *measured;
    uint8_t *settled;
} tables_t;

/* `steps` is count + 1 numbers. */
void segments_measure(const tables_t *tables, const int64_t *rings, int64_t first, int64_t nodes, const int64_t *firsts,
                      const int64_t *stops, int32_t runs, int32_t push, int64_t *steps);
int32_t segments_path(int32_t count, int32_t modes, const int64_t *work, const int64_t *peaks, const int64_t *leaning, int32_t taste,
                      int64_t most, int64_t limit, int64_t *least, int32_t *path);

#endif

/* The inner loops of the schedule search over its tables of segments (segments.py): what runs of nodes need, from the rows of one
 * flow, and the path of least price over cuts. For the machine that plans, not for chips.
 *
 * Tables are indexed by [mode][first][stop]; modes of as many strips come in pairs, pushed and pulled. */
#include "segments.h"

#include <string.h>

enum { CALM = 0, APART = 1 }; /* tastes; any other number is none */

static const int64_t NEVER = (int64_t)1 << 60; /* the peak and work of what cannot be, the price of what cannot be reached */
static const int64_t FINE = 1 << 20;           /* parts of one unit of work in which equals are told apart */

typedef struct {
    int64_t first; /* node */
    int64_t nodes;
    const int64_t *rows; /* [4][nodes] alive in a band, kept beyond it, made in it; and whether the ring can be latched */
} rings_t;

static int64_t aligned(int64_t size) {
    return (size + 3) & ~(int64_t)3;
}

/* Bytes alive at the worst step of nodes [first, stop) in one choice of columns, nothing overlapping. */
static int64_t worst(const tables_t *t, const rings_t *rings, int64_t first, int64_t stop, int32_t column, int latch, int64_t *steps) {
    const int64_t *rows = rings->rows, *kept = rows + rings->nodes, *fresh = kept + rings->nodes, *latches = fresh + rings->nodes;
    const int64_t *widest = t->widest + stop * t->count * t->columns + column;
    int64_t carried = 0, alive = 0, most = 0;
    memset(steps + first, 0, (size_t)(stop - first + 1) * sizeof *steps);
    if (first == 0) { /* the letterbox */
        steps[0] += 4 * t->row_bytes[0] * widest[0];
        steps[1] -= 4 * t->row_bytes[0] * widest[0];
    }
    for (int64_t i = first; i < stop; i++) {
        if (t->reader[i] < stop) {
            const int64_t n = i - rings->first, row = t->row_bytes[i] * widest[i * t->columns];
            const int split = latch && latches[n];
            const int64_t passing = aligned((split ? fresh[n] : kept[n] == 0 ? rows[n] : 0) * row);
            carried += aligned((split ? kept[n] : kept[n] > 0 ? rows[n] : 0) * row);
            steps[i] += passing;
            steps[t->reader[i] + 1] -= passing;
        }
        alive += steps[i];
        most = alive > most ? alive : most;
    }
    return t->whole[first * (t->count + 1) + stop] + carried + most;
}

/* Peaks of runs that one flow serves. Where tensors may overlap, the most that this could save is taken off, and what is left is
 * a bound. */
void segments_measure(const tables_t *tables, const int64_t *rings, int64_t first, int64_t nodes, const int64_t *firsts,
                      const int64_t *stops, int32_t runs, int32_t push, int64_t *steps) {
    const rings_t flow = {first, nodes, rings};
    const int64_t side = tables->count + 1;
    int latches = 0;
    for (int64_t n = 0; n < nodes; n++) {
        latches |= rings[3 * nodes + n] != 0;
    }
    for (int32_t r = 0; r < runs; r++) {
        for (int32_t c = 0; c < tables->columns; c++) {
            const int64_t run = firsts[r] * side + stops[r], at = (2 * c + !push) * side * side + run;
            tables->measured[at] = 1;
            if (tables->work[at] == NEVER) {
                continue;
            }
            const int64_t plain = worst(tables, &flow, firsts[r], stops[r], c, 0, steps);
            const int64_t split = latches ? worst(tables, &flow, firsts[r], stops[r], c, 1, steps) : plain;
            const int64_t peak = split < plain ? split : plain, savable = c == 0 ? tables->savable[run] : 0;
            tables->peak[at] = peak - savable;
            tables->likely[at] = peak - savable / 2;
            tables->latched[at] = plain - peak;
            tables->settled[at] = savable == 0;
        }
    }
}

/* What tells a step of `nodes` nodes from others of equal work. */
static int64_t nicety(int32_t taste, int64_t peak, int64_t leaning, int64_t nodes, int64_t most) {
    switch (taste) {
    case CALM: /* bytes by nodes, as a share of the most that there could be */
        return peak * nodes * (FINE / 4) / most;
    case APART: /* bytes that overlaps save, likewise; and no segment too long */
        return leaning * (FINE / 4) / most + nodes * nodes / 16;
    default:
        return 0;
    }
}

/* The path of least price from cut 0 to cut `count` by steps that need at most `limit` bytes, as (mode, first, stop) from its end
 * on; of equals, that of the earliest cuts and modes. Returns how many, 0 where there is none. `least` is 3 * (count + 1) numbers. */
int32_t segments_path(int32_t count, int32_t modes, const int64_t *work, const int64_t *peaks, const int64_t *leaning, int32_t taste,
                      int64_t most, int64_t limit, int64_t *least, int32_t *path) {
    const int64_t side = count + 1;
    int64_t *from = least + side, *by = from + side;
    for (int32_t stop = 0; stop <= count; stop++) {
        least[stop] = stop ? NEVER : 0;
    }
    for (int32_t first = 0; first < count; first++) {
        for (int32_t mode = 0; mode < modes && least[first] < NEVER; mode++) {
            const int64_t row = (mode * side + first) * side;
            for (int32_t stop = first + 1; stop <= count; stop++) {
                const int64_t at = row + stop, nodes = stop - first;
                if (peaks[at] > limit || least[first] + work[at] * FINE + 1 >= least[stop]) {
                    continue;
                }
                const int64_t price = work[at] * FINE + 1 + nicety(taste, peaks[at], leaning[at], nodes, most);
                if (least[first] + price < least[stop]) {
                    least[stop] = least[first] + price;
                    from[stop] = first;
                    by[stop] = mode;
                }
            }
        }
    }
    int32_t found = 0;
    for (int64_t stop = count; stop && least[count] < NEVER; stop = from[stop], found++) {
        path[3 * found] = (int32_t)by[stop];
        path[3 * found + 1] = (int32_t)from[stop];
        path[3 * found + 2] = (int32_t)stop;
    }
    return found;
}

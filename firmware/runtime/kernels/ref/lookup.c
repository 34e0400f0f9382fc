/*
 * A function of each value alone, as a table.
 */
#include "../kernels.h"

void tess_lookup_row(const tess_lookup_t *p, const int8_t *in, int32_t x0, int32_t x1, int8_t *out) {
    int32_t n = (x1 - x0) * p->c;
    for (int32_t i = 0; i < n; i++) {
        out[i] = p->table[in[i] + 128];
    }
}

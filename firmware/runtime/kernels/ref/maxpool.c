/*
 * Maximum over a window, reference. Padding does not take part.
 */
#include <string.h>

#include "../kernels.h"

static void raise_to(int8_t *out, const int8_t *in, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        out[i] = in[i] > out[i] ? in[i] : out[i];
    }
}

static void clamp(int8_t *out, int32_t n, int32_t low, int32_t high) {
    for (int32_t i = 0; i < n; i++) {
        int32_t q = out[i] < low ? low : out[i];
        out[i] = (int8_t)(q > high ? high : q);
    }
}

void tess_maxpool_row(const tess_maxpool_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x0, int32_t x1,
        int8_t *out) {
    memset(out, -128, (size_t)(x1 - x0) * (size_t)p->c);
    for (int32_t x = x0; x < x1; x++) {
        int32_t left = x * p->stride_w - p->pad_left;
        int32_t k0 = left < 0 ? -left : 0;
        int32_t k1 = left + p->kernel_w > p->in_w ? p->in_w - left : p->kernel_w;
        for (int32_t ky = 0; ky < p->kernel_h; ky++) {
            for (int32_t kx = k0; rows[ky] && kx < k1; kx++) {
                raise_to(out, rows[ky] + (left + kx - in_col0) * p->c, p->c);
            }
        }
        clamp(out, p->c, p->low, p->high);
        out += p->c;
    }
}

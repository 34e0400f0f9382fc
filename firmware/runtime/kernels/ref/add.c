/*
 * Elementwise sum of two tensors with their own scales, reference. `out` may be `a` or `b`.
 */
#include "../kernels.h"

void tess_add_row(const tess_add_t *p, const int8_t *a, const int8_t *b, int32_t x0, int32_t x1, int8_t *out) {
    int32_t n = (x1 - x0) * p->c;
    int32_t one = 1 << p->left_shift;
    for (int32_t i = 0; i < n; i++) {
        int32_t scaled_a = tess_multiply((a[i] - p->zero_point_a) * one, p->multiplier_a, p->shift_a);
        int32_t scaled_b = tess_multiply((b[i] - p->zero_point_b) * one, p->multiplier_b, p->shift_b);
        out[i] = tess_requantize(tess_wrapping_add(scaled_a, scaled_b), p->multiplier_out, p->shift_out, &p->quant);
    }
}

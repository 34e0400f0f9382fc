/*
 * Sum, difference or product of two tensors with their own scales and shapes, reference.
 */
#include "../kernels.h"

static int8_t answer(const tess_pair_t *p, int32_t a, int32_t b) {
    const tess_add_t *k = &p->add;
    a -= k->zero_point_a;
    b -= k->zero_point_b;
    if (p->function == TESS_PAIR_MUL) {
        return tess_requantize(a * b, k->multiplier_a, k->shift_a, &k->quant);
    }
    int32_t one = 1 << k->left_shift;
    int32_t scaled_a = tess_multiply(a * one, k->multiplier_a, k->shift_a);
    int32_t scaled_b = tess_multiply(b * one, k->multiplier_b, k->shift_b);
    // modulo 2^32, also the change of sign
    uint32_t signed_b = p->function == TESS_PAIR_SUB ? 0u - (uint32_t)scaled_b : (uint32_t)scaled_b;
    return tess_requantize(tess_wrapping_add(scaled_a, (int32_t)signed_b), k->multiplier_out, k->shift_out, &k->quant);
}

void tess_pair_row(const tess_pair_t *p, const int8_t *a, const int8_t *b, int32_t x0, int32_t x1, int8_t *out) {
    for (int32_t x = x0; x < x1; x++) {
        for (int32_t c = 0; c < p->add.c; c++) {
            *out++ = answer(p, a[c * p->a_channel], b[c * p->b_channel]);
        }
        a += p->a_pixel;
        b += p->b_pixel;
    }
}

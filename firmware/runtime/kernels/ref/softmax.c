/*
 * Softmax in fixed point, reference: exponentials from a table, one division a pixel by Newton and Raphson.
 */
#include "../kernels.h"

static int32_t shift_left(int32_t x, int32_t bits) {
    int64_t wide = (int64_t)x * (1 << bits);
    return (int32_t)(wide > INT32_MAX ? INT32_MAX : wide < INT32_MIN ? INT32_MIN : wide);
}

// a * b / 2^31; never both are INT32_MIN here
static int32_t product(int32_t a, int32_t b) {
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 30)) >> 31);
}

// 1 / (1 + a) for a in [0, 1), Q31
static int32_t one_over_one_plus(int32_t a) {
    int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
    int32_t x = INT32_C(1515870810) + product(half, -INT32_C(1010580540)); // 48/17 - 32/17 * half, Q29
    for (int i = 0; i < 3; i++) {
        int32_t missing = (1 << 29) - product(half, x);
        x += shift_left(product(x, missing), 2);
    }
    return shift_left(x, 1);
}

// exp(q - top); out may lie over in, in a damaged file anywhere, so q can have become larger than top
static int32_t power(const tess_softmax_t *p, int32_t q, int32_t top) {
    return p->table[q < top ? q - top + 255 : 255];
}

static void pixel(const tess_softmax_t *p, const int8_t *in, int8_t *out) {
    int32_t top = -128, sum = 0, bits = 0;
    for (int32_t c = 0; c < p->c; c++) {
        top = in[c] > top ? in[c] : top;
    }
    for (int32_t c = 0; c < p->c; c++) {
        sum += tess_divide_by_pot(power(p, in[c], top), 12);
    }
    // sum = 2^bits * (1 + rest), rest in [0, 1)
    while (bits < 30 && sum >> (bits + 1)) {
        bits++;
    }
    int32_t scale = one_over_one_plus((int32_t)(((uint32_t)sum << (31 - bits)) - (UINT32_C(1) << 31)));
    int32_t shift = bits + 4 < 31 ? bits + 4 : 31;
    for (int32_t c = 0; c < p->c; c++) {
        int32_t q = tess_divide_by_pot(product(scale, power(p, in[c], top)), shift) - 128;
        out[c] = (int8_t)(q > 127 ? 127 : q);
    }
}

void tess_softmax_row(const tess_softmax_t *p, const int8_t *in, int32_t x0, int32_t x1, int8_t *out) {
    for (int32_t x = x0; x < x1; x++) {
        pixel(p, in, out);
        in += p->c;
        out += p->c;
    }
}

/*
 * From an int32 accumulator to int8, with the two roundings of TFLite's reference kernels. Every kernel folder uses these.
 */
#ifndef TESS_REQUANTIZE_H
#define TESS_REQUANTIZE_H

#include <stdint.h>

// How an accumulator becomes an int8. Limits are those of the clamp minus the zero point, so that clamping comes first and
// nothing can overflow.
typedef struct tess_quant {
    int32_t zero_point;
    int32_t low, high;      // clamp - zero_point
} tess_quant_t;

// a * multiplier / 2^31, halves rounded up. multiplier >= 0, so that the product of two minima cannot come up.
// The same as gemmlowp's nudge and truncating division. >> of a negative number is arithmetic in gcc and clang.
static inline int32_t tess_doubling_high_mul(int32_t a, int32_t multiplier) {
    return (int32_t)(((int64_t)a * multiplier + (INT64_C(1) << 30)) >> 31);
}

// x / 2^exponent, rounded half away from zero. exponent 0..31.
static inline int32_t tess_divide_by_pot(int32_t x, int32_t exponent) {
    int32_t mask = (int32_t)((UINT32_C(1) << exponent) - 1);
    int32_t remainder = x & mask;
    int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + (remainder > threshold ? 1 : 0);
}

// x * multiplier / 2^31 * 2^shift. multiplier Q31 >= 0, shift -31..30, positive = left.
static inline int32_t tess_multiply(int32_t x, int32_t multiplier, int32_t shift) {
    int32_t left = shift > 0 ? shift : 0;
    int32_t right = shift > 0 ? 0 : -shift;
    return tess_divide_by_pot(tess_doubling_high_mul((int32_t)((uint32_t)x << left), multiplier), right);
}

static inline int8_t tess_saturate(int32_t x, const tess_quant_t *quant) {
    x = x < quant->low ? quant->low : x;
    x = x > quant->high ? quant->high : x;
    return (int8_t)(x + quant->zero_point);
}

static inline int8_t tess_requantize(int32_t acc, int32_t multiplier, int32_t shift, const tess_quant_t *quant) {
    return tess_saturate(tess_multiply(acc, multiplier, shift), quant);
}

// a + b modulo 2^32: a bias near the limits of int32 wraps instead of being undefined.
static inline int32_t tess_wrapping_add(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

#endif

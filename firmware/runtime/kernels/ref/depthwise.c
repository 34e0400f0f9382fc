/*
 * Depthwise convolution, reference. Channels are innermost, in blocks whose accumulators fit a small array, so that a
 * compiler can use vectors. A channel multiplier above 1 takes a plain loop.
 */
#include "../kernels.h"

enum { BLOCK = 32 };

// the part of the kernel's columns that lies inside of the picture
static void clip(const tess_conv_t *p, int32_t left, int32_t *k0, int32_t *k1) {
    *k0 = left < 0 ? -left : 0;
    *k1 = left + p->kernel_w > p->in_w ? p->in_w - left : p->kernel_w;
}

// channels [o, o + n) of one pixel, n <= BLOCK
static void block(const tess_conv_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x, int32_t o, int32_t n,
        int8_t *out) {
    int32_t left = x * p->stride_w - p->pad_left;
    int32_t k0, k1;
    clip(p, left, &k0, &k1);
    int32_t acc[BLOCK] = {0};
    int16_t zero_point = (int16_t)p->zero_point;

    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        if (!rows[ky]) {
            continue;
        }
        for (int32_t kx = k0; kx < k1; kx++) {
            const int8_t *in = rows[ky] + (left + kx - in_col0) * p->in_c + o;
            const int8_t *weights = p->weights + (ky * p->kernel_w + kx) * p->out_c + o;
            for (int32_t i = 0; i < n; i++) {
                acc[i] += (int16_t)(in[i] - zero_point) * weights[i];
            }
        }
    }
    for (int32_t i = 0; i < n; i++) {
        out[i] = tess_requantize(tess_wrapping_add(p->bias[o + i], acc[i]), p->multiplier[o + i], p->shift[o + i],
            &p->quant);
    }
}

// one pixel where an input channel feeds several output channels
static void spread(const tess_conv_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x, int8_t *out) {
    int32_t left = x * p->stride_w - p->pad_left;
    int32_t k0, k1;
    clip(p, left, &k0, &k1);

    for (int32_t o = 0; o < p->out_c; o++) {
        int32_t acc = 0;
        for (int32_t ky = 0; ky < p->kernel_h; ky++) {
            for (int32_t kx = k0; rows[ky] && kx < k1; kx++) {
                int32_t q = rows[ky][(left + kx - in_col0) * p->in_c + o / p->channel_multiplier];
                acc += (q - p->zero_point) * p->weights[(ky * p->kernel_w + kx) * p->out_c + o];
            }
        }
        out[o] = tess_requantize(tess_wrapping_add(p->bias[o], acc), p->multiplier[o], p->shift[o], &p->quant);
    }
}

void tess_depthwise_row(const tess_conv_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x0, int32_t x1,
        int8_t *out) {
    for (int32_t x = x0; x < x1; x++) {
        if (p->channel_multiplier != 1) {
            spread(p, rows, in_col0, x, out);
        } else {
            for (int32_t o = 0; o < p->out_c; o += BLOCK) {
                block(p, rows, in_col0, x, o, p->out_c - o < BLOCK ? p->out_c - o : BLOCK, out + o);
            }
        }
        out += p->out_c;
    }
}

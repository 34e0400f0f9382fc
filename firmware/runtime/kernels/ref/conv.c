/*
 * Convolution, reference. Weights of one output channel stay in reach while it walks along the row; a window's row is one
 * contiguous dot product of kernel_w * in_c values. sum((q - z) * w) = sum(q * w) - z * sum(w), and sum(w) is the same for
 * all pixels whose window is not clipped left or right. tess_open limits a window to 65536 values, so sums fit int32.
 */
#include "../kernels.h"

static int32_t dot(const int8_t *a, const int8_t *b, int32_t n) {
    int32_t acc = 0;
    for (int32_t i = 0; i < n; i++) {
        acc += a[i] * b[i];
    }
    return acc;
}

static int32_t sum(const int8_t *a, int32_t n) {
    int32_t acc = 0;
    for (int32_t i = 0; i < n; i++) {
        acc += a[i];
    }
    return acc;
}

// sum of weights of kernel columns [k0, k1) over the kernel rows inside of the picture
static int32_t window_sum(const tess_conv_t *p, const int8_t *const *rows, const int8_t *weights, int32_t k0, int32_t k1) {
    int32_t row_size = p->kernel_w * p->in_c;
    int32_t acc = 0;
    for (int32_t k = 0; k < p->kernel_h; k++) {
        if (rows[k]) {
            acc += sum(weights + k * row_size + k0 * p->in_c, (k1 - k0) * p->in_c);
        }
    }
    return acc;
}

// one output channel of a 1x1 convolution
static void pointwise_channel(const tess_conv_t *p, const int8_t *row, int32_t o, int32_t in_col0, int32_t x0, int32_t x1,
        int8_t *out) {
    const int8_t *weights = p->weights + o * p->in_c;
    int32_t base = tess_wrapping_add(p->bias[o], -p->zero_point * sum(weights, p->in_c));
    const int8_t *in = row + (x0 * p->stride_w - in_col0) * p->in_c;
    for (int32_t x = x0; x < x1; x++) {
        int32_t acc = tess_wrapping_add(base, dot(in, weights, p->in_c));
        *out = tess_requantize(acc, p->multiplier[o], p->shift[o], &p->quant);
        in += p->stride_w * p->in_c;
        out += p->out_c;
    }
}

static void channel(const tess_conv_t *p, const int8_t *const *rows, int32_t o, int32_t in_col0, int32_t x0, int32_t x1,
        int8_t *out) {
    int32_t row_size = p->kernel_w * p->in_c;
    const int8_t *weights = p->weights + o * p->kernel_h * row_size;
    int32_t whole_sum = window_sum(p, rows, weights, 0, p->kernel_w);

    for (int32_t x = x0; x < x1; x++) {
        int32_t left = x * p->stride_w - p->pad_left;
        int32_t k0 = left < 0 ? -left : 0;
        int32_t k1 = left + p->kernel_w > p->in_w ? p->in_w - left : p->kernel_w;
        int32_t weight_sum = k1 - k0 == p->kernel_w ? whole_sum : window_sum(p, rows, weights, k0, k1);
        int32_t acc = 0;
        for (int32_t k = 0; k < p->kernel_h; k++) {
            if (rows[k]) {
                acc += dot(rows[k] + (left + k0 - in_col0) * p->in_c, weights + k * row_size + k0 * p->in_c,
                    (k1 - k0) * p->in_c);
            }
        }
        acc = tess_wrapping_add(p->bias[o], acc - p->zero_point * weight_sum);
        *out = tess_requantize(acc, p->multiplier[o], p->shift[o], &p->quant);
        out += p->out_c;
    }
}

void tess_conv_row(const tess_conv_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x0, int32_t x1, int8_t *out) {
    int pointwise = p->kernel_h == 1 && p->kernel_w == 1;
    for (int32_t o = 0; o < p->out_c; o++) {
        if (pointwise) {
            pointwise_channel(p, rows[0], o, in_col0, x0, x1, out + o);
        } else {
            channel(p, rows, o, in_col0, x0, x1, out + o);
        }
    }
}

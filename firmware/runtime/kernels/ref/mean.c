/*
 * Mean over rows, columns and channels, reference. At most 2^22 values, so that sums fit int32.
 */
#include "../kernels.h"

static int8_t mean(const tess_mean_t *p, const int8_t *in) {
    int32_t sum = -p->rows * p->cols * p->channels * p->zero_point;
    for (int32_t y = 0; y < p->rows; y++) {
        for (int32_t x = 0; x < p->cols; x++) {
            for (int32_t c = 0; c < p->channels; c++) {
                sum += in[y * p->row_size + x * p->c + c];
            }
        }
    }
    return tess_requantize(sum, p->multiplier, p->shift, &p->quant);
}

void tess_mean_row(const tess_mean_t *p, const int8_t *in, int32_t x0, int32_t x1, int8_t *out) {
    int32_t n = (x1 - x0) * (p->c / p->channels);
    for (int32_t i = 0; i < n; i++) {
        out[i] = mean(p, in + i * p->channels);
    }
}

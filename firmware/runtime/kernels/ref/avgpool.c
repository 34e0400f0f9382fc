/*
 * Average over a window, reference. Padding does not take part; halves are rounded away from zero.
 */
#include "../kernels.h"

static int8_t average(int32_t sum, int32_t count, const tess_avgpool_t *p) {
    int32_t q = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
    q = q < p->low ? p->low : q;
    return (int8_t)(q > p->high ? p->high : q);
}

void tess_avgpool_row(const tess_avgpool_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x0, int32_t x1,
        int8_t *out) {
    for (int32_t x = x0; x < x1; x++) {
        int32_t left = x * p->stride_w - p->pad_left;
        int32_t k0 = left < 0 ? -left : 0;
        int32_t k1 = left + p->kernel_w > p->in_w ? p->in_w - left : p->kernel_w;
        for (int32_t c = 0; c < p->c; c++) {
            int32_t sum = 0, count = 0;
            for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                for (int32_t kx = k0; rows[ky] && kx < k1; kx++) {
                    sum += rows[ky][(left + kx - in_col0) * p->c + c];
                    count++;
                }
            }
            *out++ = average(sum, count, p);
        }
    }
}

/*
 * The self-test: a picture of random bytes that needs no storage, and a checksum over all outputs that does not depend on
 * the order in which rows come. SPEC.md, "Self-test".
 */
#include "tess_format.h"

static int random_row(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels) {
    const struct tess_header *h = ctx;
    uint32_t x = (h->selftest_seed + y * UINT32_C(0x9E3779B9)) | 1;
    uint32_t first = (uint32_t)col0 * h->input_c, stop = (uint32_t)col1 * h->input_c;
    for (uint32_t n = 0; n < stop; n++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        if (n >= first) {
            *pixels++ = (uint8_t)(x >> 24);
        }
    }
    return 0;
}

uint32_t tess_sum(uint16_t output, uint32_t first, const int8_t *data, uint32_t count) {
    uint32_t n = first + output * UINT32_C(0x01000193), sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += ((uint32_t)(data[i] + 128) + 1) * (((n + i) * UINT32_C(2654435761)) | 1);
    }
    return sum;
}

typedef struct tess_total {
    const tess_t *t;
    uint32_t sum;
} tess_total_t;

static int add_row(void *ctx, uint16_t output, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *data) {
    tess_total_t *total = ctx;
    const struct tess_node *node = &total->t->nodes[total->t->outputs[output].node];
    total->sum += tess_sum(output, ((uint32_t)y * node->w + col0) * node->c, data, (uint32_t)(col1 - col0) * node->c);
    return 0;
}

int tess_checksum(tess_t *t, const tess_source_t *source, uint32_t *sum) {
    tess_total_t total = {t, 0};
    tess_sink_t callers = t->sink;
    t->sink.rows = add_row;
    t->sink.ctx = &total;
    int err = tess_run(t, source);
    t->sink = callers;
    t->n_candidates = 0;
    if (!err && sum) {
        *sum = total.sum;
    }
    return err;
}

int tess_selftest(tess_t *t) {
    // the context is only read
    tess_source_t source = {random_row, (void *)(uintptr_t)t->model};
    uint32_t sum = 0;
    int err = tess_checksum(t, &source, &sum);
    if (err) {
        return err;
    }
    return sum == tess_header(t)->selftest_checksum ? TESS_OK : TESS_ERR_SELFTEST;
}

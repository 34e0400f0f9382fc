/*
 * Which input rows output rows need, SPEC.md section 1. Rows and columns alike. Private to loader and executor.
 */
#ifndef TESS_AXIS_H
#define TESS_AXIS_H

#include "tess_format.h"

// One axis of a node and of its inputs.
typedef struct tess_axis {
    int32_t in, out;                // sizes
    int32_t kernel, stride, pad;
    int32_t factor;                 // of a resize, else 0
} tess_axis_t;

static inline tess_axis_t tess_axis_rows(const struct tess_node *node, const struct tess_node *input) {
    tess_axis_t a = {input->h, node->h, node->kernel_h, node->stride_h, node->pad_top, 0};
    a.factor = node->kind == TESS_RESIZE ? node->stride_h : 0;
    return a;
}

static inline tess_axis_t tess_axis_cols(const struct tess_node *node, const struct tess_node *input) {
    tess_axis_t a = {input->w, node->w, node->kernel_w, node->stride_w, node->pad_left, 0};
    a.factor = node->kind == TESS_RESIZE ? node->stride_w : 0;
    return a;
}

// First input row that output row lo needs.
static inline int32_t tess_in_lo(const tess_axis_t *a, int32_t lo) {
    if (a->factor) {
        return lo / a->factor;
    }
    int32_t first = lo * a->stride - a->pad;
    return first < 0 ? 0 : first;
}

// Number of leading input rows that the first hi output rows need; 0 needs nothing.
static inline int32_t tess_in_hi(const tess_axis_t *a, int32_t hi) {
    if (hi == 0) {
        return 0;
    }
    if (a->factor) {
        return (hi - 1) / a->factor + 1;
    }
    int32_t stop = (hi - 1) * a->stride - a->pad + a->kernel;
    return stop < a->in ? stop : a->in;
}

// Number of leading output rows that the first n input rows suffice for.
static inline int32_t tess_computable(const tess_axis_t *a, int32_t n) {
    if (n == a->in) {
        return a->out;
    }
    if (a->factor) {
        return n * a->factor;
    }
    int32_t spare = n + a->pad - a->kernel;
    int32_t rows = spare < 0 ? 0 : spare / a->stride + 1;
    return rows < a->out ? rows : a->out;
}

#endif

/*
 * Which input rows output rows need, SPEC.md section 1. Rows and columns alike. Private to loader and executor.
 */
#ifndef TESS_AXIS_H
#define TESS_AXIS_H

#include "tess_format.h"

// One axis of a node and of one of its inputs. Output o reads [o * stride - pad, o * stride - pad + kernel), or o / factor;
// with a stride of 0 it reads everything.
typedef struct tess_axis {
    int32_t in, out;                // sizes
    int32_t kernel, stride, pad;
    int32_t factor;                 // of a resize, else 0
} tess_axis_t;

// The axis of sizes in and out whose other numbers are the node's. Most kinds read one position where the sizes are equal,
// and everything where they differ (a mean, a broadcast input). `whole` says that everything is read all the same.
static inline tess_axis_t tess_axis(const struct tess_node *node, int32_t in, int32_t out, uint8_t kernel, uint8_t stride,
        int32_t pad, int whole) {
    tess_axis_t a = {in, out, 1, 1, 0, 0};
    switch (node->kind) {
    case TESS_CONV:
    case TESS_DEPTHWISE:
    case TESS_MAXPOOL:
    case TESS_AVGPOOL:
        a.kernel = kernel;
        a.stride = stride;
        a.pad = pad;
        break;
    case TESS_RESIZE:
        a.factor = stride;
        break;
    case TESS_PAD:
    case TESS_SLICE:
    case TESS_CONCAT:
        a.pad = pad;
        break;
    default:
        if (in != out || whole) {
            a.kernel = in;
            a.stride = 0;
        }
        break;
    }
    return a;
}

// Rows (dim 0) or columns (dim 1) of node towards its input j.
static inline tess_axis_t tess_axis_of(const struct tess_node *nodes, const struct tess_node *node, int j, int dim) {
    const struct tess_node *input = &nodes[node->inputs[j]];
    int32_t pad = dim ? node->pad_left : node->pad_top;
    int whole = node->kind == TESS_RESHAPE || (node->kind == TESS_TRANSPOSE && node->start[dim] != dim);
    if (node->kind == TESS_SLICE) {
        pad = -(int32_t)node->start[dim];
    } else if (node->kind == TESS_CONCAT && node->start[dim]) {
        for (pad = 0; j > 0; j--) {
            const struct tess_node *before = &nodes[node->inputs[j - 1]];
            pad += dim ? before->w : before->h;
        }
    }
    return dim ? tess_axis(node, input->w, node->w, node->kernel_w, node->stride_w, pad, whole)
               : tess_axis(node, input->h, node->h, node->kernel_h, node->stride_h, pad, whole);
}

static inline int32_t tess_clip(int32_t x, int32_t high) {
    return x < 0 ? 0 : x < high ? x : high;
}

// First input row that output row lo needs.
static inline int32_t tess_in_lo(const tess_axis_t *a, int32_t lo) {
    return a->factor ? lo / a->factor : tess_clip(lo * a->stride - a->pad, a->in);
}

// Number of leading input rows that the first hi output rows need; 0 needs nothing.
static inline int32_t tess_in_hi(const tess_axis_t *a, int32_t hi) {
    if (hi == 0) {
        return 0;
    }
    return a->factor ? (hi - 1) / a->factor + 1 : tess_clip((hi - 1) * a->stride - a->pad + a->kernel, a->in);
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
    return a->stride == 0 || spare < 0 ? 0 : tess_clip(spare / a->stride + 1, a->out);
}

#endif

/*
 * The kernel contract. A kernel computes columns [x0, x1) of ONE output row from pointers to input rows, so that whole
 * tensors, rolling buffers and strips are one case. Each folder beside this header implements all functions with these
 * signatures; a build takes one folder. Bytes must equal those of ref/.
 *
 * Rows: `rows[k]` points at column `in_col0` of the input row that kernel row k reads, NULL where that row lies outside of
 * the picture (top and bottom padding). Kernels clip columns themselves: input columns outside of [0, in_w) are padding and
 * are never read. The caller promises that every other column that [x0, x1) needs is there, that x0 < x1, that each window
 * touches the picture, and that `out` (column x0) does not overlap the input rows, except for tess_add_row, where it may be
 * one of them. (In a hostile file buffers can overlap all the same: numbers are then wrong, which is fine, but a kernel must
 * not rely on it with restrict or memcpy.)
 *
 * Padding counts as the zero point for convolutions, as "nothing" for the maximum. Nothing is checked: tess_open did.
 */
#ifndef TESS_KERNELS_H
#define TESS_KERNELS_H

#include <stdint.h>

#include "tess_requantize.h"

// Convolution and depthwise convolution.
typedef struct tess_conv {
    const int8_t *weights;          // conv (out_c, kernel_h, kernel_w, in_c), depthwise (kernel_h, kernel_w, out_c)
    const int32_t *bias;            // (out_c)
    const int32_t *multiplier;      // (out_c) Q31, >= 0
    const int8_t *shift;            // (out_c) -31..30, positive = left
    int32_t in_w, in_c, out_c;
    int32_t kernel_h, kernel_w;
    int32_t stride_w, pad_left;
    int32_t zero_point;             // of the input
    int32_t channel_multiplier;     // depthwise: output channel o reads input channel o / channel_multiplier
    tess_quant_t quant;
} tess_conv_t;

typedef struct tess_add {
    int32_t zero_point_a, zero_point_b;
    int32_t multiplier_a, shift_a;
    int32_t multiplier_b, shift_b;
    int32_t multiplier_out, shift_out;
    int32_t left_shift;             // 0..22
    int32_t c;
    tess_quant_t quant;
} tess_add_t;

typedef struct tess_maxpool {
    int32_t in_w, c;
    int32_t kernel_h, kernel_w;
    int32_t stride_w, pad_left;
    int32_t low, high;              // clamp, in quantised units
} tess_maxpool_t;

// Average over the part of a window that lies inside of the picture.
typedef tess_maxpool_t tess_avgpool_t;

enum tess_pair_function {
    TESS_PAIR_ADD,
    TESS_PAIR_SUB,
    TESS_PAIR_MUL,
};

// Two operands of different shapes, or another function than the sum.
typedef struct tess_pair {
    tess_add_t add;                 // product: multiplier_a and shift_a are the whole factor
    enum tess_pair_function function;
    int32_t a_pixel, b_pixel;       // steps from column to column; 0 where one column serves all
    int32_t a_channel, b_channel;   // steps from channel to channel, 1 or 0
} tess_pair_t;

// Means over `rows` rows, `cols` columns and `channels` channels each, at most 2^22 values.
typedef struct tess_mean {
    int32_t rows, row_size;         // row_size: bytes from row to row
    int32_t cols, c;                // c: of the input
    int32_t channels;               // 1 or c
    int32_t zero_point;             // of the input
    int32_t multiplier, shift;      // the division is part of it
    tess_quant_t quant;
} tess_mean_t;

// Over the channels of each pixel. The output's scale is 1/256, its zero point -128.
typedef struct tess_softmax {
    const int32_t *table;           // exp of differences -255..0, Q31; the last is at least 4096
    int32_t c;                      // 1..4095
} tess_softmax_t;

typedef struct tess_lookup {
    const int8_t *table;            // answers for -128..127
    int32_t c;
} tess_lookup_t;

typedef struct tess_resize {
    int32_t factor_w;
    int32_t c;
} tess_resize_t;

void tess_conv_row(const tess_conv_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x0, int32_t x1, int8_t *out);

void tess_depthwise_row(const tess_conv_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x0, int32_t x1,
    int8_t *out);

// a and b point at column x0.
void tess_add_row(const tess_add_t *p, const int8_t *a, const int8_t *b, int32_t x0, int32_t x1, int8_t *out);

void tess_maxpool_row(const tess_maxpool_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x0, int32_t x1,
    int8_t *out);

void tess_avgpool_row(const tess_avgpool_t *p, const int8_t *const *rows, int32_t in_col0, int32_t x0, int32_t x1,
    int8_t *out);

// a and b point at the column that x0 reads.
void tess_pair_row(const tess_pair_t *p, const int8_t *a, const int8_t *b, int32_t x0, int32_t x1, int8_t *out);

// in points at the first row and at the column that x0 reads first.
void tess_mean_row(const tess_mean_t *p, const int8_t *in, int32_t x0, int32_t x1, int8_t *out);

// in points at column x0.
void tess_softmax_row(const tess_softmax_t *p, const int8_t *in, int32_t x0, int32_t x1, int8_t *out);
void tess_lookup_row(const tess_lookup_t *p, const int8_t *in, int32_t x0, int32_t x1, int8_t *out);

// row points at column in_col0 of the one input row.
void tess_resize_row(const tess_resize_t *p, const int8_t *row, int32_t in_col0, int32_t x0, int32_t x1, int8_t *out);

#endif

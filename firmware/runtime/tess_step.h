/*
 * What planner and executor share. Private.
 */
#ifndef TESS_STEP_H
#define TESS_STEP_H

#include "kernels/kernels.h"
#include "tess_format.h"

// A segment while it runs.
typedef struct tess_step {
    tess_t *t;
    const struct tess_segment *segment;
    const struct tess_node *nodes;      // all
    struct tess_state *state;           // of the segment's nodes
    int32_t first, count;
    int32_t band_start, band_end;       // rows of the reference
    int32_t reference_h;
    int last;                           // the reference's last row lies in this band or before it
    int done;                           // after this band all results are complete
} tess_step_t;

// 1 when a node's buffer holds the whole tensor, 0 when it is a ring.
static inline int tess_is_whole(const struct tess_node *node) {
    return node->flags & TESS_NODE_MATERIALISED ? 1 : 0;
}

// Where row y of a node lives: in its ring or tensor
static inline int8_t *tess_slot(const tess_step_t *s, const struct tess_node *node, int32_t y) {
    return s->t->activations + node->buffer_offset + y % node->buffer_rows * node->buffer_cols * node->c;
}

// or, y counted from the band's first row, among a latched ring's fresh rows.
static inline int8_t *tess_fresh(const tess_step_t *s, const struct tess_node *node, int32_t y) {
    return s->t->activations + node->fresh_offset + y * node->buffer_cols * node->c;
}

// Where column x of row y of a node lives now. A ring starts at the strip's first column, a whole tensor at column 0.
static inline int8_t *tess_place(const tess_step_t *s, int32_t index, int32_t y, int32_t x) {
    const struct tess_node *node = &s->nodes[index];
    if (tess_is_whole(node)) {
        return tess_slot(s, node, y) + x * node->c;
    }
    const struct tess_state *state = &s->state[index - s->first];
    int8_t *row = node->fresh_rows && y >= state->begin ? tess_fresh(s, node, y - state->begin) : tess_slot(s, node, y);
    return row + (x - state->col0) * node->c;
}

// First column that tess_place has of a node
static inline int32_t tess_first_column(const tess_step_t *s, int32_t index) {
    return tess_is_whole(&s->nodes[index]) ? 0 : s->state[index - s->first].col0;
}

static inline tess_quant_t tess_quant_of(const struct tess_node *node) {
    tess_quant_t quant = {node->zero_point, node->clamp_low - node->zero_point, node->clamp_high - node->zero_point};
    return quant;
}

// Start a strip: columns [col0, col1) of each node, nothing produced yet.
void tess_plan_strip(tess_step_t *s, uint32_t strip);

// Plan the next band: rows [begin, target) of each node. Every band from the reference's last row on advances a follower
// (the first unfinished one has all that it reads), so `done` comes. Returns TESS_ERR_PLAN when a ring is too small for
// what is alive then.
int tess_plan_band(tess_step_t *s);

// Compute rows [begin, target) of node i of the segment, any kind but source and sink.
void tess_compute(const tess_step_t *s, int32_t i);

// The same for kinds that only move bytes: concat, slice, pad, reshape, resize.
void tess_move(const tess_step_t *s, int32_t i);

#endif

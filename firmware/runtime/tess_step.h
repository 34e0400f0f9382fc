/*
 * What planner and executor share. Private.
 */
#ifndef TESS_STEP_H
#define TESS_STEP_H

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
    int last;                           // band
} tess_step_t;

// 1 when a node's buffer holds the whole tensor, 0 when it is a ring.
static inline int tess_is_whole(const struct tess_node *node) {
    return node->flags & TESS_NODE_MATERIALISED ? 1 : 0;
}

// Start a strip: columns [col0, col1) of each node, nothing produced yet.
void tess_plan_strip(const tess_step_t *s, uint32_t strip);

// Plan a band: rows [begin, target) of each node. Returns TESS_ERR_PLAN when a ring is too small for what is alive then.
int tess_plan_band(const tess_step_t *s);

#endif

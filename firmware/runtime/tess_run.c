/*
 * Running: walks the segments strip by strip and band by band, SPEC.md section 2. Each band is planned (tess_plan.c)
 * and computed node by node (tess_compute.c, tess_move.c).
 */
#include <string.h>

#include "tess_step.h"

/// Rows in, rows out ///

// the picture's bytes - 128, which flips one bit
static int read_source(const tess_step_t *s) {
    const tess_source_t *source = s->t->source;
    const struct tess_state *state = &s->state[0];
    int32_t n = (state->col1 - state->col0) * s->nodes[0].c;
    for (int32_t y = state->begin; y < state->target; y++) {
        uint8_t *pixels = (uint8_t *)tess_place(s, 0, y, state->col0);
        if (source->row(source->ctx, (uint16_t)y, state->col0, state->col1, pixels)) {
            return TESS_ERR_SOURCE;
        }
        for (int32_t k = 0; k < n; k++) {
            pixels[k] ^= 0x80;
        }
    }
    return TESS_OK;
}

// hand one row of a sink's inputs to the caller, in the order of outputs
static int emit(const tess_step_t *s, int32_t index, uint16_t y, const int8_t *const *rows) {
    const tess_t *t = s->t;
    const struct tess_node *sink = &s->nodes[index];
    const struct tess_state *state = &s->state[index - s->first];
    for (uint16_t o = 0; t->sink.rows && o < tess_header(t)->n_outputs; o++) {
        int j = 0;
        if (t->outputs[o].sink != index) {
            continue;
        }
        while (sink->inputs[j] != t->outputs[o].node) {
            j++;
        }
        if (t->sink.rows(t->sink.ctx, o, y, state->col0, state->col1, rows[j])) {
            return TESS_ERR_SINK;
        }
    }
    return TESS_OK;
}

static int write_sink(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    for (int32_t y = state->begin; y < state->target; y++) {
        const int8_t *rows[TESS_MAX_INPUTS];
        for (int j = 0; j < node->n_inputs; j++) {
            rows[j] = tess_place(s, node->inputs[j], y, state->col0);
        }
        tess_decode_row(s->t, (uint16_t)(s->first + i), (uint16_t)y, state->col0, state->col1, rows);
        int err = emit(s, s->first + i, (uint16_t)y, rows);
        if (err) {
            return err;
        }
    }
    return TESS_OK;
}

// rows [begin, target) of one node
static int compute(const tess_step_t *s, int32_t i) {
    const struct tess_state *state = &s->state[i];
    if (state->begin >= state->target || state->col0 >= state->col1) {
        return TESS_OK;
    }
    switch (s->nodes[s->first + i].kind) {
    case TESS_SOURCE: return read_source(s);
    case TESS_SINK: return write_sink(s, i);
    default: tess_compute(s, i); return TESS_OK;
    }
}

static int compute_and_report(const tess_step_t *s, int32_t i) {
#ifdef TESS_PROFILE
    const tess_t *t = s->t;
    if (t->clock && s->state[i].begin < s->state[i].target) {
        uint32_t start = t->clock(t->clock_ctx);
        int err = compute(s, i);
        uint32_t ticks = t->clock(t->clock_ctx) - start;
        t->report(t->clock_ctx, (uint16_t)(s->segment - t->segments), (uint16_t)(s->first + i),
            (uint16_t)(s->state[i].target - s->state[i].begin), ticks);
        return err;
    }
#endif
    return compute(s, i);
}

/// Latches ///

// The band's rows of node i move into its ring, the last ones that it holds.
static void latch(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    int32_t first = state->target - node->buffer_rows;
    if (!node->fresh_rows || state->col0 >= state->col1) {
        return;
    }
    for (int32_t y = first > state->begin ? first : state->begin; y < state->target; y++) {
        memmove(tess_slot(s, node, y), tess_fresh(s, node, y - state->begin), (size_t)(state->col1 - state->col0) * node->c);
    }
}

// What node i was the last to read need not stand apart any more.
static void latch_inputs(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    for (int j = 0; j < node->n_inputs; j++) {
        if ((node->flags & TESS_NODE_LATCH << j) && node->inputs[j] >= s->first) {
            latch(s, node->inputs[j] - s->first);
        }
    }
}

/// Segments ///

static int run_band(tess_step_t *s) {
    int err = tess_plan_band(s);
    for (int32_t i = 0; !err && i < s->count; i++) {
        err = compute_and_report(s, i);
        s->state[i].produced = s->state[i].target;
        latch_inputs(s, i);
    }
    return err;
}

static int run_segment(tess_t *t, const struct tess_segment *segment) {
    tess_step_t s = {.t = t, .segment = segment, .nodes = t->nodes, .state = t->state};
    s.first = segment->first_node;
    s.count = segment->n_nodes;
    s.reference_h = t->nodes[segment->reference].h;
    for (uint32_t strip = 0; strip < segment->columns; strip++) {
        tess_plan_strip(&s, strip);
        do {
            int err = run_band(&s);
            if (err) {
                return err;
            }
        } while (!s.done);
    }
    return TESS_OK;
}

int tess_run(tess_t *t, const tess_source_t *source) {
    if (!source || !source->row) {
        return TESS_ERR_ARGUMENT;
    }
    t->source = source;
    t->n_candidates = 0;
    t->sorted = 0;
    int err = TESS_OK;
    for (uint16_t i = 0; !err && i < tess_header(t)->n_segments; i++) {
        err = run_segment(t, &t->segments[i]);
    }
    t->source = NULL;
    t->n_candidates = err ? 0 : t->n_candidates;
    return err;
}

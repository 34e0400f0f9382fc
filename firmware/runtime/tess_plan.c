/*
 * Planning: which rows and columns of which node a strip and a band of a segment compute, SPEC.md section 2.
 */
#include "tess_axis.h"
#include "tess_step.h"

enum {
    HAS_READER = 1,     // in the segment
    ANCESTOR = 2,       // of the reference, or the reference itself
    FOLLOWER = 4,       // depends on the reference
    NOBODY = 0xFFFF,    // tess_state.could while it holds the row to keep: no reader wants rows any more
};

static int32_t max32(int32_t a, int32_t b) {
    return a > b ? a : b;
}

static int32_t min32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

// rows of node i towards its input j
static tess_axis_t rows_of(const tess_step_t *s, int32_t i, int j) {
    return tess_axis_of(s->nodes, &s->nodes[s->first + i], j, 0);
}

static tess_axis_t cols_of(const tess_step_t *s, int32_t i, int j) {
    return tess_axis_of(s->nodes, &s->nodes[s->first + i], j, 1);
}

// state of an input of node i, NULL when an earlier segment made it
static struct tess_state *input_state(const tess_step_t *s, int32_t i, int j) {
    int32_t local = s->nodes[s->first + i].inputs[j] - s->first;
    return local < 0 ? NULL : &s->state[local];
}

/// Planning a strip ///

// Note for each node whether somebody in the segment reads it and whether the reference depends on it. The notes live in
// `begin`, which a band's planning fills last.
static void note_relations(const tess_step_t *s) {
    for (int32_t i = 0; i < s->count; i++) {
        s->state[i].begin = 0;
    }
    s->state[s->segment->reference - s->first].begin = ANCESTOR;
    for (int32_t i = s->count - 1; i >= 0; i--) {
        for (int j = 0; j < s->nodes[s->first + i].n_inputs; j++) {
            struct tess_state *input = input_state(s, i, j);
            if (input) {
                input->begin = (uint16_t)(input->begin | HAS_READER | (s->state[i].begin & ANCESTOR));
            }
        }
    }
    const struct tess_state *reference = &s->state[s->segment->reference - s->first];
    for (int32_t i = 0; i < s->count; i++) {
        for (int j = 0; j < s->nodes[s->first + i].n_inputs; j++) {
            const struct tess_state *input = input_state(s, i, j);
            if (input && (input == reference || (input->begin & FOLLOWER))) {
                s->state[i].begin |= FOLLOWER;
            }
        }
    }
}

static int is_terminal(const tess_step_t *s, int32_t i) {
    return tess_is_whole(&s->nodes[s->first + i]) || !(s->state[i].begin & HAS_READER);
}

// Grow an interval [*lo, *hi) to hold [from, to); empty ones take no part.
static void unite(uint16_t *lo, uint16_t *hi, int32_t from, int32_t to) {
    if (from >= to) {
        return;
    }
    int empty = *lo >= *hi;
    *lo = (uint16_t)(empty ? from : min32(*lo, from));
    *hi = (uint16_t)(empty ? to : max32(*hi, to));
}

void tess_plan_strip(tess_step_t *s, uint32_t strip) {
    s->band_end = 0;
    note_relations(s);
    for (int32_t i = 0; i < s->count; i++) {
        struct tess_state *state = &s->state[i];
        uint32_t w = s->nodes[s->first + i].w;
        int share = is_terminal(s, i);
        state->col0 = (uint16_t)(share ? w * strip / s->segment->columns : 0);
        state->col1 = (uint16_t)(share ? w * (strip + 1) / s->segment->columns : 0);
        state->produced = 0;
    }
    for (int32_t i = s->count - 1; i >= 0; i--) {
        const struct tess_state *state = &s->state[i];
        for (int j = 0; state->col0 < state->col1 && j < s->nodes[s->first + i].n_inputs; j++) {
            struct tess_state *input = input_state(s, i, j);
            tess_axis_t axis = cols_of(s, i, j);
            if (input) {
                unite(&input->col0, &input->col1, tess_in_lo(&axis, state->col0), tess_in_hi(&axis, state->col1));
            }
        }
    }
}

/// Planning a band that carries rows over ///

static void pull(const tess_step_t *s) {
    for (int32_t i = s->count - 1; i >= 0; i--) {
        const struct tess_state *state = &s->state[i];
        for (int j = 0; state->target > state->produced && j < s->nodes[s->first + i].n_inputs; j++) {
            struct tess_state *input = input_state(s, i, j);
            tess_axis_t axis = rows_of(s, i, j);
            if (input) {
                input->target = (uint16_t)max32(input->target, tess_in_hi(&axis, state->target));
            }
        }
    }
}

// Most rows of a follower in one band: its share of the reference's, rounded up.
static int32_t rows_a_band(const tess_step_t *s, const struct tess_node *node) {
    uint32_t height = (uint32_t)s->reference_h;
    return (int32_t)(((uint32_t)node->h * s->segment->rows + height - 1) / height);
}

// How far each node could come with the rows that are on their way to the reference; from its last row on, with all of them.
static void reach(const tess_step_t *s) {
    for (int32_t i = 0; i < s->count; i++) {
        const struct tess_node *node = &s->nodes[s->first + i];
        struct tess_state *state = &s->state[i];
        int follows = state->begin & FOLLOWER;
        if (!follows && (s->last || (state->begin & ANCESTOR))) {
            state->could = s->last ? node->h : state->target;
            continue;
        }
        int32_t rows = follows ? min32(node->h, state->produced + rows_a_band(s, node)) : node->h;
        for (int j = 0; j < node->n_inputs; j++) {
            const struct tess_state *input = input_state(s, i, j);
            tess_axis_t axis = rows_of(s, i, j);
            rows = min32(rows, tess_computable(&axis, input ? input->could : axis.in));
        }
        state->could = (uint16_t)rows;
    }
}

static void plan_carried(tess_step_t *s) {
    note_relations(s);
    for (int32_t i = 0; i < s->count; i++) {
        int whole = s->last && is_terminal(s, i) && !(s->state[i].begin & FOLLOWER);
        s->state[i].target = whole ? s->nodes[s->first + i].h : s->state[i].produced;
    }
    struct tess_state *reference = &s->state[s->segment->reference - s->first];
    reference->target = (uint16_t)max32(reference->target, s->band_end);
    pull(s);
    reach(s);
    for (int32_t i = 0; i < s->count; i++) {
        struct tess_state *state = &s->state[i];
        uint32_t h = s->nodes[s->first + i].h;
        int32_t share = (int32_t)(h * (uint32_t)s->band_end / (uint32_t)s->reference_h);
        if (state->begin & FOLLOWER) {
            state->target = (uint16_t)max32(state->target, state->could);
        } else if (is_terminal(s, i) && !(state->begin & ANCESTOR)) {
            state->target = (uint16_t)max32(state->target, min32(share, state->could));
        }
    }
    pull(s);
    s->done = 1;
    for (int32_t i = 0; i < s->count; i++) {
        s->done = s->done && (!is_terminal(s, i) || s->state[i].target == s->nodes[s->first + i].h);
    }
    for (int32_t i = 0; i < s->count; i++) {
        s->state[i].begin = s->state[i].produced;
    }
}

// First row of each ring that a reader still wants, into `could`.
static void note_kept_rows(const tess_step_t *s) {
    for (int32_t i = 0; i < s->count; i++) {
        s->state[i].could = NOBODY;
    }
    for (int32_t i = 0; i < s->count; i++) {
        const struct tess_node *node = &s->nodes[s->first + i];
        for (int j = 0; s->state[i].produced < node->h && j < node->n_inputs; j++) {
            struct tess_state *input = input_state(s, i, j);
            tess_axis_t axis = rows_of(s, i, j);
            if (input) {
                input->could = (uint16_t)min32(input->could, tess_in_lo(&axis, s->state[i].produced));
            }
        }
    }
}

/// Planning a band that computes rows again ///

static void share_rows(const tess_step_t *s, int32_t i) {
    uint32_t h = s->nodes[s->first + i].h, reference_h = (uint32_t)s->reference_h;
    struct tess_state *state = &s->state[i];
    int terminal = is_terminal(s, i);
    state->begin = (uint16_t)(terminal ? h * (uint32_t)s->band_start / reference_h : 0);
    state->target = (uint16_t)(terminal ? (s->last ? h : h * (uint32_t)s->band_end / reference_h) : 0);
    if (state->begin >= state->target) {
        state->begin = state->target = 0;
    }
}

static void plan_recomputed(const tess_step_t *s) {
    note_relations(s);
    for (int32_t i = 0; i < s->count; i++) {
        share_rows(s, i);
    }
    for (int32_t i = s->count - 1; i >= 0; i--) {
        struct tess_state *state = &s->state[i];
        if (tess_is_whole(&s->nodes[s->first + i])) {
            state->begin = (uint16_t)max32(state->begin, state->produced);
            state->target = (uint16_t)max32(state->target, state->produced);
        }
        for (int j = 0; state->begin < state->target && j < s->nodes[s->first + i].n_inputs; j++) {
            struct tess_state *input = input_state(s, i, j);
            tess_axis_t axis = rows_of(s, i, j);
            if (input) {
                unite(&input->begin, &input->target, tess_in_lo(&axis, state->begin), tess_in_hi(&axis, state->target));
            }
        }
        state->could = state->begin; // the row to keep
    }
}

// Every ring must hold all rows and columns that are alive in this band.
static int check_rings(const tess_step_t *s) {
    for (int32_t i = 0; i < s->count; i++) {
        const struct tess_node *node = &s->nodes[s->first + i];
        const struct tess_state *state = &s->state[i];
        if (node->kind == TESS_SINK || tess_is_whole(node)) {
            continue;
        }
        int32_t kept_end = node->fresh_rows ? state->begin : state->target;
        if (kept_end - state->could > node->buffer_rows || state->col1 - state->col0 > node->buffer_cols
                || (node->fresh_rows && state->target - state->begin > node->fresh_rows)) {
            return TESS_ERR_PLAN;
        }
    }
    return TESS_OK;
}

int tess_plan_band(tess_step_t *s) {
    s->band_start = s->band_end;
    s->band_end = min32(s->reference_h, s->band_start + s->segment->rows);
    s->last = s->band_end == s->reference_h;
    if (s->segment->carry) {
        plan_carried(s);
        note_kept_rows(s);
    } else {
        plan_recomputed(s);
        s->done = s->last;
    }
    return check_rings(s);
}

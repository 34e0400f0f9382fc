/*
 * Running: walks the segments strip by strip and band by band, SPEC.md section 2. Each band is planned (tess_plan.c)
 * and computed node by node. Kernels see row pointers only.
 */
#include "kernels/kernels.h"
#include "tess_step.h"

/// Computing rows ///

// Where column x of row y of a node lives. A ring starts at the strip's first column, a whole tensor at column 0.
static int8_t *place(const tess_step_t *s, int32_t index, int32_t y, int32_t x) {
    const struct tess_node *node = &s->nodes[index];
    int32_t col0 = tess_is_whole(node) ? 0 : s->state[index - s->first].col0;
    int32_t pixel = y % node->buffer_rows * node->buffer_cols + x - col0;
    return s->t->activations + node->buffer_offset + pixel * node->c;
}

// first column that place() has of a node
static int32_t first_column(const tess_step_t *s, int32_t index) {
    return tess_is_whole(&s->nodes[index]) ? 0 : s->state[index - s->first].col0;
}

static tess_quant_t quant_of(const struct tess_node *node) {
    tess_quant_t quant = {node->zero_point, node->clamp_low - node->zero_point, node->clamp_high - node->zero_point};
    return quant;
}

// rows[k] = input row that kernel row k reads for output row y, NULL outside of the picture
static void gather(const tess_step_t *s, const struct tess_node *node, int32_t y, const int8_t **rows) {
    int32_t index = node->inputs[0], top = y * node->stride_h - node->pad_top;
    int32_t col0 = first_column(s, index);
    for (int32_t k = 0; k < node->kernel_h; k++) {
        int inside = top + k >= 0 && top + k < s->nodes[index].h;
        rows[k] = inside ? place(s, index, top + k, col0) : NULL;
    }
}

static void convolve(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i], *input = &s->nodes[node->inputs[0]];
    const struct tess_state *state = &s->state[i];
    const int8_t *rows[TESS_MAX_KERNEL];
    tess_conv_t p = {
        .weights = tess_array(s->t, node->weights),
        .bias = tess_array(s->t, node->bias),
        .multiplier = tess_array(s->t, node->multipliers),
        .shift = tess_array(s->t, node->shifts),
        .in_w = input->w, .in_c = input->c, .out_c = node->c,
        .kernel_h = node->kernel_h, .kernel_w = node->kernel_w,
        .stride_w = node->stride_w, .pad_left = node->pad_left,
        .zero_point = input->zero_point,
        .channel_multiplier = node->multiplier,
        .quant = quant_of(node),
    };
    int32_t col0 = first_column(s, node->inputs[0]);
    for (int32_t y = state->begin; y < state->target; y++) {
        int8_t *out = place(s, s->first + i, y, state->col0);
        gather(s, node, y, rows);
        if (node->kind == TESS_CONV) {
            tess_conv_row(&p, rows, col0, state->col0, state->col1, out);
        } else {
            tess_depthwise_row(&p, rows, col0, state->col0, state->col1, out);
        }
    }
}

static void add(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    const int32_t *numbers = tess_array(s->t, node->weights);
    tess_add_t p = {
        .zero_point_a = s->nodes[node->inputs[0]].zero_point,
        .zero_point_b = s->nodes[node->inputs[1]].zero_point,
        .multiplier_a = numbers[0], .shift_a = numbers[1],
        .multiplier_b = numbers[2], .shift_b = numbers[3],
        .multiplier_out = numbers[4], .shift_out = numbers[5],
        .left_shift = numbers[6],
        .c = node->c,
        .quant = quant_of(node),
    };
    for (int32_t y = state->begin; y < state->target; y++) {
        tess_add_row(&p, place(s, node->inputs[0], y, state->col0), place(s, node->inputs[1], y, state->col0),
            state->col0, state->col1, place(s, s->first + i, y, state->col0));
    }
}

static void maxpool(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    const int8_t *rows[TESS_MAX_KERNEL];
    tess_maxpool_t p = {
        .in_w = s->nodes[node->inputs[0]].w, .c = node->c,
        .kernel_h = node->kernel_h, .kernel_w = node->kernel_w,
        .stride_w = node->stride_w, .pad_left = node->pad_left,
        .low = node->clamp_low, .high = node->clamp_high,
    };
    int32_t col0 = first_column(s, node->inputs[0]);
    for (int32_t y = state->begin; y < state->target; y++) {
        gather(s, node, y, rows);
        tess_maxpool_row(&p, rows, col0, state->col0, state->col1, place(s, s->first + i, y, state->col0));
    }
}

static void resize(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    tess_resize_t p = {.factor_w = node->stride_w, .c = node->c};
    int32_t col0 = first_column(s, node->inputs[0]);
    for (int32_t y = state->begin; y < state->target; y++) {
        tess_resize_row(&p, place(s, node->inputs[0], y / node->stride_h, col0), col0, state->col0, state->col1,
            place(s, s->first + i, y, state->col0));
    }
}

// the picture's bytes - 128, which flips one bit
static int read_source(const tess_step_t *s) {
    const tess_source_t *source = s->t->source;
    const struct tess_state *state = &s->state[0];
    int32_t n = (state->col1 - state->col0) * s->nodes[0].c;
    for (int32_t y = state->begin; y < state->target; y++) {
        uint8_t *pixels = (uint8_t *)place(s, 0, y, state->col0);
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
            rows[j] = place(s, node->inputs[j], y, state->col0);
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
    case TESS_CONV:
    case TESS_DEPTHWISE: convolve(s, i); return TESS_OK;
    case TESS_ADD: add(s, i); return TESS_OK;
    case TESS_MAXPOOL: maxpool(s, i); return TESS_OK;
    case TESS_RESIZE: resize(s, i); return TESS_OK;
    default: return write_sink(s, i);
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

/// Segments ///

static int run_band(const tess_step_t *s) {
    int err = tess_plan_band(s);
    for (int32_t i = 0; !err && i < s->count; i++) {
        err = compute_and_report(s, i);
        s->state[i].produced = s->state[i].target;
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
        for (s.band_start = 0; s.band_start < s.reference_h; s.band_start += segment->rows) {
            s.band_end = s.band_start + segment->rows;
            s.band_end = s.band_end < s.reference_h ? s.band_end : s.reference_h;
            s.last = s.band_end == s.reference_h;
            int err = run_band(&s);
            if (err) {
                return err;
            }
        }
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

/*
 * Computing: from a node and the rows to compute to calls of kernels. Kernels see row pointers only.
 */
#include "tess_step.h"

/// Windows ///

// rows[k] = input row that kernel row k reads for output row y, NULL outside of the picture
static void gather(const tess_step_t *s, const struct tess_node *node, int32_t y, const int8_t **rows) {
    int32_t index = node->inputs[0], top = y * node->stride_h - node->pad_top;
    int32_t col0 = tess_first_column(s, index);
    for (int32_t k = 0; k < node->kernel_h; k++) {
        int inside = top + k >= 0 && top + k < s->nodes[index].h;
        rows[k] = inside ? tess_place(s, index, top + k, col0) : NULL;
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
        .quant = tess_quant_of(node),
    };
    int32_t col0 = tess_first_column(s, node->inputs[0]);
    for (int32_t y = state->begin; y < state->target; y++) {
        int8_t *out = tess_place(s, s->first + i, y, state->col0);
        gather(s, node, y, rows);
        if (node->kind == TESS_CONV) {
            tess_conv_row(&p, rows, col0, state->col0, state->col1, out);
        } else {
            tess_depthwise_row(&p, rows, col0, state->col0, state->col1, out);
        }
    }
}

static void pool(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    const int8_t *rows[TESS_MAX_KERNEL];
    tess_maxpool_t p = {
        .in_w = s->nodes[node->inputs[0]].w, .c = node->c,
        .kernel_h = node->kernel_h, .kernel_w = node->kernel_w,
        .stride_w = node->stride_w, .pad_left = node->pad_left,
        .low = node->clamp_low, .high = node->clamp_high,
    };
    int32_t col0 = tess_first_column(s, node->inputs[0]);
    for (int32_t y = state->begin; y < state->target; y++) {
        gather(s, node, y, rows);
        int8_t *out = tess_place(s, s->first + i, y, state->col0);
        if (node->kind == TESS_MAXPOOL) {
            tess_maxpool_row(&p, rows, col0, state->col0, state->col1, out);
        } else {
            tess_avgpool_row(&p, rows, col0, state->col0, state->col1, out);
        }
    }
}

/// Pixels ///

// column x of the row of input j that output row y reads; a broadcast input has one row or column for all
static const int8_t *operand(const tess_step_t *s, const struct tess_node *node, int j, int32_t y, int32_t x) {
    const struct tess_node *input = &s->nodes[node->inputs[j]];
    return tess_place(s, node->inputs[j], input->h == node->h ? y : 0, input->w == node->w ? x : 0);
}

// One operand of a sum, difference or product: an input, or constants for each channel (input is then -1).
typedef struct side {
    int input;
    int32_t zero_point, pixel, channel;
} side_t;

static side_t side_of(const tess_step_t *s, const struct tess_node *node, int position) {
    if (node->n_inputs == 1 && position == (node->multiplier ? 0 : 1)) {
        side_t constant = {-1, node->fill, 0, 1};
        return constant;
    }
    int j = node->n_inputs == 1 ? 0 : position;
    const struct tess_node *input = &s->nodes[node->inputs[j]];
    side_t side = {j, input->zero_point, input->w == node->w ? input->c : 0, input->c == node->c};
    return side;
}

static const int8_t *row_of(const tess_step_t *s, const struct tess_node *node, const side_t *side, int32_t y, int32_t x) {
    return side->input < 0 ? tess_array(s->t, node->bias) : operand(s, node, side->input, y, x);
}

static int same_shape(const struct tess_node *a, const struct tess_node *b) {
    return a->h == b->h && a->w == b->w && a->c == b->c;
}

static void pair(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    side_t a = side_of(s, node, 0), b = side_of(s, node, 1);
    const int32_t *numbers = tess_array(s->t, node->weights);
    int product = node->kind == TESS_MUL;
    tess_pair_t p = {
        .add = {
            .zero_point_a = a.zero_point,
            .zero_point_b = b.zero_point,
            .multiplier_a = numbers[0], .shift_a = numbers[1],
            .multiplier_b = product ? 0 : numbers[2], .shift_b = product ? 0 : numbers[3],
            .multiplier_out = product ? 0 : numbers[4], .shift_out = product ? 0 : numbers[5],
            .left_shift = product ? 0 : numbers[6],
            .c = node->c,
            .quant = tess_quant_of(node),
        },
        .function = product ? TESS_PAIR_MUL : node->kind == TESS_SUB ? TESS_PAIR_SUB : TESS_PAIR_ADD,
        .a_pixel = a.pixel, .a_channel = a.channel,
        .b_pixel = b.pixel, .b_channel = b.channel,
    };
    int plain = node->kind == TESS_ADD && node->n_inputs == 2 && same_shape(&s->nodes[node->inputs[0]], node)
        && same_shape(&s->nodes[node->inputs[1]], node);
    for (int32_t y = state->begin; y < state->target; y++) {
        const int8_t *first = row_of(s, node, &a, y, state->col0), *second = row_of(s, node, &b, y, state->col0);
        int8_t *out = tess_place(s, s->first + i, y, state->col0);
        if (plain) {
            tess_add_row(&p.add, first, second, state->col0, state->col1, out);
        } else {
            tess_pair_row(&p, first, second, state->col0, state->col1, out);
        }
    }
}

static void mean(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i], *input = &s->nodes[node->inputs[0]];
    const struct tess_state *state = &s->state[i];
    const int32_t *numbers = tess_array(s->t, node->weights);
    tess_mean_t p = {
        .rows = input->h == node->h ? 1 : input->h, .row_size = input->buffer_cols * input->c,
        .cols = input->w == node->w ? 1 : input->w, .c = input->c,
        .channels = input->c == node->c ? 1 : input->c,
        .zero_point = input->zero_point,
        .multiplier = numbers[0], .shift = numbers[1],
        .quant = tess_quant_of(node),
    };
    for (int32_t y = state->begin; y < state->target; y++) {
        tess_mean_row(&p, operand(s, node, 0, y, state->col0), state->col0, state->col1,
            tess_place(s, s->first + i, y, state->col0));
    }
}

static void softmax(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    tess_softmax_t p = {tess_array(s->t, node->weights), node->c};
    for (int32_t y = state->begin; y < state->target; y++) {
        tess_softmax_row(&p, tess_place(s, node->inputs[0], y, state->col0), state->col0, state->col1,
            tess_place(s, s->first + i, y, state->col0));
    }
}

static void lookup(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    tess_lookup_t p = {tess_array(s->t, node->weights), node->c};
    for (int32_t y = state->begin; y < state->target; y++) {
        tess_lookup_row(&p, tess_place(s, node->inputs[0], y, state->col0), state->col0, state->col1,
            tess_place(s, s->first + i, y, state->col0));
    }
}

void tess_compute(const tess_step_t *s, int32_t i) {
    switch (s->nodes[s->first + i].kind) {
    case TESS_CONV:
    case TESS_DEPTHWISE: convolve(s, i); break;
    case TESS_MAXPOOL:
    case TESS_AVGPOOL: pool(s, i); break;
    case TESS_ADD:
    case TESS_SUB:
    case TESS_MUL: pair(s, i); break;
    case TESS_MEAN: mean(s, i); break;
    case TESS_SOFTMAX: softmax(s, i); break;
    case TESS_LOOKUP: lookup(s, i); break;
    default: tess_move(s, i); break;
    }
}

/*
 * Computing nodes that only move bytes. memmove, because buffers may overlap in a damaged file.
 */
#include <string.h>

#include "tess_step.h"

// `count` pieces of `size` bytes, `from_step` and `to_step` apart
static void copy(int8_t *to, int32_t to_step, const int8_t *from, int32_t from_step, int32_t size, int32_t count) {
    for (; count > 0; count--) {
        memmove(to, from, (size_t)size);
        to += to_step;
        from += from_step;
    }
}

static void resize(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    tess_resize_t p = {.factor_w = node->stride_w, .c = node->c};
    int32_t col0 = tess_first_column(s, node->inputs[0]);
    for (int32_t y = state->begin; y < state->target; y++) {
        tess_resize_row(&p, tess_place(s, node->inputs[0], y / node->stride_h, col0), col0, state->col0, state->col1,
            tess_place(s, s->first + i, y, state->col0));
    }
}

static void concat_channels(const tess_step_t *s, int32_t i, int32_t y, int8_t *out) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    for (int j = 0; j < node->n_inputs; j++) {
        int32_t c = s->nodes[node->inputs[j]].c;
        copy(out, node->c, tess_place(s, node->inputs[j], y, state->col0), c, c, state->col1 - state->col0);
        out += c;
    }
}

// What of the row [col0, col1) an input has whose first row and column are at `top` and `left` of the output.
static void place_part(const tess_step_t *s, int32_t i, int j, int32_t y, int32_t top, int32_t left, int8_t *out) {
    const struct tess_node *node = &s->nodes[s->first + i], *input = &s->nodes[node->inputs[j]];
    const struct tess_state *state = &s->state[i];
    int32_t row = y - top, end = left + input->w;
    int32_t first = state->col0 > left ? state->col0 : left;
    end = state->col1 < end ? state->col1 : end;
    if (row >= 0 && row < input->h && first < end) {
        const int8_t *in = tess_place(s, node->inputs[j], row, first - left);
        memmove(out + (first - state->col0) * node->c, in, (size_t)(end - first) * node->c);
    }
}

static void concat(const tess_step_t *s, int32_t i, int32_t y, int8_t *out) {
    const struct tess_node *node = &s->nodes[s->first + i];
    if (node->start[2]) {
        concat_channels(s, i, y, out);
        return;
    }
    for (int j = 0, top = 0, left = 0; j < node->n_inputs; j++) {
        place_part(s, i, j, y, top, left, out);
        top += node->start[0] ? s->nodes[node->inputs[j]].h : 0;
        left += node->start[1] ? s->nodes[node->inputs[j]].w : 0;
    }
}

static void slice(const tess_step_t *s, int32_t i, int32_t y, int8_t *out) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    const int8_t *in = tess_place(s, node->inputs[0], y + node->start[0], state->col0 + node->start[1]);
    copy(out, node->c, in + node->start[2], s->nodes[node->inputs[0]].c, node->c, state->col1 - state->col0);
}

static void pad(const tess_step_t *s, int32_t i, int32_t y, int8_t *out) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    memset(out, node->fill, (size_t)(state->col1 - state->col0) * node->c);
    place_part(s, i, 0, y, node->pad_top, node->pad_left, out);
}

static void reshape(const tess_step_t *s, int32_t i, int32_t y, int8_t *out) {
    const struct tess_node *node = &s->nodes[s->first + i], *input = &s->nodes[node->inputs[0]];
    const struct tess_state *state = &s->state[i];
    int32_t row_size = input->w * input->c;
    int32_t at = (y * node->w + state->col0) * node->c;
    for (int32_t left = (state->col1 - state->col0) * node->c; left > 0;) {
        int32_t size = row_size - at % row_size < left ? row_size - at % row_size : left;
        memmove(out, tess_place(s, node->inputs[0], at / row_size, 0) + at % row_size, (size_t)size);
        out += size;
        at += size;
        left -= size;
    }
}

static void transpose(const tess_step_t *s, int32_t i, int32_t y, int8_t *out) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    int32_t at[3]; // row, column and channel of the input
    at[node->start[0]] = y;
    for (int32_t x = state->col0; x < state->col1; x++) {
        at[node->start[1]] = x;
        for (int32_t c = 0; c < node->c; c++) {
            at[node->start[2]] = c;
            *out++ = tess_place(s, node->inputs[0], at[0], at[1])[at[2]];
        }
    }
}

void tess_move(const tess_step_t *s, int32_t i) {
    const struct tess_node *node = &s->nodes[s->first + i];
    const struct tess_state *state = &s->state[i];
    if (node->kind == TESS_RESIZE) {
        resize(s, i);
        return;
    }
    for (int32_t y = state->begin; y < state->target; y++) {
        int8_t *out = tess_place(s, s->first + i, y, state->col0);
        switch (node->kind) {
        case TESS_CONCAT: concat(s, i, y, out); break;
        case TESS_SLICE: slice(s, i, y, out); break;
        case TESS_PAD: pad(s, i, y, out); break;
        case TESS_TRANSPOSE: transpose(s, i, y, out); break;
        default: reshape(s, i, y, out); break;
        }
    }
}

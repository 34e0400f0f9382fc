/*
 * Checks nodes: what kernels take for granted about shapes, windows, constants and buffers.
 */
#include "tess_axis.h"
#include "tess_check.h"

/// Constants ///

static int check_multipliers(const tess_file_t *f, const struct tess_node *node) {
    const int32_t *multipliers = (const void *)(f->base + node->multipliers);
    const int8_t *shifts = (const void *)(f->base + node->shifts);
    for (uint32_t o = 0; o < node->c; o++) {
        if (multipliers[o] < 0 || shifts[o] < -31 || shifts[o] > 30) {
            return TESS_ERR_SHAPE;
        }
    }
    return TESS_OK;
}

static int check_constants(const tess_file_t *f, const struct tess_node *node, uint64_t weights_per_channel) {
    int err = tess_check_array(f, node->weights, weights_per_channel * node->c);
    err = err ? err : tess_check_array(f, node->bias, (uint64_t)node->c * 4);
    err = err ? err : tess_check_array(f, node->multipliers, (uint64_t)node->c * 4);
    err = err ? err : tess_check_array(f, node->shifts, node->c);
    return err ? err : check_multipliers(f, node);
}

static int good_factor(int32_t multiplier, int32_t shift) {
    return multiplier >= 0 && shift >= -31 && shift <= 30;
}

// i32 numbers of the node, NULL when they are not there
static const int32_t *numbers_of(const tess_file_t *f, const struct tess_node *node, uint32_t count) {
    int err = tess_check_array(f, node->weights, (uint64_t)count * 4);
    return err ? NULL : (const int32_t *)(const void *)(f->base + node->weights);
}

static int check_sum_constants(const tess_file_t *f, const struct tess_node *node) {
    const int32_t *numbers = numbers_of(f, node, 7);
    if (!numbers) {
        return TESS_ERR_BOUNDS;
    }
    for (int i = 0; i < 6; i += 2) {
        if (!good_factor(numbers[i], numbers[i + 1])) {
            return TESS_ERR_SHAPE;
        }
    }
    // 255 << 22 is the largest that fits int32
    return numbers[6] < 0 || numbers[6] > 22 ? TESS_ERR_SHAPE : TESS_OK;
}

// one multiplier and shift
static int check_factor(const tess_file_t *f, const struct tess_node *node) {
    const int32_t *numbers = numbers_of(f, node, 2);
    if (!numbers) {
        return TESS_ERR_BOUNDS;
    }
    return good_factor(numbers[0], numbers[1]) ? TESS_OK : TESS_ERR_SHAPE;
}

/// Kinds ///

// every window touches the picture
static int check_window_axis(const tess_axis_t *a) {
    int good = a->kernel >= 1 && a->kernel <= TESS_MAX_KERNEL && a->stride >= 1 && a->kernel > a->pad
        && (a->out - 1) * a->stride - a->pad < a->in;
    return good ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_window(const tess_file_t *f, const struct tess_node *node) {
    tess_axis_t rows = tess_axis_of(f->nodes, node, 0, 0), cols = tess_axis_of(f->nodes, node, 0, 1);
    int err = check_window_axis(&rows);
    return err ? err : check_window_axis(&cols);
}

static int check_conv(const tess_file_t *f, const struct tess_node *node, const struct tess_node *input) {
    int err = check_window(f, node);
    uint64_t taps = (uint64_t)node->kernel_h * node->kernel_w * input->c;
    // 65536 taps of 255 * 128 fit int32
    if (err || taps > 65536) {
        return TESS_ERR_SHAPE;
    }
    return check_constants(f, node, taps);
}

static int check_depthwise(const tess_file_t *f, const struct tess_node *node, const struct tess_node *input) {
    if (check_window(f, node) || node->multiplier < 1 || (uint32_t)input->c * node->multiplier != node->c) {
        return TESS_ERR_SHAPE;
    }
    return check_constants(f, node, (uint64_t)node->kernel_h * node->kernel_w);
}

static int serves(uint16_t in, uint16_t out) {
    return in == out || in == 1;
}

static int check_pair(const tess_file_t *f, const struct tess_node *node) {
    for (int j = 0; j < node->n_inputs; j++) {
        const struct tess_node *input = &f->nodes[node->inputs[j]];
        if (!serves(input->h, node->h) || !serves(input->w, node->w) || !serves(input->c, node->c)) {
            return TESS_ERR_SHAPE;
        }
    }
    // the other operand is a constant a channel
    if (node->n_inputs == 1 && tess_check_array(f, node->bias, node->c)) {
        return TESS_ERR_BOUNDS;
    }
    return node->kind == TESS_MUL ? check_factor(f, node) : check_sum_constants(f, node);
}

static int same_shape(const struct tess_node *a, const struct tess_node *b) {
    return a->h == b->h && a->w == b->w && a->c == b->c;
}

static int check_mean(const tess_file_t *f, const struct tess_node *node, const struct tess_node *input) {
    // rows of the input must follow each other
    if (node->h != input->h && input->fresh_rows) {
        return TESS_ERR_PLAN;
    }
    // sums of 2^22 values fit int32
    uint64_t count = (uint64_t)(node->h == input->h ? 1 : input->h) * (node->w == input->w ? 1 : input->w);
    if (!serves(node->h, input->h) || !serves(node->w, input->w) || !serves(node->c, input->c)) {
        return TESS_ERR_SHAPE;
    }
    if (count * (node->c == input->c ? 1 : input->c) > 1 << 22) {
        return TESS_ERR_SHAPE;
    }
    return check_factor(f, node);
}

static int check_softmax(const tess_file_t *f, const struct tess_node *node, const struct tess_node *input) {
    const int32_t *table = numbers_of(f, node, 256);
    if (!table) {
        return TESS_ERR_BOUNDS;
    }
    for (int i = 0; i < 256; i++) {
        if (table[i] < 0) {
            return TESS_ERR_SHAPE;
        }
    }
    // a sum of 4095 values of at most 2^19 fits int32; the largest value's share is never 0
    return same_shape(node, input) && node->c <= 4095 && table[255] >= 4096 ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_lookup(const tess_file_t *f, const struct tess_node *node, const struct tess_node *input) {
    return same_shape(node, input) ? tess_check_array(f, node->weights, 256) : TESS_ERR_SHAPE;
}

// sinks join channels
static int check_sink(const tess_file_t *f, const struct tess_node *node) {
    uint32_t channels = 0;
    for (int j = 0; j < node->n_inputs; j++) {
        const struct tess_node *input = &f->nodes[node->inputs[j]];
        if (input->h != node->h || input->w != node->w) {
            return TESS_ERR_SHAPE;
        }
        channels += input->c;
    }
    return channels == node->c ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_concat(const tess_file_t *f, const struct tess_node *node) {
    const uint16_t *joined = node->start;
    if (joined[0] > 1 || joined[1] > 1 || joined[2] > 1 || joined[0] + joined[1] + joined[2] != 1) {
        return TESS_ERR_SHAPE;
    }
    if (node->pad_top || node->pad_left) { // they would move the sides that are not joined
        return TESS_ERR_SHAPE;
    }
    uint32_t sums[3] = {0, 0, 0};
    for (int j = 0; j < node->n_inputs; j++) {
        const struct tess_node *input = &f->nodes[node->inputs[j]];
        if ((!joined[0] && input->h != node->h) || (!joined[1] && input->w != node->w) || (!joined[2] && input->c != node->c)) {
            return TESS_ERR_SHAPE;
        }
        sums[0] += input->h;
        sums[1] += input->w;
        sums[2] += input->c;
    }
    uint32_t sum = joined[0] ? sums[0] : joined[1] ? sums[1] : sums[2];
    uint32_t size = joined[0] ? node->h : joined[1] ? node->w : node->c;
    return sum == size ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_transpose(const struct tess_node *node, const struct tess_node *input) {
    const uint16_t sizes[3] = {input->h, input->w, input->c}, made[3] = {node->h, node->w, node->c};
    unsigned seen = 0;
    for (int side = 0; side < 3; side++) {
        if (node->start[side] > 2 || made[side] != sizes[node->start[side]]) {
            return TESS_ERR_SHAPE;
        }
        seen |= 1u << node->start[side];
    }
    return seen == 7 ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_slice(const struct tess_node *node, const struct tess_node *input) {
    const uint16_t *start = node->start;
    int inside = (uint32_t)start[0] + node->h <= input->h && (uint32_t)start[1] + node->w <= input->w
        && (uint32_t)start[2] + node->c <= input->c;
    return inside ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_pad(const struct tess_node *node, const struct tess_node *input) {
    int around = (uint32_t)node->pad_top + input->h <= node->h && (uint32_t)node->pad_left + input->w <= node->w;
    return around && node->c == input->c ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_reshape(const struct tess_node *node, const struct tess_node *input) {
    uint64_t size = (uint64_t)node->h * node->w * node->c;
    return size == (uint64_t)input->h * input->w * input->c && size <= INT32_MAX ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_pool(const tess_file_t *f, const struct tess_node *node, const struct tess_node *input) {
    return check_window(f, node) || node->c != input->c ? TESS_ERR_SHAPE : TESS_OK;
}

static int check_resize(const struct tess_node *node, const struct tess_node *input) {
    if (node->stride_h < 1 || node->stride_w < 1 || node->c != input->c) {
        return TESS_ERR_SHAPE;
    }
    // less than one factor may be cropped: every input row and column is still wanted, none beyond them
    uint32_t rows = ((uint32_t)node->h + node->stride_h - 1) / node->stride_h;
    uint32_t cols = ((uint32_t)node->w + node->stride_w - 1) / node->stride_w;
    return rows == input->h && cols == input->w ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_source(const tess_file_t *f, const struct tess_node *node) {
    const struct tess_header *h = f->header;
    return node->h == h->input_h && node->w == h->input_w && node->c == h->input_c ? TESS_OK : TESS_ERR_SHAPE;
}

/// Nodes ///

static int check_inputs(const tess_file_t *f, uint16_t index) {
    static const uint8_t least[TESS_KINDS] = {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1};
    static const uint8_t most[TESS_KINDS] = {0, 1, 1, 2, 1, 1, TESS_MAX_INPUTS, 1, 1, 1, 1, 2, 2, TESS_MAX_INPUTS, 1, 1, 1, 1};
    const struct tess_node *node = &f->nodes[index];
    if (node->kind >= TESS_KINDS || (index == 0) != (node->kind == TESS_SOURCE)) {
        return TESS_ERR_SHAPE;
    }
    if (node->n_inputs < least[node->kind] || node->n_inputs > most[node->kind]) {
        return TESS_ERR_SHAPE;
    }
    for (int j = 0; j < node->n_inputs; j++) {
        if (node->inputs[j] >= index || f->nodes[node->inputs[j]].kind == TESS_SINK) {
            return TESS_ERR_SHAPE;
        }
    }
    return TESS_OK;
}

static int check_buffer(const tess_file_t *f, const struct tess_node *node) {
    if (node->kind == TESS_SINK) {
        return TESS_OK;
    }
    uint64_t bytes = (uint64_t)node->buffer_rows * node->buffer_cols * node->c;
    int whole = node->buffer_rows == node->h && node->buffer_cols == node->w;
    uint64_t fresh = (uint64_t)node->fresh_rows * node->buffer_cols * node->c;
    if (bytes == 0 || node->buffer_offset + bytes > f->header->activation_size
            || node->fresh_offset + fresh > f->header->activation_size
            || ((node->flags & TESS_NODE_MATERIALISED) && (!whole || fresh))) {
        return TESS_ERR_PLAN;
    }
    return TESS_OK;
}

static int check_node(const tess_file_t *f, uint16_t index) {
    const struct tess_node *node = &f->nodes[index];
    int err = check_inputs(f, index);
    if (err || node->h < 1 || node->w < 1 || node->c < 1 || node->clamp_low > node->clamp_high) {
        return TESS_ERR_SHAPE;
    }
    const struct tess_node *input = &f->nodes[node->n_inputs ? node->inputs[0] : 0];
    switch (node->kind) {
    case TESS_SOURCE: err = check_source(f, node); break;
    case TESS_CONV: err = check_conv(f, node, input); break;
    case TESS_DEPTHWISE: err = check_depthwise(f, node, input); break;
    case TESS_ADD:
    case TESS_SUB:
    case TESS_MUL: err = check_pair(f, node); break;
    case TESS_MAXPOOL:
    case TESS_AVGPOOL: err = check_pool(f, node, input); break;
    case TESS_RESIZE: err = check_resize(node, input); break;
    case TESS_MEAN: err = check_mean(f, node, input); break;
    case TESS_SOFTMAX: err = check_softmax(f, node, input); break;
    case TESS_LOOKUP: err = check_lookup(f, node, input); break;
    case TESS_SLICE: err = check_slice(node, input); break;
    case TESS_PAD: err = check_pad(node, input); break;
    case TESS_RESHAPE: err = check_reshape(node, input); break;
    case TESS_TRANSPOSE: err = check_transpose(node, input); break;
    case TESS_CONCAT: err = check_concat(f, node); break;
    default: err = check_sink(f, node); break;
    }
    return err ? err : check_buffer(f, node);
}

int tess_check_nodes(const tess_file_t *f) {
    for (uint16_t i = 0; i < f->header->n_nodes; i++) {
        int err = check_node(f, i);
        if (err) {
            return err;
        }
    }
    return TESS_OK;
}

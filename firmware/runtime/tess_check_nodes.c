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

static int check_add_constants(const tess_file_t *f, const struct tess_node *node) {
    int err = tess_check_array(f, node->weights, 7 * 4);
    if (err) {
        return err;
    }
    const int32_t *numbers = (const void *)(f->base + node->weights);
    for (int i = 0; i < 6; i += 2) {
        if (numbers[i] < 0 || numbers[i + 1] < -31 || numbers[i + 1] > 30) {
            return TESS_ERR_SHAPE;
        }
    }
    // 255 << 22 is the largest that fits int32
    return numbers[6] < 0 || numbers[6] > 22 ? TESS_ERR_SHAPE : TESS_OK;
}

/// Kinds ///

// every window touches the picture
static int check_window_axis(const tess_axis_t *a) {
    int good = a->kernel >= 1 && a->kernel <= TESS_MAX_KERNEL && a->stride >= 1 && a->kernel > a->pad
        && (a->out - 1) * a->stride - a->pad < a->in;
    return good ? TESS_OK : TESS_ERR_SHAPE;
}

static int check_window(const struct tess_node *node, const struct tess_node *input) {
    tess_axis_t rows = tess_axis_rows(node, input), cols = tess_axis_cols(node, input);
    int err = check_window_axis(&rows);
    return err ? err : check_window_axis(&cols);
}

static int check_conv(const tess_file_t *f, const struct tess_node *node, const struct tess_node *input) {
    int err = check_window(node, input);
    uint64_t taps = (uint64_t)node->kernel_h * node->kernel_w * input->c;
    // 65536 taps of 255 * 128 fit int32
    if (err || taps > 65536) {
        return TESS_ERR_SHAPE;
    }
    return check_constants(f, node, taps);
}

static int check_depthwise(const tess_file_t *f, const struct tess_node *node, const struct tess_node *input) {
    if (check_window(node, input) || node->multiplier < 1 || (uint32_t)input->c * node->multiplier != node->c) {
        return TESS_ERR_SHAPE;
    }
    return check_constants(f, node, (uint64_t)node->kernel_h * node->kernel_w);
}

static int check_add(const tess_file_t *f, const struct tess_node *node) {
    for (int j = 0; j < 2; j++) {
        const struct tess_node *input = &f->nodes[node->inputs[j]];
        if (input->h != node->h || input->w != node->w || input->c != node->c) {
            return TESS_ERR_SHAPE;
        }
    }
    return check_add_constants(f, node);
}

static int check_maxpool(const struct tess_node *node, const struct tess_node *input) {
    return check_window(node, input) || node->c != input->c ? TESS_ERR_SHAPE : TESS_OK;
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

static int check_source(const tess_file_t *f, const struct tess_node *node) {
    const struct tess_header *h = f->header;
    return node->h == h->input_h && node->w == h->input_w && node->c == h->input_c ? TESS_OK : TESS_ERR_SHAPE;
}

/// Nodes ///

static int check_inputs(const tess_file_t *f, uint16_t index) {
    static const uint8_t least[] = {0, 1, 1, 2, 1, 1, 1};
    static const uint8_t most[] = {0, 1, 1, 2, 1, 1, TESS_MAX_INPUTS};
    const struct tess_node *node = &f->nodes[index];
    if (node->kind > TESS_SINK || (index == 0) != (node->kind == TESS_SOURCE)) {
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
    if (bytes == 0 || node->buffer_offset + bytes > f->header->activation_size
            || ((node->flags & TESS_NODE_MATERIALISED) && !whole)) {
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
    case TESS_ADD: err = check_add(f, node); break;
    case TESS_MAXPOOL: err = check_maxpool(node, input); break;
    case TESS_RESIZE: err = check_resize(node, input); break;
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

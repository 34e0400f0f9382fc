/*
 * Opening: checks every number of a model file once, so that nothing is checked while it runs. Sums and products of
 * numbers from the file are 64 bits wide; sizes are 16 bits, so three of them never overflow.
 */
#include <string.h>

#include "tess_axis.h"

// A file under inspection.
typedef struct tess_file {
    const uint8_t *base;
    const struct tess_header *header;
    const struct tess_node *nodes;
    const struct tess_segment *segments;
    const struct tess_output *outputs;
    const struct tess_decode *decode;   // NULL without a decoder
    uint16_t max_nodes;                 // of a segment
} tess_file_t;

/// Places in the file ///

static int check_section(const tess_file_t *f, uint32_t offset, uint64_t size) {
    int inside = offset >= sizeof(struct tess_header) && offset + size <= f->header->total_size;
    return inside && offset % TESS_ALIGN == 0 ? TESS_OK : TESS_ERR_BOUNDS;
}

static int check_array(const tess_file_t *f, uint32_t offset, uint64_t size) {
    const struct tess_header *h = f->header;
    int inside = offset >= h->data && offset + size <= (uint64_t)h->data + h->data_size;
    return inside && offset % 4 == 0 ? TESS_OK : TESS_ERR_BOUNDS;
}

// `count` NUL-terminated strings, one after the other
static int check_strings(const tess_file_t *f, uint32_t offset, uint32_t count) {
    const struct tess_header *h = f->header;
    uint64_t end = (uint64_t)h->data + h->data_size;
    if (offset < h->data) {
        return TESS_ERR_BOUNDS;
    }
    for (uint64_t at = offset; count > 0; at++) {
        if (at >= end) {
            return TESS_ERR_BOUNDS;
        }
        count -= f->base[at] == 0;
    }
    return TESS_OK;
}

/// Header ///

static int check_header(tess_file_t *f, const void *model, size_t size) {
    if (!model || (uintptr_t)model % 4 != 0) {
        return TESS_ERR_ARGUMENT;
    }
    f->base = model;
    f->header = model;
    const struct tess_header *h = f->header;
    if (size < sizeof(*h) || h->magic[0] != 'T' || h->magic[1] != 'E' || h->magic[2] != 'S' || h->magic[3] != 'S') {
        return TESS_ERR_FORMAT;
    }
    if (h->version != TESS_VERSION) {
        return TESS_ERR_VERSION;
    }
    if (h->isa != TESS_ISA) {
        return TESS_ERR_ISA;
    }
    // offsets into arrays and arena are int32 in the kernels
    if (h->total_size < sizeof(struct tess_header) || h->total_size > size || h->total_size > INT32_MAX) {
        return TESS_ERR_FORMAT;
    }
    if (tess_crc32(f->base + 16, h->total_size - 16) != h->crc32) {
        return TESS_ERR_CRC;
    }
    if (h->n_nodes < 1 || h->n_nodes > TESS_MAX_NODES || h->n_segments < 1 || h->n_outputs < 1) {
        return TESS_ERR_SHAPE;
    }
    return h->activation_size > INT32_MAX ? TESS_ERR_PLAN : TESS_OK;
}

static int check_sections(tess_file_t *f) {
    const struct tess_header *h = f->header;
    int err = check_section(f, h->nodes, (uint64_t)h->n_nodes * sizeof(struct tess_node));
    err = err ? err : check_section(f, h->segments, (uint64_t)h->n_segments * sizeof(struct tess_segment));
    err = err ? err : check_section(f, h->outputs, (uint64_t)h->n_outputs * sizeof(struct tess_output));
    err = err ? err : check_section(f, h->data, h->data_size);
    err = err ? err : check_strings(f, h->name, 1);
    if (err) {
        return err;
    }
    f->nodes = (const void *)(f->base + h->nodes);
    f->segments = (const void *)(f->base + h->segments);
    f->outputs = (const void *)(f->base + h->outputs);
    f->decode = NULL;
    if (h->decode) {
        err = check_section(f, h->decode, sizeof(struct tess_decode));
        f->decode = err ? NULL : (const void *)(f->base + h->decode);
    }
    return err;
}

/// Nodes ///

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
    int err = check_array(f, node->weights, weights_per_channel * node->c);
    err = err ? err : check_array(f, node->bias, (uint64_t)node->c * 4);
    err = err ? err : check_array(f, node->multipliers, (uint64_t)node->c * 4);
    err = err ? err : check_array(f, node->shifts, node->c);
    return err ? err : check_multipliers(f, node);
}

static int check_add_constants(const tess_file_t *f, const struct tess_node *node) {
    int err = check_array(f, node->weights, 7 * 4);
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
    int good = node->stride_h >= 1 && node->stride_w >= 1 && node->h == (uint32_t)input->h * node->stride_h
        && node->w == (uint32_t)input->w * node->stride_w && node->c == input->c;
    return good ? TESS_OK : TESS_ERR_SHAPE;
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

static int check_nodes(const tess_file_t *f) {
    for (uint16_t i = 0; i < f->header->n_nodes; i++) {
        int err = check_node(f, i);
        if (err) {
            return err;
        }
    }
    return TESS_OK;
}

/// Schedule ///

// Whatever a node of this segment reads from an earlier one must be there whole; the reference must be a terminal.
static int check_segment(const tess_file_t *f, const struct tess_segment *s) {
    uint32_t stop = (uint32_t)s->first_node + s->n_nodes;
    if (s->columns < 1 || s->rows < 1 || s->carry > 1 || s->reference < s->first_node || s->reference >= stop) {
        return TESS_ERR_PLAN;
    }
    int reference_is_read = 0;
    for (uint32_t i = s->first_node; i < stop; i++) {
        for (int j = 0; j < f->nodes[i].n_inputs; j++) {
            uint16_t input = f->nodes[i].inputs[j];
            if (input < s->first_node && !(f->nodes[input].flags & TESS_NODE_MATERIALISED)) {
                return TESS_ERR_PLAN;
            }
            reference_is_read |= input == s->reference;
        }
    }
    int materialised = f->nodes[s->reference].flags & TESS_NODE_MATERIALISED;
    return reference_is_read && !materialised ? TESS_ERR_PLAN : TESS_OK;
}

static int check_segments(tess_file_t *f) {
    uint32_t next = 0;
    f->max_nodes = 0;
    for (uint32_t i = 0; i < f->header->n_segments; i++) {
        const struct tess_segment *s = &f->segments[i];
        if (s->first_node != next || s->n_nodes < 1 || next + s->n_nodes > f->header->n_nodes) {
            return TESS_ERR_PLAN;
        }
        int err = check_segment(f, s);
        if (err) {
            return err;
        }
        next += s->n_nodes;
        f->max_nodes = s->n_nodes > f->max_nodes ? s->n_nodes : f->max_nodes;
    }
    return next == f->header->n_nodes ? TESS_OK : TESS_ERR_PLAN;
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

// a * b, or UINT64_MAX
static uint64_t product(uint64_t a, uint64_t b) {
    return a && b > UINT64_MAX / a ? UINT64_MAX : a * b;
}

static uint64_t sum(uint64_t a, uint64_t b) {
    return b > UINT64_MAX - a ? UINT64_MAX : a + b;
}

// Most multiply-accumulates of one output pixel, all channels.
static uint64_t pixel_work(const tess_file_t *f, const struct tess_node *node) {
    uint64_t taps = (uint64_t)node->kernel_h * node->kernel_w;
    switch (node->kind) {
    case TESS_CONV: return taps * node->c * f->nodes[node->inputs[0]].c;
    case TESS_DEPTHWISE:
    case TESS_MAXPOOL: return taps * node->c;
    case TESS_SINK: return product(node->c, f->header->n_outputs);
    default: return node->c;
    }
}

// An upper bound on the work of a segment. Nodes that compute rows again are held back by the size of their ring, which
// limits what a band can ask of them.
static uint64_t segment_work(const tess_file_t *f, const struct tess_segment *s) {
    uint64_t steps = s->columns * (((uint64_t)f->nodes[s->reference].h + s->rows - 1) / s->rows);
    uint64_t work = product(steps, (uint64_t)s->n_nodes * 64);
    for (uint32_t i = s->first_node; i < (uint32_t)s->first_node + s->n_nodes; i++) {
        const struct tess_node *node = &f->nodes[i];
        uint64_t rows = product(s->columns, node->h), cols = node->w;
        if (node->kind == TESS_SINK) {
            rows = node->h; // shares do not overlap
        } else if (!(node->flags & TESS_NODE_MATERIALISED)) {
            rows = s->carry ? rows : product(steps, least(node->buffer_rows, node->h));
            cols = least(cols, node->buffer_cols);
        }
        work = sum(work, product(product(rows, cols), pixel_work(f, node)));
    }
    return work;
}

static int check_work(const tess_file_t *f) {
    uint64_t work = 0;
    for (uint32_t i = 0; i < f->header->n_segments; i++) {
        work = sum(work, segment_work(f, &f->segments[i]));
    }
    if (f->decode) {
        work = sum(work, (uint64_t)f->decode->max_candidates * f->decode->max_detections);
    }
    return work > TESS_MAX_WORK ? TESS_ERR_WORK : TESS_OK;
}

/// Outputs and decoder ///

static int check_outputs(const tess_file_t *f) {
    for (uint32_t i = 0; i < f->header->n_outputs; i++) {
        const struct tess_output *output = &f->outputs[i];
        if (output->sink >= f->header->n_nodes || f->nodes[output->sink].kind != TESS_SINK) {
            return TESS_ERR_SHAPE;
        }
        const struct tess_node *sink = &f->nodes[output->sink];
        int taken = 0;
        for (int j = 0; j < sink->n_inputs; j++) {
            taken |= sink->inputs[j] == output->node;
        }
        int err = taken ? check_strings(f, output->name, 1) : TESS_ERR_SHAPE;
        if (err) {
            return err;
        }
    }
    return TESS_OK;
}

// scores are Q15, so that a class can only lower an objectness
static int check_score_table(const tess_file_t *f, uint32_t offset) {
    int err = check_array(f, offset, 256 * 2);
    if (err) {
        return err;
    }
    const uint16_t *table = (const void *)(f->base + offset);
    for (int i = 0; i < 256; i++) {
        if (table[i] > 32768) {
            return TESS_ERR_DECODER;
        }
    }
    return TESS_OK;
}

static int check_level(const tess_file_t *f, const struct tess_level *level) {
    int classes = f->decode->n_classes;
    if (level->sink >= f->header->n_nodes || f->nodes[level->sink].kind != TESS_SINK || level->stride < 1) {
        return TESS_ERR_DECODER;
    }
    const struct tess_node *sink = &f->nodes[level->sink];
    int box = classes > 1 ? 2 : 1;
    if (sink->n_inputs != box + 1 || f->nodes[sink->inputs[0]].c != 1 || f->nodes[sink->inputs[box]].c != 4
            || (classes > 1 && f->nodes[sink->inputs[1]].c != classes)) {
        return TESS_ERR_DECODER;
    }
    // centres stay far inside of int32, cell numbers inside of uint32
    uint32_t longest = sink->h > sink->w ? sink->h : sink->w;
    if (longest * level->stride > INT16_MAX || level->first_cell + (uint64_t)sink->h * sink->w > UINT32_MAX) {
        return TESS_ERR_DECODER;
    }
    int err = check_score_table(f, level->objectness_table);
    err = err || classes == 1 ? err : check_score_table(f, level->class_table);
    return err ? err : check_array(f, level->distance_table, 256 * 2);
}

static int check_decode(const tess_file_t *f) {
    const struct tess_header *h = f->header;
    const struct tess_decode *d = f->decode;
    if (!d) {
        return TESS_OK;
    }
    // Q4 corners are int16
    if (d->n_levels < 1 || d->n_levels > TESS_MAX_LEVELS || d->n_classes < 1 || d->max_candidates < 1
            || h->input_w > INT16_MAX / 16 || h->input_h > INT16_MAX / 16) {
        return TESS_ERR_DECODER;
    }
    int err = check_section(f, h->decode, sizeof(*d) + (uint64_t)d->n_levels * sizeof(struct tess_level));
    err = err ? err : check_strings(f, d->class_names, d->n_classes);
    for (uint16_t i = 0; !err && i < d->n_levels; i++) {
        err = check_level(f, &tess_levels(d)[i]);
    }
    return err;
}

/// The whole file ///

static int check_file(tess_file_t *f, const void *model, size_t size) {
    int err = check_header(f, model, size);
    err = err ? err : check_sections(f);
    err = err ? err : check_nodes(f);
    err = err ? err : check_segments(f);
    err = err ? err : check_outputs(f);
    err = err ? err : check_decode(f);
    return err ? err : check_work(f);
}

// Parts of the work memory, in their order.
typedef struct tess_parts {
    uint64_t state, input_scratch, candidates, end;
} tess_parts_t;

static uint64_t aligned(uint64_t bytes) {
    return (bytes + TESS_ALIGN - 1) / TESS_ALIGN * TESS_ALIGN;
}

static tess_parts_t lay_out(const tess_file_t *f) {
    const struct tess_header *h = f->header;
    tess_parts_t parts;
    parts.state = aligned(h->activation_size);
    parts.input_scratch = parts.state + aligned(f->max_nodes * sizeof(struct tess_state));
    parts.candidates = parts.input_scratch + aligned((uint64_t)4 * h->input_w * h->input_c);
    parts.end = parts.candidates + aligned(f->decode ? f->decode->max_candidates * sizeof(struct tess_candidate) : 0);
    return parts;
}

int tess_needed(const void *model, size_t size, size_t *bytes) {
    tess_file_t f;
    if (!bytes) {
        return TESS_ERR_ARGUMENT;
    }
    int err = check_file(&f, model, size);
    if (err) {
        return err;
    }
    tess_parts_t parts = lay_out(&f);
    if (parts.end > SIZE_MAX) {
        return TESS_ERR_ARENA;
    }
    *bytes = (size_t)parts.end;
    return TESS_OK;
}

int tess_open(tess_t *t, const void *model, size_t size, void *arena, size_t arena_size) {
    tess_file_t f;
    if (!t) {
        return TESS_ERR_ARGUMENT;
    }
    memset(t, 0, sizeof(*t));
    int err = check_file(&f, model, size);
    if (err) {
        return err;
    }
    tess_parts_t parts = lay_out(&f);
    if (!arena || (uintptr_t)arena % TESS_ALIGN != 0 || parts.end > arena_size) {
        return TESS_ERR_ARENA;
    }
    uint8_t *bytes = arena;
    t->model = f.base;
    t->nodes = f.nodes;
    t->segments = f.segments;
    t->outputs = f.outputs;
    t->decode = f.decode;
    t->activations = (int8_t *)bytes;
    t->state = (void *)(bytes + parts.state);
    t->input_scratch = (void *)(bytes + parts.input_scratch);
    t->candidates = (void *)(bytes + parts.candidates);
    t->content_w = f.header->input_w;
    t->content_h = f.header->input_h;
    return TESS_OK;
}

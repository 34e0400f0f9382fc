/*
 * Opening: checks every number of a model file once (nodes in tess_check_nodes.c, schedule in tess_check_plan.c), so that
 * nothing is checked while it runs, and lays out the work memory.
 */
#include <string.h>

#include "tess_check.h"

/// Places in the file ///

int tess_check_section(const tess_file_t *f, uint32_t offset, uint64_t size) {
    int inside = offset >= sizeof(struct tess_header) && offset + size <= f->header->total_size;
    return inside && offset % TESS_ALIGN == 0 ? TESS_OK : TESS_ERR_BOUNDS;
}

int tess_check_array(const tess_file_t *f, uint32_t offset, uint64_t size) {
    const struct tess_header *h = f->header;
    int inside = offset >= h->data && offset + size <= (uint64_t)h->data + h->data_size;
    return inside && offset % 4 == 0 ? TESS_OK : TESS_ERR_BOUNDS;
}

int tess_check_strings(const tess_file_t *f, uint32_t offset, uint32_t count) {
    uint64_t at = offset, end = (uint64_t)f->header->data + f->header->data_size;
    if (at < f->header->data) {
        return TESS_ERR_BOUNDS;
    }
    // the last one ends, because the section ends with 0: thousands of outputs cost no walk through thousands of letters each
    for (; count > 1 && at < end; at++) {
        count -= f->base[at] == 0;
    }
    return at < end ? TESS_OK : TESS_ERR_BOUNDS;
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
    int err = tess_check_section(f, h->nodes, (uint64_t)h->n_nodes * sizeof(struct tess_node));
    err = err ? err : tess_check_section(f, h->segments, (uint64_t)h->n_segments * sizeof(struct tess_segment));
    err = err ? err : tess_check_section(f, h->outputs, (uint64_t)h->n_outputs * sizeof(struct tess_output));
    err = err ? err : tess_check_section(f, h->data, h->data_size);
    if (err || h->data_size < 1 || f->base[h->data + h->data_size - 1] != 0 || tess_check_strings(f, h->name, 1)) {
        return TESS_ERR_BOUNDS;
    }
    f->nodes = (const void *)(f->base + h->nodes);
    f->segments = (const void *)(f->base + h->segments);
    f->outputs = (const void *)(f->base + h->outputs);
    f->decode = NULL;
    if (h->decode) {
        err = tess_check_section(f, h->decode, sizeof(struct tess_decode));
        f->decode = err ? NULL : (const void *)(f->base + h->decode);
    }
    return err;
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
        int err = taken ? tess_check_strings(f, output->name, 1) : TESS_ERR_SHAPE;
        if (err) {
            return err;
        }
    }
    return TESS_OK;
}

// scores are Q15, so that a class can only lower an objectness
static int check_score_table(const tess_file_t *f, uint32_t offset) {
    int err = tess_check_array(f, offset, 256 * 2);
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
    return err ? err : tess_check_array(f, level->distance_table, 256 * 2);
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
    int err = tess_check_section(f, h->decode, sizeof(*d) + (uint64_t)d->n_levels * sizeof(struct tess_level));
    err = err ? err : tess_check_strings(f, d->class_names, d->n_classes);
    for (uint16_t i = 0; !err && i < d->n_levels; i++) {
        err = check_level(f, &tess_levels(d)[i]);
    }
    return err;
}

/// The whole file ///

// 32-bit accumulators for the widest row of the picture that a strip asks for
static int check_letterbox(const tess_file_t *f) {
    uint64_t bytes = (uint64_t)4 * f->nodes[0].buffer_cols * f->nodes[0].c;
    int inside = f->header->letterbox + bytes <= f->header->activation_size;
    return inside && f->header->letterbox % 4 == 0 ? TESS_OK : TESS_ERR_PLAN;
}

static int check_file(tess_file_t *f, const void *model, size_t size) {
    int err = check_header(f, model, size);
    err = err ? err : check_sections(f);
    err = err ? err : tess_check_nodes(f);
    err = err ? err : tess_check_segments(f);
    err = err ? err : check_outputs(f);
    err = err ? err : check_decode(f);
    err = err ? err : check_letterbox(f);
    return err ? err : tess_check_work(f);
}

// Parts of the work memory, in their order.
typedef struct tess_parts {
    uint64_t state, candidates, end;
} tess_parts_t;

static uint64_t aligned(uint64_t bytes) {
    return (bytes + TESS_ALIGN - 1) / TESS_ALIGN * TESS_ALIGN;
}

static tess_parts_t lay_out(const tess_file_t *f) {
    const struct tess_header *h = f->header;
    tess_parts_t parts;
    parts.state = aligned(h->activation_size);
    parts.candidates = parts.state + aligned(f->max_nodes * sizeof(struct tess_state));
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
    t->input_scratch = (void *)(bytes + f.header->letterbox);
    t->candidates = (void *)(bytes + parts.candidates);
    t->content_w = f.header->input_w;
    t->content_h = f.header->input_h;
    return TESS_OK;
}

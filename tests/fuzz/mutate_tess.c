/*
 * See mutate_tess.h. Numbers of records are changed one by one; now and then the plan changes as a whole (a segment is cut in
 * two, a node is added), and shapes, buffers or both are made to fit together again, which chance would never find.
 */
#include <string.h>

#include "mutate_tess.h"
#include "tess_format.h"

enum { MOST_ARENA = 1 << 20 };

/// Chance ///

static uint32_t state;

static uint32_t below(uint32_t limit) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return limit ? state % limit : 0;
}

/// The file's records, as far as they lie inside of it ///

typedef struct file {
    uint8_t *bytes;
    size_t size, capacity;
} file_t;

typedef struct records {
    uint8_t *first;
    uint32_t size, count;
} records_t;

static struct tess_header *header(const file_t *f) {
    return (void *)f->bytes;
}

static records_t records(const file_t *f, uint32_t offset, size_t size, uint32_t count) {
    records_t found = {f->bytes, (uint32_t)size, 0};
    if (offset >= sizeof(struct tess_header) && offset % TESS_ALIGN == 0 && offset < f->size) {
        uint32_t room = (uint32_t)((f->size - offset) / size);
        found.first = f->bytes + offset;
        found.count = count < room ? count : room;
    }
    return found;
}

static records_t nodes_of(const file_t *f) {
    return records(f, header(f)->nodes, sizeof(struct tess_node), header(f)->n_nodes);
}

static records_t segments_of(const file_t *f) {
    return records(f, header(f)->segments, sizeof(struct tess_segment), header(f)->n_segments);
}

static records_t levels_of(const file_t *f) {
    records_t head = records(f, header(f)->decode, sizeof(struct tess_decode), 1);
    records_t levels = {head.first + sizeof(struct tess_decode), sizeof(struct tess_level), 0};
    size_t room = head.count ? (f->size - header(f)->decode - sizeof(struct tess_decode)) / sizeof(struct tess_level) : 0;
    uint32_t count = head.count ? ((struct tess_decode *)(void *)head.first)->n_levels : 0;
    levels.count = count < room ? count : (uint32_t)room;
    return levels;
}

static records_t any_records(const file_t *f) {
    const struct tess_header *h = header(f);
    switch (below(16)) {
    case 0: return (records_t){f->bytes + 4, sizeof(*h) - 4, 1};
    case 1:
    case 2:
    case 3: return segments_of(f);
    case 4: return records(f, h->outputs, sizeof(struct tess_output), h->n_outputs);
    case 5: return records(f, h->decode, sizeof(struct tess_decode), 1);
    case 6: return levels_of(f);
    case 7: return records(f, h->data, 4, h->data_size / 4);
    default: return nodes_of(f);
    }
}

/// Numbers ///

static uint32_t get(const uint8_t *at, uint32_t width) {
    uint32_t value = 0;
    memcpy(&value, at, width);
    return value;
}

static uint32_t another(uint32_t value) {
    static const uint32_t interesting[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 30, 31, 127, 128, 254, 255, 256, 1024, 32767, 32768,
        65535, 65536, INT32_MAX, (uint32_t)INT32_MAX + 1, UINT32_MAX};
    switch (below(6)) {
    case 0: return value ^ (1u << below(32));
    case 1: return value + below(9) - 4;
    case 2: return value * 2;
    case 3: return value / 2;
    case 4: return below(UINT32_MAX) >> below(32);
    default: return interesting[below(sizeof(interesting) / sizeof(interesting[0]))];
    }
}

// one number of one record; all are aligned to their width
static void change_number(const file_t *f) {
    records_t r = any_records(f);
    uint32_t width = 1u << below(3);
    if (!r.count) {
        return;
    }
    uint32_t at = below(r.size / width) * width, index = below(r.count);
    uint8_t *number = r.first + (size_t)index * r.size + at;
    const uint8_t *model = below(4) ? number : r.first + (size_t)below(r.count) * r.size + at;
    uint32_t value = model == number ? another(get(number, width)) : get(model, width);
    memcpy(number, &value, width);
}

/// The plan as a whole ///

// Moves records to the file's end, with room for one more behind the last. NULL where there is no room.
static void *with_one_more(file_t *f, uint32_t *offset, records_t r) {
    size_t at = (f->size + TESS_ALIGN - 1) / TESS_ALIGN * TESS_ALIGN, bytes = (size_t)r.size * (r.count + 1);
    if (!r.count || at + bytes > f->capacity) {
        return NULL;
    }
    memset(f->bytes + f->size, 0, at + bytes - f->size);
    memmove(f->bytes + at, r.first, bytes - r.size);
    f->size = at + bytes;
    *offset = (uint32_t)at;
    return f->bytes + at;
}

static void cut_segment(file_t *f) {
    records_t segments = segments_of(f);
    struct tess_segment *s = with_one_more(f, &header(f)->segments, segments);
    if (!s) {
        return;
    }
    uint32_t k = below(segments.count);
    memmove(&s[k + 1], &s[k], sizeof(*s) * (segments.count - k));
    header(f)->n_segments = (uint16_t)(segments.count + 1);
    s[k].n_nodes = (uint16_t)(1 + below(s[k].n_nodes > 1 ? s[k].n_nodes - 1u : 1));
    s[k + 1].first_node = (uint16_t)(s[k].first_node + s[k].n_nodes);
    s[k + 1].n_nodes = (uint16_t)(s[k + 1].n_nodes - s[k].n_nodes);
    s[k].reference = (uint16_t)(s[k].first_node + below(s[k].n_nodes));
    s[k + 1].reference = (uint16_t)(s[k + 1].first_node + below(s[k + 1].n_nodes));
}

// a copy of some node at the end, with other inputs
static void add_node(file_t *f) {
    records_t segments = segments_of(f), r = nodes_of(f);
    struct tess_node *nodes = segments.count ? with_one_more(f, &header(f)->nodes, r) : NULL;
    if (!nodes) {
        return;
    }
    nodes[r.count] = nodes[below(r.count)];
    for (int j = 0; j < TESS_MAX_INPUTS; j++) {
        nodes[r.count].inputs[j] = (uint16_t)below(r.count);
    }
    header(f)->n_nodes = (uint16_t)(r.count + 1);
    struct tess_segment *last = (struct tess_segment *)(void *)segments.first + segments.count - 1;
    last->n_nodes++;
}

/// Making things fit ///

static uint16_t windows(uint32_t in, uint32_t kernel, uint32_t stride, uint32_t pad) {
    return (uint16_t)(in + pad > kernel ? (in + pad - kernel) / (stride ? stride : 1) + 1 : 1);
}

static void fit_shape(struct tess_node *n, const struct tess_node *nodes) {
    const struct tess_node *a = &nodes[n->inputs[0]], *b = &nodes[n->inputs[1]];
    switch (n->kind) {
    case TESS_CONV:
    case TESS_DEPTHWISE:
    case TESS_MAXPOOL:
    case TESS_AVGPOOL:
        n->h = windows(a->h, n->kernel_h, n->stride_h, n->pad_top);
        n->w = windows(a->w, n->kernel_w, n->stride_w, n->pad_left);
        n->c = n->kind == TESS_CONV ? n->c : (uint16_t)(a->c * (n->kind == TESS_DEPTHWISE ? n->multiplier : 1));
        break;
    case TESS_RESIZE:
        n->h = (uint16_t)(a->h * n->stride_h - below(n->stride_h));
        n->w = (uint16_t)(a->w * n->stride_w - below(n->stride_w));
        n->c = a->c;
        break;
    case TESS_ADD:
    case TESS_SUB:
    case TESS_MUL:
        n->h = a->h > b->h ? a->h : b->h;
        n->w = a->w > b->w ? a->w : b->w;
        n->c = a->c > b->c ? a->c : b->c;
        break;
    case TESS_MEAN:
        n->h = n->h == 1 ? 1 : a->h;
        n->w = n->w == 1 ? 1 : a->w;
        n->c = a->c;
        break;
    case TESS_SINK:
    case TESS_CONCAT:
        n->h = a->h;
        n->w = a->w;
        n->c = 0;
        for (int j = 0; j < n->n_inputs && j < TESS_MAX_INPUTS; j++) {
            n->c = (uint16_t)(n->c + nodes[n->inputs[j]].c);
        }
        break;
    case TESS_SLICE:
        for (int axis = 0; axis < 3; axis++) {
            uint16_t in = axis == 0 ? a->h : axis == 1 ? a->w : a->c, *out = axis == 0 ? &n->h : axis == 1 ? &n->w : &n->c;
            n->start[axis] = (uint16_t)below(in);
            *out = (uint16_t)(1 + below(in - n->start[axis]));
        }
        break;
    case TESS_PAD:
        n->h = (uint16_t)(a->h + n->pad_top + below(3));
        n->w = (uint16_t)(a->w + n->pad_left + below(3));
        n->c = a->c;
        break;
    default:
        n->h = a->h;
        n->w = a->w;
        n->c = a->c;
        break;
    }
}

static void fit_shapes(const file_t *f) {
    records_t r = nodes_of(f);
    struct tess_node *nodes = (void *)r.first;
    for (uint32_t i = 0; i < r.count; i++) {
        int known = 1;
        for (int j = 0; j < TESS_MAX_INPUTS; j++) {
            known &= j >= nodes[i].n_inputs || nodes[i].inputs[j] < i;
        }
        if (i == 0) {
            nodes[0].h = header(f)->input_h;
            nodes[0].w = header(f)->input_w;
            nodes[0].c = header(f)->input_c;
        } else if (known && nodes[i].n_inputs > 0) {
            uint16_t second = nodes[i].inputs[1];
            nodes[i].inputs[1] = second < i ? second : nodes[i].inputs[0];
            fit_shape(&nodes[i], nodes);
            nodes[i].inputs[1] = second;
        }
    }
}

// every buffer whole or a ring of some rows, one behind the other or in one place
static void fit_buffers(const file_t *f) {
    records_t r = nodes_of(f);
    uint32_t end = 0, apart = below(8), rings = below(2);
    for (uint32_t i = 0; i < r.count; i++) {
        struct tess_node *n = &((struct tess_node *)(void *)r.first)[i];
        int ring = rings && !(n->flags & TESS_NODE_MATERIALISED);
        n->buffer_rows = (uint16_t)(n->kind == TESS_SINK ? 0 : ring ? 1 + below(n->h) : n->h);
        n->buffer_cols = n->kind == TESS_SINK ? 0 : n->w;
        uint64_t bytes = (uint64_t)n->buffer_rows * n->buffer_cols * n->c;
        uint64_t stop = bytes + (apart ? end : 0);
        if (stop < MOST_ARENA) {
            n->buffer_offset = apart ? end : 0;
            end = stop > end ? (uint32_t)stop : end;
        }
        uint32_t fresh = ring && below(2) ? 1 + below(n->h) : 0;
        bytes = (uint64_t)fresh * n->buffer_cols * n->c;
        int fits = bytes + end < MOST_ARENA;
        n->fresh_rows = (uint16_t)(fits ? fresh : 0);
        n->fresh_offset = fits ? end : 0;
        end += fits ? (uint32_t)bytes : 0;
        n->flags = (uint8_t)((n->flags & 15) | below(16) << 4);
    }
    struct tess_node *source = (void *)r.first;
    uint64_t letterbox = r.count ? (uint64_t)4 * source->buffer_cols * source->c : 0;
    header(f)->letterbox = (end + 3) / 4 * 4;
    header(f)->activation_size = letterbox < MOST_ARENA ? header(f)->letterbox + (uint32_t)letterbox : end;
}

void mend_tess(uint8_t *model, size_t size) {
    uint32_t total = (uint32_t)size, crc;
    if (size < sizeof(struct tess_header)) {
        return;
    }
    memcpy(model + 8, &total, 4);
    crc = tess_crc32(model + 16, total - 16);
    memcpy(model + 12, &crc, 4);
}

size_t mutate_tess(uint8_t *model, size_t size, size_t capacity, uint32_t seed) {
    file_t f = {model, size, capacity};
    if (size < sizeof(struct tess_header)) {
        return size;
    }
    state = seed * 2654435761u | 1;
    for (uint32_t changes = below(4) + 1; changes > 0; changes--) {
        switch (below(16)) {
        case 0: cut_segment(&f); break;
        case 1: add_node(&f); break;
        default: change_number(&f); break;
        }
    }
    if (below(2)) {
        fit_shapes(&f);
    }
    if (below(2)) {
        fit_buffers(&f);
    }
    mend_tess(model, f.size);
    return f.size;
}

/*
 * Checks the schedule: segments, and how much work they can be.
 */
#include "tess_check.h"

/// Segments ///

// Whatever a node of this segment reads from an earlier one must be there whole; the reference must be a terminal
// where rows are computed again.
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
    return !s->carry && reference_is_read && !materialised ? TESS_ERR_PLAN : TESS_OK;
}

// Whoever feeds a camera's lines relies on the flag: each row of the picture once, top to bottom.
static int check_sequential(const tess_file_t *f) {
    const struct tess_segment *s = &f->segments[0];
    int once = s->carry || (f->nodes[0].flags & TESS_NODE_MATERIALISED) || s->rows >= f->nodes[s->reference].h;
    return (f->header->flags & TESS_HEADER_SEQUENTIAL) && !(once && s->columns == 1) ? TESS_ERR_PLAN : TESS_OK;
}

int tess_check_segments(tess_file_t *f) {
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
    return next == f->header->n_nodes ? check_sequential(f) : TESS_ERR_PLAN;
}

/// Work ///

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
    const struct tess_node *input = &f->nodes[node->n_inputs ? node->inputs[0] : 0];
    uint64_t taps = (uint64_t)node->kernel_h * node->kernel_w;
    switch (node->kind) {
    case TESS_CONV: return taps * node->c * input->c;
    case TESS_DEPTHWISE:
    case TESS_MAXPOOL:
    case TESS_AVGPOOL: return taps * node->c;
    case TESS_MEAN: return (uint64_t)(node->h == input->h ? 1 : input->h) * (node->w == input->w ? 1 : input->w) * node->c;
    case TESS_SOFTMAX: return (uint64_t)8 * node->c + 64;
    case TESS_SINK: return product(node->c, f->header->n_outputs);
    default: return node->c;
    }
}

// An upper bound on the work of a segment. Nodes that compute rows again are held back by the size of their ring, which
// limits what a band can ask of them.
static uint64_t segment_work(const tess_file_t *f, const struct tess_segment *s) {
    uint64_t bands = ((uint64_t)f->nodes[s->reference].h + s->rows - 1) / s->rows;
    for (uint32_t i = s->first_node; s->carry && i < (uint32_t)s->first_node + s->n_nodes; i++) {
        bands += f->nodes[i].h; // followers may come late, and then each band advances one
    }
    uint64_t steps = s->columns * bands;
    uint64_t work = product(steps, (uint64_t)s->n_nodes * 64);
    for (uint32_t i = s->first_node; i < (uint32_t)s->first_node + s->n_nodes; i++) {
        const struct tess_node *node = &f->nodes[i];
        uint64_t rows = product(s->columns, node->h), cols = node->w;
        if (node->kind == TESS_SINK) {
            rows = node->h; // shares do not overlap
        } else if (!(node->flags & TESS_NODE_MATERIALISED)) {
            rows = s->carry ? rows : product(steps, least(node->buffer_rows, node->h));
            // the self-test makes each row of the picture from its first column on
            cols = node->kind == TESS_SOURCE ? cols : least(cols, node->buffer_cols);
        }
        work = sum(work, product(product(rows, cols), pixel_work(f, node)));
    }
    return work;
}

int tess_check_work(const tess_file_t *f) {
    uint64_t work = 0;
    for (uint32_t i = 0; i < f->header->n_segments; i++) {
        work = sum(work, segment_work(f, &f->segments[i]));
    }
    if (f->decode) {
        // suppression and voting
        work = sum(work, (uint64_t)2 * f->decode->max_candidates * f->decode->max_detections);
    }
    return work > TESS_MAX_WORK ? TESS_ERR_WORK : TESS_OK;
}

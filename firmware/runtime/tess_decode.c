/*
 * From head maps to boxes. While rows pass by, the best max_candidates are kept in a heap with the worst on top; tess_detect
 * sorts them in place and thins them out (greedy non-maximum suppression per class, then box voting). SPEC.md, "Decoding and NMS".
 */
#include "tess_format.h"

// 1 when a stands before b in the order (score descending, class ascending, cell ascending)
static int better(const struct tess_candidate *a, const struct tess_candidate *b) {
    if (a->score != b->score) {
        return a->score > b->score;
    }
    if (a->label != b->label) {
        return a->label < b->label;
    }
    return a->cell < b->cell;
}

/// The set of candidates ///

static void swap(struct tess_candidate *a, struct tess_candidate *b) {
    struct tess_candidate kept = *a;
    *a = *b;
    *b = kept;
}

// move heap[i] down until no child is worse than it
static void sift_down(struct tess_candidate *heap, uint32_t count, uint32_t i) {
    for (;;) {
        uint32_t worst = i, child = 2 * i + 1;
        for (uint32_t k = child; k < child + 2 && k < count; k++) {
            worst = better(&heap[worst], &heap[k]) ? k : worst;
        }
        if (worst == i) {
            return;
        }
        swap(&heap[i], &heap[worst]);
        i = worst;
    }
}

static void sift_up(struct tess_candidate *heap, uint32_t i) {
    while (i > 0 && better(&heap[(i - 1) / 2], &heap[i])) {
        swap(&heap[(i - 1) / 2], &heap[i]);
        i = (i - 1) / 2;
    }
}

static int is_welcome(const tess_t *t, const struct tess_candidate *c) {
    return t->n_candidates < t->decode->max_candidates || better(c, &t->candidates[0]);
}

static void keep(tess_t *t, const struct tess_candidate *c) {
    if (t->n_candidates < t->decode->max_candidates) {
        t->candidates[t->n_candidates] = *c;
        sift_up(t->candidates, t->n_candidates);
        t->n_candidates++;
    } else {
        t->candidates[0] = *c;
        sift_down(t->candidates, t->n_candidates, 0);
    }
}

// heap to array, best first: the worst leaves the top and takes the place behind the rest
static void sort(tess_t *t) {
    for (uint32_t count = t->n_candidates; count > 1; count--) {
        swap(&t->candidates[0], &t->candidates[count - 1]);
        sift_down(t->candidates, count - 1, 0);
    }
    t->sorted = 1;
}

/// Rows of a level ///

static int16_t clip(int32_t value, int32_t limit) {
    value = value < 0 ? 0 : value;
    return (int16_t)(value > limit ? limit : value);
}

// box around a cell's centre, Q4; 0 when nothing of it lies in the content area
static int place_box(const tess_t *t, const struct tess_level *level, int32_t x, int32_t y, const int8_t *distances,
        struct tess_candidate *c) {
    const int16_t *table = tess_array(t, level->distance_table);
    int32_t centre_x = (2 * x + 1) * level->stride * 8, centre_y = (2 * y + 1) * level->stride * 8;
    int32_t right = 16 * t->content_w, bottom = 16 * t->content_h;
    c->x1 = clip(centre_x - table[distances[0] + 128], right);
    c->y1 = clip(centre_y - table[distances[1] + 128], bottom);
    c->x2 = clip(centre_x + table[distances[2] + 128], right);
    c->y2 = clip(centre_y + table[distances[3] + 128], bottom);
    return c->x1 < c->x2 && c->y1 < c->y2;
}

// all classes of one cell; `classes` is NULL when there is one
static void decode_cell(tess_t *t, const struct tess_level *level, int32_t x, int32_t y, uint32_t objectness,
        const int8_t *classes, const int8_t *distances) {
    const uint16_t *class_table = tess_array(t, level->class_table);
    struct tess_candidate c = {0};
    int placed = 0;
    c.cell = level->first_cell + (uint32_t)y * t->nodes[level->sink].w + (uint32_t)x;
    for (uint16_t label = 0; label < t->decode->n_classes; label++) {
        uint32_t score = classes ? (objectness * class_table[classes[label] + 128]) >> 15 : objectness;
        c.score = (uint16_t)score;
        c.label = label;
        if (score < t->decode->score_threshold || !is_welcome(t, &c)) {
            continue;
        }
        if (!placed && !place_box(t, level, x, y, distances, &c)) {
            return;
        }
        placed = 1;
        keep(t, &c);
    }
}

static void decode_level_row(tess_t *t, const struct tess_level *level, int32_t y, int32_t col0, int32_t col1,
        const int8_t *const *rows) {
    const uint16_t *objectness_table = tess_array(t, level->objectness_table);
    uint16_t n_classes = t->decode->n_classes;
    const int8_t *classes = n_classes > 1 ? rows[1] : NULL;
    const int8_t *boxes = n_classes > 1 ? rows[2] : rows[1];
    for (int32_t k = 0; k < col1 - col0; k++) {
        uint32_t objectness = objectness_table[rows[0][k] + 128];
        // a class only lowers it
        if (objectness >= t->decode->score_threshold) {
            decode_cell(t, level, col0 + k, y, objectness, classes ? classes + k * n_classes : NULL, boxes + k * 4);
        }
    }
}

void tess_decode_row(tess_t *t, uint16_t sink, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *const *rows) {
    for (uint16_t i = 0; t->decode && i < t->decode->n_levels; i++) {
        const struct tess_level *level = &tess_levels(t->decode)[i];
        if (level->sink == sink) {
            decode_level_row(t, level, y, col0, col1, rows);
        }
    }
}

/// Non-maximum suppression and voting ///

static int32_t overlap(int32_t a1, int32_t a2, int32_t b1, int32_t b2) {
    int32_t from = a1 > b1 ? a1 : b1, to = a2 < b2 ? a2 : b2;
    return to > from ? to - from : 0;
}

static int64_t area(const tess_box_t *box) {
    return (int64_t)(box->x2 - box->x1) * (box->y2 - box->y1);
}

// 1 when two boxes are of one class and overlap by more than the threshold
static int overlaps(const tess_box_t *a, const tess_box_t *b, uint16_t iou_threshold) {
    if (a->label != b->label) {
        return 0;
    }
    int64_t inter = (int64_t)overlap(a->x1, a->x2, b->x1, b->x2) * overlap(a->y1, a->y2, b->y1, b->y2);
    return inter * 32768 > iou_threshold * (area(a) + area(b) - inter);
}

static tess_box_t box_of(const struct tess_candidate *c) {
    return (tess_box_t){c->x1, c->y1, c->x2, c->y2, c->score, c->label};
}

// corners become the mean, weighted by score, of all candidates that the box overlaps, itself among them
static void vote(const tess_t *t, tess_box_t *box) {
    uint64_t x1 = 0, y1 = 0, x2 = 0, y2 = 0, weight = 0;
    for (uint32_t i = 0; i < t->n_candidates; i++) {
        tess_box_t voter = box_of(&t->candidates[i]);
        if (overlaps(box, &voter, t->decode->iou_threshold)) {
            x1 += (uint64_t)voter.score * (uint64_t)voter.x1;
            y1 += (uint64_t)voter.score * (uint64_t)voter.y1;
            x2 += (uint64_t)voter.score * (uint64_t)voter.x2;
            y2 += (uint64_t)voter.score * (uint64_t)voter.y2;
            weight += voter.score;
        }
    }
    // none when nothing overlaps by more than a threshold of 1, or scores are 0
    if (weight) {
        box->x1 = (int16_t)((x1 + weight / 2) / weight);
        box->y1 = (int16_t)((y1 + weight / 2) / weight);
        box->x2 = (int16_t)((x2 + weight / 2) / weight);
        box->y2 = (int16_t)((y2 + weight / 2) / weight);
    }
}

int tess_detect(tess_t *t, tess_box_t *boxes, size_t capacity) {
    if (!t->decode) {
        return TESS_ERR_DECODER;
    }
    if (!boxes && capacity) {
        return TESS_ERR_ARGUMENT;
    }
    if (!t->sorted) {
        sort(t);
    }
    size_t limit = capacity < t->decode->max_detections ? capacity : t->decode->max_detections;
    size_t count = 0;
    for (uint32_t i = 0; i < t->n_candidates && count < limit; i++) {
        tess_box_t box = box_of(&t->candidates[i]);
        size_t k = 0;
        while (k < count && !overlaps(&boxes[k], &box, t->decode->iou_threshold)) {
            k++;
        }
        if (k == count) {
            boxes[count++] = box;
        }
    }
    for (size_t k = 0; k < count; k++) {
        vote(t, &boxes[k]);
    }
    return (int)count;
}

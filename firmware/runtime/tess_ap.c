/*
 * Average precision from counters. See tess_ap.h.
 */
#include <string.h>

#include "tess_ap.h"
#include "tess_format.h"

#define NONE SIZE_MAX

/// Score levels ///

// put a value at its place among `count` ascending ones unless it is there; the new count
static size_t insert(uint16_t *levels, size_t count, uint16_t value) {
    size_t i = count;
    while (i > 0 && levels[i - 1] > value) {
        i--;
    }
    if (i > 0 && levels[i - 1] == value) {
        return count;
    }
    memmove(&levels[i + 1], &levels[i], (count - i) * sizeof(*levels));
    levels[i] = value;
    return count + 1;
}

// 1 when the value at this place of the tables stands at an earlier place too
static int seen_before(const tess_t *t, uint16_t level, int entry, uint16_t value) {
    for (uint16_t l = 0; l <= level; l++) {
        const uint16_t *table = tess_array(t, tess_levels(t->decode)[l].objectness_table);
        for (int i = 0; i < (l < level ? 256 : entry); i++) {
            if (table[i] == value) {
                return 1;
            }
        }
    }
    return 0;
}

int tess_ap_levels(const tess_t *t, uint16_t *levels, size_t capacity) {
    if (!t->decode) {
        return TESS_ERR_DECODER;
    }
    size_t count = 0;
    for (uint16_t l = 0; l < t->decode->n_levels; l++) {
        const uint16_t *table = tess_array(t, tess_levels(t->decode)[l].objectness_table);
        for (int i = 0; i < 256; i++) {
            if (table[i] <= t->decode->score_threshold || seen_before(t, l, i, table[i])) {
                continue;
            }
            if (levels && count + 1 >= capacity) {
                return TESS_ERR_ARGUMENT;
            }
            count = levels ? insert(levels, count, table[i]) : count + 1;
        }
    }
    if (levels && count >= capacity) {
        return TESS_ERR_ARGUMENT;
    }
    return (int)(levels ? insert(levels, count, t->decode->score_threshold) : count + 1);
}

// the highest level that is not above the score, NONE when all are
static size_t level_of(const tess_ap_t *ap, uint16_t score) {
    size_t from = 0, to = ap->n_levels;
    while (from < to) {
        size_t middle = (from + to) / 2;
        if (ap->levels[middle] <= score) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from > 0 ? from - 1 : NONE;
}

/// Counters ///

size_t tess_ap_counters(uint16_t n_classes, uint16_t n_levels) {
    return ((size_t)1 + 2 * (size_t)n_levels) * n_classes;
}

static uint32_t *counters_of(const tess_ap_t *ap, uint16_t label) {
    return ap->counters + tess_ap_counters(label, ap->n_levels);
}

int tess_ap_init(tess_ap_t *ap, const uint16_t *levels, uint16_t n_levels, uint16_t n_classes, uint16_t iou_threshold,
        uint32_t *counters, size_t n_counters) {
    size_t wanted = tess_ap_counters(n_classes, n_levels);
    if (!levels || !counters || n_levels < 1 || n_classes < 1 || iou_threshold < 1 || iou_threshold > 32768
            || n_counters < wanted) {
        return TESS_ERR_ARGUMENT;
    }
    for (uint16_t i = 1; i < n_levels; i++) {
        if (levels[i - 1] >= levels[i]) {
            return TESS_ERR_ARGUMENT;
        }
    }
    memset(counters, 0, wanted * sizeof(*counters));
    ap->levels = levels;
    ap->counters = counters;
    ap->n_levels = n_levels;
    ap->n_classes = n_classes;
    ap->iou_threshold = iou_threshold;
    return TESS_OK;
}

/// Truth ///

// a position on a side of `size` pixels, Q4, on one of `content` pixels; rounded, halves up, 0 .. 16 * content
static int32_t scale(int32_t position, uint32_t size, uint32_t content) {
    uint64_t at = position > 0 ? (uint64_t)position : 0;
    uint64_t scaled = (2 * at * content + size) / (2 * size);
    return scaled < 16 * content ? (int32_t)scaled : (int32_t)(16 * content);
}

static void place_side(int16_t *first, int16_t *stop, int32_t from, int32_t to, uint32_t size, uint32_t content) {
    int32_t low = scale(from, size, content), high = scale(to, size, content);
    low = low < (int32_t)(16 * content) ? low : (int32_t)(16 * content) - 1;
    *first = (int16_t)low;
    *stop = (int16_t)(high > low ? high : low + 1);
}

int tess_ap_place(tess_truth_t *truth, const int32_t corners[4], uint16_t width, uint16_t height, uint16_t content_w,
        uint16_t content_h) {
    if (width < 1 || height < 1 || content_w < 1 || content_h < 1 || content_w > INT16_MAX / 16 || content_h > INT16_MAX / 16
            || corners[2] < corners[0] || corners[3] < corners[1]) {
        return TESS_ERR_ARGUMENT;
    }
    place_side(&truth->x1, &truth->x2, corners[0], corners[2], width, content_w);
    place_side(&truth->y1, &truth->y2, corners[1], corners[3], height, content_h);
    return TESS_OK;
}

/// Matching ///

static int64_t overlap(int32_t a1, int32_t a2, int32_t b1, int32_t b2) {
    int32_t from = a1 > b1 ? a1 : b1, to = a2 < b2 ? a2 : b2;
    return to > from ? to - from : 0;
}

// the object of the box's class that it overlaps most, the first of equals; NONE when it overlaps none enough
static size_t best_object(const tess_ap_t *ap, const tess_box_t *box, const tess_truth_t *truth, size_t n_truth) {
    size_t best = NONE;
    int64_t best_inter = 0, best_union = 1, box_area = (int64_t)(box->x2 - box->x1) * (box->y2 - box->y1);
    for (size_t k = 0; k < n_truth; k++) {
        const tess_truth_t *object = &truth[k];
        if (object->label != box->label) {
            continue;
        }
        int64_t inter = overlap(box->x1, box->x2, object->x1, object->x2) * overlap(box->y1, box->y2, object->y1, object->y2);
        int64_t whole = box_area + (int64_t)(object->x2 - object->x1) * (object->y2 - object->y1) - inter;
        if (inter * best_union > best_inter * whole) {  // below 2^30 * 2^31
            best = k;
            best_inter = inter;
            best_union = whole;
        }
    }
    return best_inter * 32768 >= ap->iou_threshold * best_union ? best : NONE;
}

static int is_box(int32_t x1, int32_t y1, int32_t x2, int32_t y2) {
    return x1 >= 0 && y1 >= 0 && x1 < x2 && y1 < y2;
}

static int check_picture(const tess_ap_t *ap, const tess_box_t *boxes, size_t n_boxes, const tess_truth_t *truth,
        size_t n_truth) {
    if ((!boxes && n_boxes) || (!truth && n_truth)) {
        return TESS_ERR_ARGUMENT;
    }
    for (size_t i = 0; i < n_boxes; i++) {
        const tess_box_t *box = &boxes[i];
        if (box->label >= ap->n_classes || level_of(ap, box->score) == NONE || !is_box(box->x1, box->y1, box->x2, box->y2)
                || (i > 0 && boxes[i - 1].score < box->score)) {
            return TESS_ERR_ARGUMENT;
        }
    }
    for (size_t k = 0; k < n_truth; k++) {
        const tess_truth_t *object = &truth[k];
        if (object->label >= ap->n_classes || !is_box(object->x1, object->y1, object->x2, object->y2)) {
            return TESS_ERR_ARGUMENT;
        }
    }
    return TESS_OK;
}

int tess_ap_add(tess_ap_t *ap, const tess_box_t *boxes, size_t n_boxes, tess_truth_t *truth, size_t n_truth) {
    int err = check_picture(ap, boxes, n_boxes, truth, n_truth);
    if (err) {
        return err;
    }
    for (size_t k = 0; k < n_truth; k++) {
        truth[k].taken = 0;
        counters_of(ap, truth[k].label)[0] += !truth[k].ignore;
    }
    for (size_t i = 0; i < n_boxes; i++) {
        uint32_t *hits = counters_of(ap, boxes[i].label) + 1, *misses = hits + ap->n_levels;
        size_t level = level_of(ap, boxes[i].score), found = best_object(ap, &boxes[i], truth, n_truth);
        if (found == NONE) {
            misses[level]++;
        } else if (!truth[found].ignore) {  // no second choice when it is taken
            (truth[found].taken ? misses : hits)[level]++;
            truth[found].taken = 1;
        }
    }
    return TESS_OK;
}

/// Result ///

int tess_ap_class(const tess_ap_t *ap, uint16_t label, uint32_t *q30) {
    if (!q30 || label >= ap->n_classes) {
        return TESS_ERR_ARGUMENT;
    }
    const uint32_t *objects = counters_of(ap, label), *hits = objects + 1, *misses = hits + ap->n_levels;
    *q30 = 0;
    if (!*objects) {
        return 0;
    }
    uint64_t found = 0, all = 0, best = 0, area = 0;
    for (uint16_t l = 0; l < ap->n_levels; l++) {
        found += hits[l];
        all += (uint64_t)hits[l] + misses[l];
    }
    // from the end of the curve, where recall is highest: `best` is the best precision there or beyond
    for (uint16_t l = 0; l < ap->n_levels; l++) {
        uint64_t precision = all ? ((found << 30) + all / 2) / all : 0;
        best = precision > best ? precision : best;
        area += hits[l] * best;
        found -= hits[l];
        all -= (uint64_t)hits[l] + misses[l];
    }
    *q30 = (uint32_t)((area + *objects / 2) / *objects);
    return 1;
}

int tess_ap_mean(const tess_ap_t *ap, uint32_t *q30) {
    uint64_t sum = 0;
    uint32_t count = 0;
    if (!q30) {
        return TESS_ERR_ARGUMENT;
    }
    for (uint16_t label = 0; label < ap->n_classes; label++) {
        uint32_t one;
        count += (uint32_t)tess_ap_class(ap, label, &one);
        sum += one;
    }
    *q30 = count ? (uint32_t)((sum + count / 2) / count) : 0;
    return (int)count;
}

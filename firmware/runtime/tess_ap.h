/*
 * Average precision where the detector runs: counts hits and false alarms per class and score level in a fixed block of
 * counters, however many pictures come, and needs no list of detections and no floating point.
 *
 *     tess_ap_init(&ap, levels, tess_ap_levels(&t, levels, 1024), tess_classes(&t), 16384, counters, n_counters);
 *     for each picture: tess_run, tess_detect, tess_ap_place (per object), tess_ap_add
 *     tess_ap_class(&ap, 0, &q30)                           // average precision, Q30
 *
 * An int8 head knows few scores: 256 a level of the pyramid where there is one class. All detections of one score are one step
 * of the precision-recall curve, so the answer does not depend on the order of pictures. With several classes a score is a
 * product and counts as the next lower level. Area under the monotone curve, as PASCAL VOC since 2010; matching as in
 * detection/metrics/voc.py; the same numbers as detection/metrics/grouped.py, to the bit.
 */
#ifndef TESS_AP_H
#define TESS_AP_H

#include "tess.h"

#ifdef __cplusplus
extern "C" {
#endif

// One true object of a picture. tess_ap_place makes the corners.
typedef struct tess_truth {
    // Corners in Q4 pixels of the network frame, 0 <= x1 < x2 and 0 <= y1 < y2.
    int16_t x1, y1, x2, y2;

    uint16_t label;
    uint8_t ignore;             // 1: difficult, crowd or invalid; finding it is neither hit nor miss
    uint8_t taken;              // private
} tess_truth_t;

// An evaluation. The caller owns it, tess_ap_init fills it; fields are private.
typedef struct tess_ap {
    const uint16_t *levels;
    uint32_t *counters;         // per class: objects, hits of each level, false alarms of each level
    uint16_t n_levels, n_classes;
    uint16_t iou_threshold;
} tess_ap_t;

// Writes the scores that a model's head can give, Q15, ascending: its score threshold, then what the objectness tables hold
// above it. `levels` may be NULL to ask how many they are. Returns their number, at most 1 + 256 a level of the pyramid,
// TESS_ERR_ARGUMENT when capacity is less, or TESS_ERR_DECODER without a decoder.
int tess_ap_levels(const tess_t *t, uint16_t *levels, size_t capacity);

// Number of counters that tess_ap_init wants: (1 + 2 * n_levels) * n_classes.
size_t tess_ap_counters(uint16_t n_classes, uint16_t n_levels);

// Begins an evaluation: sets counters to 0. levels: Q15 scores, strictly ascending; they and the counters must stay where they
// are. iou_threshold: Q15, 1..32768; a detection that overlaps an object by as much finds it. At most 2^31 detections in all.
// Returns TESS_ERR_ARGUMENT for levels out of order, no classes, a threshold out of range or too few counters.
int tess_ap_init(tess_ap_t *ap, const uint16_t *levels, uint16_t n_levels, uint16_t n_classes, uint16_t iou_threshold,
    uint32_t *counters, size_t n_counters);

// Sets the corners of an object from those in the picture: Q4 pixels x1, y1, x2, y2 of a picture of width x height, which
// tess_letterbox_content puts at content_w x content_h. Rounds halves up, clips to the content, and leaves at least 1/16 pixel.
// Returns TESS_ERR_ARGUMENT for a size of 0, content beyond 2047, or a corner that ends before it starts.
int tess_ap_place(tess_truth_t *truth, const int32_t corners[4], uint16_t width, uint16_t height, uint16_t content_w,
    uint16_t content_h);

// Adds one picture: `boxes` as tess_detect left them, best first. Changes nothing but `taken` unless it returns 0.
// Returns TESS_ERR_ARGUMENT for an unknown label, a score below the first level, boxes out of order or malformed truth.
int tess_ap_add(tess_ap_t *ap, const tess_box_t *boxes, size_t n_boxes, tess_truth_t *truth, size_t n_truth);

// Average precision of a class in Q30. Returns 1, or 0 (and *q30 = 0) when no object of the class is to be found and
// average precision is not defined; TESS_ERR_ARGUMENT when there is no such class.
int tess_ap_class(const tess_ap_t *ap, uint16_t label, uint32_t *q30);

// Mean over the classes that have objects, Q30, halves up. Returns how many those are.
int tess_ap_mean(const tess_ap_t *ap, uint32_t *q30);

#ifdef __cplusplus
}
#endif

#endif

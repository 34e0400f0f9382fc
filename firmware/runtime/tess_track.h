/*
 * Following objects from picture to picture, and counting those that cross a line. Works on the boxes of tess_detect, needs
 * no model. SPEC.md section 6 says what it computes.
 *
 *     static tess_track_t places[32];
 *     tess_tracker_t tracker;
 *     tess_tracker_init(&tracker, places, 32, NULL);
 *     n = tess_detect(&t, boxes, 50);
 *     tess_tracker_update(&tracker, boxes, n, ids);         // ids[i] belongs to boxes[i], 0: not followed (yet)
 *
 * Integer arithmetic, no memory of its own. One update compares the tracks with the boxes that are left, again after every pair
 * that it found: at worst tracks x tracks x boxes comparisons.
 */
#ifndef TESS_TRACK_H
#define TESS_TRACK_H

#include "tess.h"

#ifdef __cplusplus
extern "C" {
#endif

// When a box is an object and when two boxes are the same one.
typedef struct tess_track_settings {
    // Q15. A box of at least `high` can begin a track; one of at least `low` only goes on with a track that was seen in the
    // picture before. low <= high.
    uint16_t high, low;

    // Q15, at least 1: least intersection over union of a box with where its track should be.
    uint16_t min_iou;

    // Pictures that an object must be seen in, one after the other, before it has an id. At least 1.
    uint16_t min_hits;

    // Pictures that an object with an id may stay unseen. 0: none.
    uint16_t max_missed;
} tess_track_settings_t;

// One followed object. Read it as you like, the tracker writes it.
typedef struct tess_track {
    uint32_t id;                // 1, 2, 3, ... in the order of confirmation, 0 before it
    int16_t x1, y1, x2, y2;     // Q4: where it was seen, carried on by its velocity while it is not
    int16_t vx, vy;             // Q4 pixels a picture, of the centre
    uint16_t label;
    uint16_t hits;              // pictures that it was seen in; stays at 65535
    uint16_t missed;            // pictures since then
    int8_t side;                // of the line: -1 left, 1 right, 0 before its first sight between the line's ends
} tess_track_t;

// The caller owns it and the places; fields may be read.
typedef struct tess_tracker {
    tess_track_t *tracks;       // [0, count) are alive, the oldest first
    uint16_t capacity, count;
    tess_track_settings_t settings;
    uint32_t confirmed;         // objects that ever had an id
    int16_t line[4];            // x1, y1, x2, y2 in Q4; all 0: no line
    uint32_t to_right, to_left; // objects that crossed it, as seen when walking from its first end to its second
} tess_tracker_t;

// score 0.5 and 0.25, overlap 0.25, 2 pictures to have an id, 15 to lose it.
extern const tess_track_settings_t tess_track_defaults;

// Begins without tracks and without a line. settings: copied, NULL takes the defaults. Returns TESS_ERR_ARGUMENT when there is
// no place or a setting is out of its range.
int tess_tracker_init(tess_tracker_t *tracker, tess_track_t *places, uint16_t capacity, const tess_track_settings_t *settings);

// New settings; tracks, line and counts stay. Returns TESS_ERR_ARGUMENT, and changes nothing, when one is out of its range.
int tess_tracker_set(tess_tracker_t *tracker, const tess_track_settings_t *settings);

// Counts from now on who crosses the line from (x1, y1) to (x2, y2), Q4; the counts begin at 0. Both ends in one place: no line.
void tess_tracker_set_line(tess_tracker_t *tracker, int16_t x1, int16_t y1, int16_t x2, int16_t y2);

// Takes the boxes of the next picture, best first, and writes to ids[i] the id of the object in boxes[i]; 0 for a box that
// belongs to none or to one that is not confirmed. Boxes of another label never meet. When all places are taken, new objects
// wait. Returns the number of objects in this picture that have an id, or TESS_ERR_ARGUMENT.
int tess_tracker_update(tess_tracker_t *tracker, const tess_box_t *boxes, size_t n, uint32_t *ids);

#ifdef __cplusplus
}
#endif

#endif

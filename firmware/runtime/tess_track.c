/*
 * Following objects: where each should be by now, the best pairs of tracks and boxes, and what became of the rest.
 * SPEC.md section 6.
 */
#include "tess_track.h"

#define FREE 0u            // in ids: a box that nobody has taken
#define TAKEN UINT32_MAX   // in ids: a box of a track without an id
#define MAX_SPEED 2047     // Q4: 128 pixels a picture

const tess_track_settings_t tess_track_defaults = {16384, 8192, 8192, 2, 15};

/// Boxes ///

static int32_t overlap(int32_t a1, int32_t a2, int32_t b1, int32_t b2) {
    int32_t from = a1 > b1 ? a1 : b1, to = a2 < b2 ? a2 : b2;
    return to > from ? to - from : 0;
}

// intersection over union, Q15 rounded down
static uint32_t iou(const tess_track_t *track, const tess_box_t *box) {
    int64_t inter = (int64_t)overlap(track->x1, track->x2, box->x1, box->x2) * overlap(track->y1, track->y2, box->y1, box->y2);
    if (inter == 0) {
        return 0;
    }
    int64_t area = (int64_t)(track->x2 - track->x1) * (track->y2 - track->y1);
    int64_t other = (int64_t)(box->x2 - box->x1) * (box->y2 - box->y1);
    return (uint32_t)((uint64_t)(inter * 32768) / (uint64_t)(area + other - inter));
}

static int fits(int32_t value) {
    return value >= INT16_MIN && value <= INT16_MAX;
}

// moves a track on by its velocity; at the end of the numbers it stays
static void predict(tess_track_t *track) {
    if (fits(track->x1 + track->vx) && fits(track->x2 + track->vx)) {
        track->x1 = (int16_t)(track->x1 + track->vx);
        track->x2 = (int16_t)(track->x2 + track->vx);
    }
    if (fits(track->y1 + track->vy) && fits(track->y2 + track->vy)) {
        track->y1 = (int16_t)(track->y1 + track->vy);
        track->y2 = (int16_t)(track->y2 + track->vy);
    }
}

// velocity after the centre was found `error` (twice Q4) away from where it was predicted: the whole of the first step, then
// a quarter. Divisions, not shifts: they round towards 0 on every compiler.
static int16_t correct(int16_t velocity, int32_t error, uint16_t hits) {
    int32_t value = velocity + error / (hits == 1 ? 2 : 8);
    value = value < -MAX_SPEED ? -MAX_SPEED : value;
    return (int16_t)(value > MAX_SPEED ? MAX_SPEED : value);
}

/// The line ///

// crossing from one side to the other counts when both sights lie between the line's ends
static void watch_line(tess_tracker_t *tracker, tess_track_t *track) {
    const int16_t *line = tracker->line;
    int64_t along_x = line[2] - line[0], along_y = line[3] - line[1];
    int64_t x = track->x1 + track->x2 - 2 * line[0], y = track->y1 + track->y2 - 2 * line[1]; // twice the centre
    int64_t at = along_x * x + along_y * y, end = 2 * (along_x * along_x + along_y * along_y);
    if (end == 0 || at < 0 || at > end) {
        return;
    }
    int8_t side = along_x * y - along_y * x < 0 ? -1 : 1;
    tracker->to_right += track->side < 0 && side > 0;
    tracker->to_left += track->side > 0 && side < 0;
    track->side = side;
}

/// Tracks and boxes ///

static void see(tess_tracker_t *tracker, tess_track_t *track, const tess_box_t *box) {
    track->vx = correct(track->vx, box->x1 + box->x2 - track->x1 - track->x2, track->hits);
    track->vy = correct(track->vy, box->y1 + box->y2 - track->y1 - track->y2, track->hits);
    track->x1 = box->x1;
    track->y1 = box->y1;
    track->x2 = box->x2;
    track->y2 = box->y2;
    track->missed = 0;
    track->hits = (uint16_t)(track->hits + (track->hits < UINT16_MAX));
    if (track->id == 0 && track->hits >= tracker->settings.min_hits) {
        track->id = ++tracker->confirmed;
    }
    if (track->id) {
        watch_line(tracker, track);
    }
}

// A track is `missed` 1 as soon as a picture begins, and 0 again once it is seen. Only tracks up to `missed` take part.
// Gives the pair with the most overlap, of equals the oldest track and then the best box; returns 0 when there is none.
static int best_pair(const tess_tracker_t *tracker, const tess_box_t *boxes, size_t n, const uint32_t *ids, uint16_t least_score,
        uint16_t most_missed, uint16_t *of_track, size_t *of_box) {
    uint32_t best = 0;
    for (uint16_t i = 0; i < tracker->count; i++) {
        const tess_track_t *track = &tracker->tracks[i];
        for (size_t k = 0; track->missed && track->missed <= most_missed && k < n; k++) {
            if (ids[k] != FREE || boxes[k].label != track->label || boxes[k].score < least_score) {
                continue;
            }
            uint32_t value = iou(track, &boxes[k]);
            if (value >= tracker->settings.min_iou && value > best) {
                best = value;
                *of_track = i;
                *of_box = k;
            }
        }
    }
    return best > 0;
}

static void match(tess_tracker_t *tracker, const tess_box_t *boxes, size_t n, uint32_t *ids, uint16_t least_score,
        uint16_t most_missed) {
    uint16_t i;
    size_t k;
    while (best_pair(tracker, boxes, n, ids, least_score, most_missed, &i, &k)) {
        see(tracker, &tracker->tracks[i], &boxes[k]);
        ids[k] = tracker->tracks[i].id ? tracker->tracks[i].id : TAKEN;
    }
}

// unseen for too long, or unseen before it had an id
static void drop_lost(tess_tracker_t *tracker) {
    uint16_t kept = 0;
    for (uint16_t i = 0; i < tracker->count; i++) {
        const tess_track_t *track = &tracker->tracks[i];
        if (track->missed <= (track->id ? tracker->settings.max_missed : 0)) {
            tracker->tracks[kept++] = *track;
        }
    }
    tracker->count = kept;
}

static void begin(tess_tracker_t *tracker, const tess_box_t *boxes, size_t n, uint32_t *ids) {
    for (size_t k = 0; k < n && tracker->count < tracker->capacity; k++) {
        if (ids[k] != FREE || boxes[k].score < tracker->settings.high) {
            continue;
        }
        tess_track_t *track = &tracker->tracks[tracker->count++];
        *track = (tess_track_t){.x1 = boxes[k].x1, .y1 = boxes[k].y1, .x2 = boxes[k].x2, .y2 = boxes[k].y2, .label = boxes[k].label};
        see(tracker, track, &boxes[k]);
        ids[k] = track->id ? track->id : TAKEN;
    }
}

/// Calls ///

int tess_tracker_init(tess_tracker_t *tracker, tess_track_t *places, uint16_t capacity, const tess_track_settings_t *settings) {
    if (!tracker || !places || !capacity) {
        return TESS_ERR_ARGUMENT;
    }
    *tracker = (tess_tracker_t){.tracks = places, .capacity = capacity};
    return tess_tracker_set(tracker, settings ? settings : &tess_track_defaults);
}

int tess_tracker_set(tess_tracker_t *tracker, const tess_track_settings_t *settings) {
    if (!tracker || !settings || settings->low > settings->high || !settings->min_iou || !settings->min_hits
        || settings->max_missed == UINT16_MAX) {
        return TESS_ERR_ARGUMENT;
    }
    tracker->settings = *settings;
    return TESS_OK;
}

void tess_tracker_set_line(tess_tracker_t *tracker, int16_t x1, int16_t y1, int16_t x2, int16_t y2) {
    const int16_t line[4] = {x1, y1, x2, y2};
    for (int i = 0; i < 4; i++) {
        tracker->line[i] = line[i];
    }
    tracker->to_right = tracker->to_left = 0;
    for (uint16_t i = 0; i < tracker->count; i++) {
        tracker->tracks[i].side = 0;
    }
}

int tess_tracker_update(tess_tracker_t *tracker, const tess_box_t *boxes, size_t n, uint32_t *ids) {
    if (!tracker || n > INT32_MAX || (n && (!boxes || !ids))) {
        return TESS_ERR_ARGUMENT;
    }
    for (uint16_t i = 0; i < tracker->count; i++) {
        predict(&tracker->tracks[i]);
        tracker->tracks[i].missed++;
    }
    for (size_t k = 0; k < n; k++) {
        // a box without pixels, which tess_detect never gives, has no overlap with anything and begins nothing
        ids[k] = boxes[k].x1 < boxes[k].x2 && boxes[k].y1 < boxes[k].y2 ? FREE : TAKEN;
    }
    match(tracker, boxes, n, ids, tracker->settings.high, UINT16_MAX);
    match(tracker, boxes, n, ids, tracker->settings.low, 1);
    drop_lost(tracker);
    begin(tracker, boxes, n, ids);
    int named = 0;
    for (size_t k = 0; k < n; k++) {
        ids[k] = ids[k] == TAKEN ? 0 : ids[k];
        named += ids[k] != 0;
    }
    return named;
}

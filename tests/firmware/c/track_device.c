/* The tracker on an emulated chip: follows the boxes of boxes.bin and writes what it thinks to tracks.bin, for test_track.py.
 *
 * boxes.bin: i16 line[4], u32 pictures, then for each picture u32 n and n tess_box_t. tracks.bin: for each picture u32 ids[n];
 * then u32 confirmed, to_right, to_left, count, and the tracks.
 */
#include "semihosting.h"
#include "tess_track.h"

enum { PLACES = 20, MAX_BOXES = 64 };

static tess_track_t places[PLACES];
static tess_tracker_t tracker;
static tess_box_t boxes[MAX_BOXES];
static uint32_t ids[MAX_BOXES];

static int follow(int input, int output) {
    struct { int16_t line[4]; uint32_t pictures; } head;
    uint32_t from = sizeof(head), to = 0;
    int failed = semi_read_at(input, 0, &head, sizeof(head)) || tess_tracker_init(&tracker, places, PLACES, NULL);
    tess_tracker_set_line(&tracker, head.line[0], head.line[1], head.line[2], head.line[3]);
    for (uint32_t i = 0, n; !failed && i < head.pictures; i++) {
        failed = semi_read_at(input, from, &n, sizeof(n)) || n > MAX_BOXES;
        failed = failed || (n && semi_read_at(input, from + 4, boxes, n * sizeof(tess_box_t)));
        failed = failed || tess_tracker_update(&tracker, boxes, n, ids) < 0 || (n && semi_write_at(output, to, ids, n * 4));
        from += 4 + n * (uint32_t)sizeof(tess_box_t);
        to += n * 4;
    }
    uint32_t sums[4] = {tracker.confirmed, tracker.to_right, tracker.to_left, tracker.count};
    return failed || semi_write_at(output, to, sums, sizeof(sums))
        || semi_write_at(output, to + (uint32_t)sizeof(sums), places, tracker.count * sizeof(tess_track_t));
}

int main(void) {
    int input = semi_open("boxes.bin", 9, SEMI_READ), output = semi_open("tracks.bin", 10, SEMI_WRITE);
    int failed = input < 0 || output < 0 || follow(input, output);
    semi_close(output);
    return failed;
}

/* The test application: runs the embedded model on every picture of batch.bin and writes result.bin (see batch.h).
 *
 * A picture is never whole in memory: each line is read from the file when the network asks for it, as from a camera.
 * Only the network is counted: the meter stands still while pixels come in and outputs go out.
 */
#include <string.h>

#include "batch.h"
#include "meter.h"
#include "port.h"
#include "semihosting.h"
#include "tess_format.h"
#include "tess_letterbox.h"
#include "tess_watch.h"

// Made by storage.S.
extern const uint8_t app_model[], app_model_end[];
extern uint8_t app_arena[], app_arena_end[];
extern tess_box_t app_boxes[], app_boxes_end[];
extern uint64_t app_profile[], app_profile_end[];

enum { MAX_OUTPUTS = 64, RECORDS_AT = sizeof(batch_result_t) };
#define PAINT 0x5AC396E1u

static struct {
    tess_t tess;
    meter_t meter;
    batch_header_t batch;
    batch_result_t result;
    batch_picture_t picture;
    batch_record_t record;
    int input, output;
    uint32_t line_in_buffer;            // its number
    uint32_t raw_at;                    // where the picture's raw outputs begin in the file
    uint32_t output_offset[MAX_OUTPUTS]; // of each output in the raw outputs
    tess_output_info_t info[MAX_OUTPUTS];
    uint8_t line[APP_LINE_BYTES];
} app;

static size_t bytes_between(const void *first, const void *last) {
    return (size_t)((const uint8_t *)last - (const uint8_t *)first);
}

/// Pixels in ///

static int fetch(uint32_t offset, void *to, uint32_t size) {
    meter_pause(&app.meter);
    app.record.fetches++;
    int err = semi_read_at(app.input, app.picture.offset + offset, to, size);
    meter_resume(&app.meter);
    return err;
}

// A row of a picture that is a network frame already.
static int direct_row(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels) {
    const uint16_t *channels = ctx;
    uint32_t at = ((uint32_t)y * app.picture.width + col0) * *channels;
    return fetch(at, pixels, (uint32_t)(col1 - col0) * *channels);
}

// A line for the letterbox, which may want the last one again.
static const uint8_t *camera_line(void *ctx, uint16_t y) {
    uint32_t size = *(const uint32_t *)ctx;
    if (app.line_in_buffer != y) {
        app.line_in_buffer = y;
        if (fetch(y * size, app.line, size) != 0) {
            return NULL;
        }
    }
    return app.line;
}

/// Outputs out ///

static int write_rows(void *ctx, uint16_t output, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *data) {
    (void)ctx;
    meter_pause(&app.meter);
    const tess_output_info_t *info = &app.info[output];
    uint32_t n = ((uint32_t)y * info->width + col0) * info->channels;
    uint32_t count = (uint32_t)(col1 - col0) * info->channels;
    app.record.checksum += tess_sum(output, n, data, count);
    int err = semi_write_at(app.output, app.raw_at + app.output_offset[output] + n, data, count);
    meter_resume(&app.meter);
    return err;
}

// Where each output goes in a record; total bytes, or 0 when there are more outputs than this application can take.
static uint32_t lay_out_outputs(void) {
    uint32_t total = 0;
    uint16_t count = tess_outputs(&app.tess);
    if (count > MAX_OUTPUTS) {
        return 0;
    }
    for (uint16_t i = 0; i < count; i++) {
        tess_output_info(&app.tess, i, &app.info[i]);
        app.output_offset[i] = total;
        total += (uint32_t)app.info[i].height * app.info[i].width * app.info[i].channels;
    }
    return total;
}

/// Running ///

static int open_model(void) {
    return tess_open(&app.tess, app_model, bytes_between(app_model, app_model_end), app_arena,
        bytes_between(app_arena, app_arena_end));
}

static int measured_run(const tess_source_t *source) {
    meter_reset(&app.meter);
    meter_resume(&app.meter);
    int status = tess_run(&app.tess, source);
    meter_pause(&app.meter);
    app.record.run = app.meter.instructions;
    return status;
}

#ifdef TESS_PROFILE
// The meter's own count, so that pixel transfer does not show.
static uint32_t profile_clock(void *ctx) {
    meter_pause(&app.meter);
    uint32_t now = (uint32_t)app.meter.instructions;
    meter_resume(&app.meter);
    (void)ctx;
    return now;
}

static void profile_report(void *ctx, uint16_t segment, uint16_t node, uint16_t rows, uint32_t ticks) {
    (void)ctx, (void)segment, (void)rows;
    app_profile[node] += ticks;
}
#endif

static void profile_begin(void) {
#ifdef TESS_PROFILE
    memset(app_profile, 0, bytes_between(app_profile, app_profile_end));
    tess_set_clock(&app.tess, profile_clock, NULL, profile_report);
#endif
}

static int measured_detect(void) {
    meter_reset(&app.meter);
    meter_resume(&app.meter);
    int count = tess_detect(&app.tess, app_boxes, (size_t)(app_boxes_end - app_boxes));
    meter_pause(&app.meter);
    app.record.detect = app.meter.instructions;
    return count;
}

static int run_direct(void) {
    uint16_t channels;
    tess_input(&app.tess, NULL, NULL, &channels);
    tess_source_t source = {direct_row, &channels};
    return measured_run(&source);
}

static int run_letterboxed(void) {
    static const uint8_t bytes_per_pixel[] = {3, 2, 2, 1}; // by enum tess_format
    const batch_picture_t *picture = &app.picture;
    if (picture->format >= sizeof(bytes_per_pixel)) {
        return TESS_ERR_ARGUMENT;
    }
    uint32_t line_size = (uint32_t)picture->width * bytes_per_pixel[picture->format];
    tess_letterbox_t letterbox;
    int err = line_size > sizeof(app.line) ? TESS_ERR_ARGUMENT
        : tess_letterbox_init(&letterbox, &app.tess, camera_line, &line_size, picture->width, picture->height,
              picture->format);
    if (err != 0) {
        return err;
    }
    app.line_in_buffer = UINT32_MAX;
    tess_source_t source = tess_letterbox_source(&letterbox);
    return measured_run(&source);
}

// 0 or a negative tess_err.
static int run_picture(uint32_t pattern) {
    size_t arena_size = bytes_between(app_arena, app_arena_end);
    tess_watch_paint(app_arena, arena_size, pattern); // opening again costs little, and shows that nothing relies on what an earlier run left
    int err = open_model();
    if (err != 0) {
        return err;
    }
    if (app.batch.flags & BATCH_RAW) {
        static const tess_sink_t sink = {write_rows, NULL};
        tess_set_sink(&app.tess, &sink);
    }
    profile_begin();
    stack_paint();
    err = app.batch.flags & BATCH_DIRECT ? run_direct() : run_letterboxed();
    if (err == 0 && (app.batch.flags & BATCH_BOXES)) {
        app.record.n_boxes = measured_detect();
        err = app.record.n_boxes < 0 ? app.record.n_boxes : 0;
    }
    app.record.stack = stack_high_water();
    app.record.touched = (uint32_t)tess_watch_touched(app_arena, arena_size, pattern);
    app.record.guards = (uint32_t)tess_watch_broken(app_arena, arena_size);
    return err;
}

static int write_record(uint32_t at) {
    size_t profile = bytes_between(app_profile, app_profile_end);
    size_t boxes = (size_t)app.record.n_boxes * sizeof(tess_box_t);
    int failed = semi_write_at(app.output, at, &app.record, sizeof(app.record));
    at += sizeof(app.record);
    failed |= semi_write_at(app.output, at, app_profile, profile);
    failed |= semi_write_at(app.output, at + (uint32_t)profile, app_boxes, boxes);
    return failed;
}

// 0, or -1 when a file fails. What the runtime answers goes into the result.
static int do_picture(uint32_t number) {
    uint32_t head = sizeof(app.batch) + number * sizeof(app.picture);
    uint32_t at = RECORDS_AT + number * app.result.record_size;
    if (semi_read_at(app.input, head, &app.picture, sizeof(app.picture)) != 0) {
        return -1;
    }
    memset(&app.record, 0, sizeof(app.record));
    app.raw_at = at + app.result.record_size - app.result.raw_size;
    // two patterns by turns: a byte that happens to be written like the one is found with the other
    app.result.status = run_picture(number & 1 ? ~PAINT : PAINT);
    return app.result.status != 0 ? 0 : write_record(at);
}

/// The whole batch ///

static int begin_files(void) {
    app.input = semi_open("batch.bin", 9, SEMI_READ);
    app.output = semi_open("result.bin", 10, SEMI_WRITE);
    if (app.input < 0 || app.output < 0 || semi_read_at(app.input, 0, &app.batch, sizeof(app.batch)) != 0) {
        return -1;
    }
    return memcmp(app.batch.magic, "TBAT", 4) == 0 && app.batch.version == BATCH_VERSION ? 0 : -1;
}

// Open the model once to learn its sizes, and run its self-test when that was asked for.
static void begin_result(void) {
    size_t needed = 0;
    batch_result_t *result = &app.result;
    *result = (batch_result_t){.magic = {'T', 'R', 'E', 'S'}, .version = BATCH_VERSION, .selftest = 1};
    result->flags = app.batch.flags;
    result->count = app.batch.count;
    result->arena_size = (uint32_t)bytes_between(app_arena, app_arena_end);
    result->state_size = sizeof(tess_t);
    result->max_boxes = (uint16_t)(app_boxes_end - app_boxes);
    result->n_profile = (uint16_t)(app_profile_end - app_profile);
    result->status = tess_needed(app_model, bytes_between(app_model, app_model_end), &needed);
    result->needed = (uint32_t)needed;
    if (result->status == 0) {
        result->status = open_model();
    }
    if (result->status != 0) {
        return;
    }
    result->sequential = (uint16_t)tess_sequential(&app.tess);
    result->raw_size = app.batch.flags & BATCH_RAW ? (lay_out_outputs() + 7) & ~7u : 0;
    result->record_size = (uint32_t)(sizeof(batch_record_t) + result->n_profile * sizeof(uint64_t)
        + (result->max_boxes * sizeof(tess_box_t) + 7) / 8 * 8 + result->raw_size);
    if (app.batch.flags & BATCH_SELFTEST) {
        meter_reset(&app.meter);
        meter_resume(&app.meter);
        result->selftest = tess_selftest(&app.tess);
        meter_pause(&app.meter);
        result->selftest_instructions = app.meter.instructions;
    }
}

static void write_result(void) {
    int err = app.result.status != 0 ? app.result.status : app.result.selftest < 0 ? app.result.selftest : 0;
    const char *text = tess_error(err);
    for (size_t i = 0; i + 1 < sizeof(app.result.error) && text[i]; i++) {
        app.result.error[i] = text[i];
    }
    semi_write_at(app.output, 0, &app.result, sizeof(app.result));
}

int main(void) {
    meter_init(&app.meter);
    if (begin_files() != 0) {
        semi_puts("app: no readable batch.bin of this version, or result.bin cannot be written\n");
        return 1;
    }
    begin_result();
    write_result();
    while (app.result.status == 0 && app.result.done < app.batch.count) {
        if (do_picture(app.result.done) != 0) {
            semi_puts("app: batch.bin ends too early, or result.bin cannot be written\n");
            return 1;
        }
        app.result.done += app.result.status == 0;
        write_result();
    }
    semi_close(app.output);
    return 0;
}

/*
 * One picture: rows are pulled from the host while the network runs, head maps leave as they are made. SPEC.md section 8.4.
 */
#include <string.h>

#include "link_run.h"
#include "tess_format.h"
#include "tess_watch.h"

enum { RUN_SIZE = 8, PULL_SIZE = 12, HEADS_AT = 2, BOXES_AT = 4, PROFILE_AT = 4, PART_HEAD = 8, BOX_SIZE = 12 };
#define PAINT UINT32_C(0x5AC396E1)

/// Stopwatch ///

static void meter_resume(const link_server_t *server) {
    const link_meter_t *meter = server->config->meter;
    if (meter) {
        meter->resume(meter->ctx);
    }
}

static void meter_pause(const link_server_t *server) {
    const link_meter_t *meter = server->config->meter;
    if (meter) {
        meter->pause(meter->ctx);
    }
}

static void meter_start(const link_server_t *server) {
    const link_meter_t *meter = server->config->meter;
    if (meter) {
        meter->reset(meter->ctx);
        meter->resume(meter->ctx);
    }
}

static uint64_t meter_stop(const link_server_t *server) {
    const link_meter_t *meter = server->config->meter;
    meter_pause(server);
    return meter ? meter->total(meter->ctx) : 0;
}

/// Head maps out ///

static int flush_heads(link_server_t *server) {
    if (!server->heads.payload) {
        return 0;
    }
    server->heads.payload = NULL;
    return link_post(&server->link, LINK_HEADS, server->heads.size);
}

// room for a part with at least one value
static int reserve_heads(link_server_t *server) {
    if (server->heads.payload && server->heads.size + PART_HEAD >= LINK_PAYLOAD) {
        int err = flush_heads(server);
        if (err) {
            return err;
        }
    }
    if (server->heads.payload) {
        return 0;
    }
    int err = link_reserve(&server->link, &server->heads.payload);
    if (err) {
        server->heads.payload = NULL;
        return err;
    }
    link_put16(server->heads.payload, server->run.id);
    server->heads.size = HEADS_AT;
    return 0;
}

static int put_heads(link_server_t *server, uint16_t output, uint32_t first, const int8_t *data, uint32_t count) {
    while (count > 0) {
        int err = reserve_heads(server);
        if (err) {
            return err;
        }
        uint32_t room = (uint32_t)(LINK_PAYLOAD - server->heads.size) - PART_HEAD;
        uint32_t part = count < room ? count : room;
        uint8_t *at = server->heads.payload + server->heads.size;
        link_put16(at, output);
        link_put16(at + 2, part);
        link_put32(at + 4, first);
        memcpy(at + PART_HEAD, data, part);
        server->heads.size += PART_HEAD + part;
        first += part;
        data += part;
        count -= part;
    }
    return 0;
}

static int take_rows(void *ctx, uint16_t output, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *data) {
    link_server_t *server = ctx;
    meter_pause(server);
    tess_output_info_t info;
    tess_output_info(&server->tess, output, &info);
    uint32_t first = ((uint32_t)y * info.width + col0) * info.channels;
    uint32_t count = (uint32_t)(col1 - col0) * info.channels;
    server->run.checksum += tess_sum(output, first, data, count);
    server->error = put_heads(server, output, first, data, count);
    meter_resume(server);
    return server->error;
}

/// Rows in ///

static void drop_message(link_server_t *server) {
    if (server->stream.at > 0) {
        server->stream.at = 0;
        link_release(&server->link);
    }
}

// ask for rows [y, y + rows); rows of an earlier pull that are still under way will be dropped
static int pull(link_server_t *server, uint16_t y, uint16_t col0, uint16_t col1) {
    uint16_t left = (uint16_t)(server->run.rows - y), most = (uint16_t)(server->config->port.rows_ahead + 1);
    uint8_t *payload;
    int err = flush_heads(server);
    if (!err) {
        err = link_reserve(&server->link, &payload);
    }
    if (err) {
        return err;
    }
    drop_message(server);
    server->run.pulls++;
    server->stream.id++;
    server->stream.y = y;
    server->stream.rows = left < most ? left : most;
    server->stream.col0 = col0;
    server->stream.col1 = col1;
    server->stream.bytes = (uint32_t)(col1 - col0) * server->run.bytes_per_pixel * server->stream.rows;
    link_put16(payload, server->run.id);
    link_put16(payload + 2, server->stream.id);
    link_put16(payload + 4, y);
    link_put16(payload + 6, server->stream.rows);
    link_put16(payload + 8, col0);
    link_put16(payload + 10, col1);
    return link_post(&server->link, LINK_PULL, PULL_SIZE);
}

// hold the next message of this stream
static int next_message(link_server_t *server) {
    for (;;) {
        link_message_t *message = &server->stream.message;
        int err = link_receive(&server->link, message);
        if (err) {
            return err;
        }
        if (message->type != LINK_ROWS || message->length < 2) {
            return link_refuse(&server->link);
        }
        if (link_get16(message->data) == server->stream.id) {
            server->stream.at = 2;
            return message->length - 2u > server->stream.bytes ? link_refuse(&server->link) : 0;
        }
        link_release(&server->link); // of an earlier pull
    }
}

static int read_stream(link_server_t *server, uint8_t *to, uint32_t bytes) {
    while (bytes > 0) {
        int err = server->stream.at > 0 ? 0 : next_message(server);
        if (err) {
            server->stream.at = 0;
            return err;
        }
        uint32_t there = (uint32_t)(server->stream.message.length - server->stream.at);
        uint32_t part = bytes < there ? bytes : there;
        memcpy(to, server->stream.message.data + server->stream.at, part);
        server->stream.at = (uint16_t)(server->stream.at + part);
        server->stream.bytes -= part;
        to += part;
        bytes -= part;
        if (server->stream.at == server->stream.message.length) {
            drop_message(server);
        }
    }
    return 0;
}

static int fetch(link_server_t *server, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *to) {
    int follows = server->stream.rows > 0 && server->stream.y == y && server->stream.col0 == col0 && server->stream.col1 == col1;
    int err = follows ? 0 : pull(server, y, col0, col1);
    if (!err) {
        err = read_stream(server, to, (uint32_t)(col1 - col0) * server->run.bytes_per_pixel);
    }
    if (!err) {
        server->stream.y++;
        server->stream.rows--;
        err = link_settle(&server->link);
    }
    return err;
}

static int network_row(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels) {
    link_server_t *server = ctx;
    meter_pause(server);
    server->error = fetch(server, y, col0, col1, pixels);
    meter_resume(server);
    return server->error;
}

// The letterbox may want the last line again.
static const uint8_t *picture_line(void *ctx, uint16_t y) {
    link_server_t *server = ctx;
    if (server->line_held == y) {
        return server->config->line;
    }
    server->line_held = UINT32_MAX;
    uint16_t width = (uint16_t)(server->line_size / server->run.bytes_per_pixel);
    if (network_row(server, y, 0, width, server->config->line) != 0) {
        return NULL;
    }
    server->line_held = y;
    return server->config->line;
}

/// Running ///

static int run_network_rows(link_server_t *server, uint16_t content_w, uint16_t content_h) {
    uint16_t height, channels;
    tess_source_t source = {network_row, server};
    tess_input(&server->tess, &height, NULL, &channels);
    server->run.bytes_per_pixel = (uint8_t)channels;
    server->run.rows = height;
    int status = channels > UINT8_MAX ? TESS_ERR_ARGUMENT : tess_set_content(&server->tess, content_w, content_h);
    if (status == 0) {
        meter_start(server);
        status = tess_run(&server->tess, &source);
    }
    return status;
}

static int run_letterboxed(link_server_t *server, uint8_t format, uint16_t width, uint16_t height) {
    static const uint8_t bytes_per_pixel[] = {3, 2, 2, 1}; // by enum tess_format
    tess_letterbox_t box;
    if (format >= sizeof(bytes_per_pixel)) {
        return TESS_ERR_ARGUMENT;
    }
    server->run.bytes_per_pixel = bytes_per_pixel[format];
    server->run.rows = height;
    server->line_size = (uint32_t)width * bytes_per_pixel[format];
    server->line_held = UINT32_MAX;
    if (server->line_size > server->config->line_bytes) {
        return LINK_ERR_LINE;
    }
    int status = tess_letterbox_init(&box, &server->tess, picture_line, server, width, height, format);
    if (status == 0) {
        tess_source_t source = tess_letterbox_source(&box);
        meter_start(server);
        status = tess_run(&server->tess, &source);
    }
    return status;
}

#ifdef TESS_PROFILE
// The meter's own count, so that transfers do not show.
static uint32_t profile_clock(void *ctx) {
    const link_server_t *server = ctx;
    const link_meter_t *meter = server->config->meter;
    meter->pause(meter->ctx);
    uint32_t now = (uint32_t)meter->total(meter->ctx);
    meter->resume(meter->ctx);
    return now;
}

static void profile_report(void *ctx, uint16_t segment, uint16_t node, uint16_t rows, uint32_t ticks) {
    const link_server_t *server = ctx;
    (void)segment, (void)rows;
    server->config->profile[node] += ticks;
}
#endif

static int begin_profile(link_server_t *server) {
#ifdef TESS_PROFILE
    const link_config_t *config = server->config;
    if (config->meter) {
        if (tess_header(&server->tess)->n_nodes > config->n_profile) {
            return LINK_ERR_PROFILE;
        }
        memset(config->profile, 0, config->n_profile * sizeof(*config->profile));
        tess_set_clock(&server->tess, profile_clock, server, profile_report);
    }
#else
    (void)server;
#endif
    return 0;
}

static int send_profile(link_server_t *server) {
    const link_config_t *config = server->config;
    uint16_t most = (LINK_PAYLOAD - PROFILE_AT) / 8, count = config->n_profile;
    for (uint16_t first = 0, part; first < count; first = (uint16_t)(first + part)) {
        uint8_t *payload;
        int err = link_reserve(&server->link, &payload);
        if (err) {
            return err;
        }
        part = (uint16_t)(count - first) < most ? (uint16_t)(count - first) : most;
        link_put16(payload, server->run.id);
        link_put16(payload + 2, first);
        for (uint16_t i = 0; i < part; i++) {
            link_put32(payload + PROFILE_AT + 8 * i, (uint32_t)config->profile[first + i]);
            link_put32(payload + PROFILE_AT + 8 * i + 4, (uint32_t)(config->profile[first + i] >> 32));
        }
        err = link_post(&server->link, LINK_PROFILE, PROFILE_AT + 8u * part);
        if (err) {
            return err;
        }
    }
    return 0;
}

static int send_boxes(link_server_t *server, uint16_t count) {
    uint16_t most = (LINK_PAYLOAD - BOXES_AT) / BOX_SIZE;
    for (uint16_t first = 0, part; first < count; first = (uint16_t)(first + part)) {
        uint8_t *payload;
        int err = link_reserve(&server->link, &payload);
        if (err) {
            return err;
        }
        part = (uint16_t)(count - first) < most ? (uint16_t)(count - first) : most;
        link_put16(payload, server->run.id);
        link_put16(payload + 2, first);
        for (uint16_t i = 0; i < part; i++) {
            const tess_box_t *box = &server->config->boxes[first + i];
            uint8_t *at = payload + BOXES_AT + BOX_SIZE * i;
            link_put16(at, (uint16_t)box->x1);
            link_put16(at + 2, (uint16_t)box->y1);
            link_put16(at + 4, (uint16_t)box->x2);
            link_put16(at + 6, (uint16_t)box->y2);
            link_put16(at + 8, box->score);
            link_put16(at + 10, box->label);
        }
        err = link_post(&server->link, LINK_BOXES, BOXES_AT + (size_t)BOX_SIZE * part);
        if (err) {
            return err;
        }
    }
    return 0;
}

// Painting before every run, and opening again, shows that nothing relies on what an earlier run left.
static uint32_t prepare_run(link_server_t *server) {
    const link_config_t *config = server->config;
    uint32_t pattern = server->runs++ & 1 ? ~PAINT : PAINT;
    server->found.session = 0;
    server->follow.held = 0;
    tess_watch_paint(config->memory, config->memory_size, pattern);
    if (server->status == 0) {
        server->status = tess_open(&server->tess, server->model, server->model_size, config->memory, config->memory_size);
    }
    server->run.checksum = server->run.pulls = 0;
    server->stream.rows = 0;
    server->stream.at = 0;
    server->heads.payload = NULL;
    server->error = 0;
    if (config->stack_paint) {
        config->stack_paint();
    }
    return pattern;
}

static void finish_run(const link_server_t *server, uint32_t pattern, link_result_t *result) {
    const link_config_t *config = server->config;
    result->stack = config->stack_high_water ? config->stack_high_water() : 0;
    result->touched = (uint32_t)tess_watch_touched(config->memory, config->memory_size, pattern);
    result->broken = (uint16_t)tess_watch_broken(config->memory, config->memory_size);
}

static int run_picture(link_server_t *server, const uint8_t *fields) {
    uint16_t width = link_get16(fields + 4), height = link_get16(fields + 6);
    int status = server->status ? server->status : begin_profile(server);
    if (status) {
        return status;
    }
    if (fields[3] & LINK_RAW) {
        tess_sink_t sink = {take_rows, server};
        tess_set_sink(&server->tess, &sink);
    }
    return fields[2] == LINK_NETWORK_ROWS ? run_network_rows(server, width, height)
                                          : run_letterboxed(server, fields[2], width, height);
}

static int detect(link_server_t *server, link_result_t *result) {
    meter_start(server);
    int count = tess_detect(&server->tess, server->config->boxes, server->config->max_boxes);
    result->detect = meter_stop(server);
    result->boxes = (uint16_t)(count < 0 ? 0 : count);
    server->found.session = count < 0 ? 0 : server->link.session;
    server->found.run = server->run.id;
    server->found.count = result->boxes;
    return count < 0 ? count : 0;
}

int link_serve_run(link_server_t *server, const link_message_t *message) {
    uint8_t fields[RUN_SIZE];
    link_result_t result = {0};
    if (message->length != RUN_SIZE) {
        return link_refuse(&server->link);
    }
    memcpy(fields, message->data, RUN_SIZE);
    link_release(&server->link);
    server->run.id = link_get16(fields);
    if (!server->model) {
        result.status = LINK_ERR_NO_MODEL;
        return link_send_result(server, server->run.id, &result);
    }
    uint32_t pattern = prepare_run(server);
    result.status = run_picture(server, fields);
    uint64_t counted = meter_stop(server);
    result.run = result.status == 0 ? counted : 0;
    if (server->error) {
        return server->error;
    }
    drop_message(server);
    if (result.status == 0 && (fields[3] & LINK_DETECT)) {
        result.status = detect(server, &result);
    }
    finish_run(server, pattern, &result);
    int err = flush_heads(server);
    if (!err && server->config->n_profile > 0 && result.status == 0) {
        err = send_profile(server);
    }
    if (!err) {
        err = send_boxes(server, result.boxes);
    }
    return err ? err : link_send_result(server, server->run.id, &result);
}

int link_serve_selftest(link_server_t *server, uint16_t request) {
    link_result_t result = {0};
    server->run.id = request;
    if (!server->model) {
        result.status = LINK_ERR_NO_MODEL;
        return link_send_result(server, request, &result);
    }
    uint32_t pattern = prepare_run(server);
    result.status = server->status;
    if (result.status == 0) {
        meter_start(server);
        result.status = tess_selftest(&server->tess);
        result.run = meter_stop(server);
    }
    finish_run(server, pattern, &result);
    return link_send_result(server, request, &result);
}

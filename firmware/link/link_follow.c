/*
 * Following objects where the detector runs: boxes of the last picture in, ids out. SPEC.md sections 6 and 8.6.
 *
 * Ids lie in the work memory, which is free between two pictures, so that they can be sent again.
 */
#include <string.h>

#include "link_run.h"

enum { TRACK_SIZE = 30, IDS_AT = 28 };

static int apply(tess_tracker_t *tracker, const uint8_t *fields) {
    int16_t line[4];
    tess_track_settings_t settings = {link_get16(fields + 12), link_get16(fields + 14), link_get16(fields + 16),
        link_get16(fields + 18), link_get16(fields + 20)};
    for (int i = 0; i < 4; i++) {
        line[i] = (int16_t)link_get16(fields + 22 + 2 * i);
    }
    if (memcmp(line, tracker->line, sizeof(line)) != 0) {
        tess_tracker_set_line(tracker, line[0], line[1], line[2], line[3]);
    }
    return tess_tracker_set(tracker, &settings);
}

// Ids of the last picture's boxes are in the work memory when this returns 0.
static int follow(link_server_t *server, const uint8_t *fields) {
    const link_config_t *config = server->config;
    uint32_t id = link_get32(fields + 4), number = link_get32(fields + 8);
    uint32_t *ids = (void *)config->memory;
    if (config->n_tracks == 0) {
        return LINK_ERR_OBJECTS;
    }
    if (server->follow.id != id && number == 0) {
        int err = tess_tracker_init(&server->follow.tracker, config->tracks, config->n_tracks, NULL);
        if (err) {
            return err;
        }
        server->follow.id = id;
        server->follow.pictures = 0;
    }
    if (server->follow.id != id) {
        return LINK_ERR_ORDER;
    }
    if (server->follow.held && number + 1 == server->follow.pictures) {
        return 0; // it is followed already, and the host did not hear of it
    }
    if (number != server->follow.pictures) {
        return LINK_ERR_ORDER;
    }
    int err = link_found(server, link_get16(fields + 2));
    if (err) {
        return err;
    }
    if (server->found.count > config->memory_size / sizeof(*ids)) {
        return LINK_ERR_OBJECTS;
    }
    err = apply(&server->follow.tracker, fields);
    if (err) {
        return err;
    }
    int count = tess_tracker_update(&server->follow.tracker, config->boxes, server->found.count, ids);
    server->follow.pictures += count >= 0;
    server->follow.held = count >= 0;
    server->follow.count = server->found.count;
    return count < 0 ? count : 0;
}

int link_serve_track(link_server_t *server, const link_message_t *message) {
    uint8_t fields[TRACK_SIZE];
    if (message->length != TRACK_SIZE || link_get32(message->data + 4) == 0) {
        return link_refuse(&server->link);
    }
    memcpy(fields, message->data, TRACK_SIZE);
    link_release(&server->link);
    int status = follow(server, fields);
    const tess_tracker_t *tracker = &server->follow.tracker;
    const uint32_t *ids = (const void *)server->config->memory;
    uint16_t count = status ? 0 : server->follow.count, most = (LINK_PAYLOAD - IDS_AT) / 4, first = 0;
    do {
        uint8_t *payload;
        int err = link_reserve(&server->link, &payload);
        if (err) {
            return err;
        }
        uint16_t part = count - first < most ? (uint16_t)(count - first) : most;
        link_put16(payload, link_get16(fields));
        link_put16(payload + 2, (uint32_t)status);
        link_put32(payload + 4, server->follow.id);
        link_put32(payload + 8, server->follow.pictures);
        link_put32(payload + 12, tracker->confirmed);
        link_put32(payload + 16, tracker->to_right);
        link_put32(payload + 20, tracker->to_left);
        link_put16(payload + 24, count);
        link_put16(payload + 26, first);
        for (uint16_t i = 0; i < part; i++) {
            link_put32(payload + IDS_AT + 4 * i, ids[first + i]);
        }
        err = link_post(&server->link, LINK_IDS, IDS_AT + 4u * part);
        if (err) {
            return err;
        }
        first = (uint16_t)(first + part);
    } while (first < count);
    return 0;
}

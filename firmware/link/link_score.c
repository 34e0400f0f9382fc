/*
 * Average precision where the detector runs: the host sends the truth of each picture, the device counts. SPEC.md section 8.6.
 *
 * Truth lies in the work memory, which is free between two pictures. A picture is counted once, however often it is sent.
 */
#include <string.h>

#include "link_run.h"

enum { SCORE_SIZE = 22, TELL_SIZE = 8, SCORED_SIZE = 12, TRUTH_AT = 2, OBJECT_SIZE = 20, PRECISION_AT = 20, HALF = 16384 };
#define UNDEFINED UINT32_MAX // where no object is to be found

/// Counting ///

static int begin(link_server_t *server, uint32_t id) {
    const link_config_t *config = server->config;
    server->score.id = 0;
    int levels = tess_ap_levels(&server->tess, NULL, 0);
    if (levels < 0) {
        return levels;
    }
    uint16_t n_levels = (uint16_t)levels, n_classes = tess_classes(&server->tess);
    size_t counters = tess_ap_counters(n_classes, n_levels);
    if (counters + ((size_t)n_levels + 1) / 2 > config->n_counters) {
        return LINK_ERR_COUNTERS;
    }
    uint16_t *scores = (void *)(config->counters + counters);
    tess_ap_levels(&server->tess, scores, n_levels);
    int err = tess_ap_init(&server->score.ap, scores, n_levels, n_classes, HALF, config->counters, counters);
    server->score.id = err ? 0 : id;
    server->score.pictures = 0;
    return err;
}

// the evaluation that this picture belongs to, begun by its first one
static int find(link_server_t *server, uint32_t id, uint32_t number) {
    if (server->score.id != id) {
        return number == 0 ? begin(server, id) : LINK_ERR_ORDER;
    }
    return number > server->score.pictures ? LINK_ERR_ORDER : 0;
}

static int place(tess_truth_t *object, const uint8_t *at, const uint8_t *fields) {
    int32_t corners[4];
    for (int i = 0; i < 4; i++) {
        corners[i] = (int32_t)link_get32(at + 4 * i);
    }
    object->label = link_get16(at + 16);
    object->ignore = link_get16(at + 18) != 0;
    return tess_ap_place(object, corners, link_get16(fields + 12), link_get16(fields + 14), link_get16(fields + 16),
        link_get16(fields + 18));
}

// Takes all objects; after an error they are only received. Returns 0, LINK_OVER or LINK_CLOSED.
static int receive_truth(link_server_t *server, const uint8_t *fields, tess_truth_t *truth, uint16_t count, int *status) {
    for (uint16_t first = 0; first < count;) {
        link_message_t message;
        int err = link_receive(&server->link, &message);
        if (err) {
            return err;
        }
        uint16_t part = message.length > TRUTH_AT ? (uint16_t)((message.length - TRUTH_AT) / OBJECT_SIZE) : 0;
        if (message.type != LINK_TRUTH || part == 0 || part > count - first || message.length != TRUTH_AT + OBJECT_SIZE * part
                || link_get16(message.data) != link_get16(fields)) {
            return link_refuse(&server->link);
        }
        for (uint16_t i = 0; i < part && *status == 0; i++) {
            *status = place(&truth[first + i], message.data + TRUTH_AT + OBJECT_SIZE * i, fields);
        }
        link_release(&server->link);
        first = (uint16_t)(first + part);
    }
    return 0;
}

static int count_picture(link_server_t *server, uint32_t number, tess_truth_t *truth, uint16_t n_truth) {
    if (number < server->score.pictures) {
        return 0; // it is counted already, and the host did not hear of it
    }
    int err = tess_ap_add(&server->score.ap, server->config->boxes, server->found.count, truth, n_truth);
    server->score.pictures += err == 0;
    return err;
}

static int send_scored(link_server_t *server, uint16_t request, int status) {
    uint8_t *payload;
    int err = link_reserve(&server->link, &payload);
    if (err) {
        return err;
    }
    link_put16(payload, request);
    link_put16(payload + 2, (uint32_t)status);
    link_put32(payload + 4, server->score.id);
    link_put32(payload + 8, server->score.id ? server->score.pictures : 0);
    return link_post(&server->link, LINK_SCORED, SCORED_SIZE);
}

int link_serve_score(link_server_t *server, const link_message_t *message) {
    uint8_t fields[SCORE_SIZE];
    if (message->length != SCORE_SIZE || link_get32(message->data + 4) == 0) {
        return link_refuse(&server->link);
    }
    memcpy(fields, message->data, SCORE_SIZE);
    link_release(&server->link);
    uint32_t number = link_get32(fields + 8);
    uint16_t objects = link_get16(fields + 20);
    tess_truth_t *truth = (void *)server->config->memory;
    int status = server->model ? server->status : LINK_ERR_NO_MODEL;
    if (status == 0) {
        status = find(server, link_get32(fields + 4), number);
    }
    if (status == 0) {
        status = link_found(server, link_get16(fields + 2));
    }
    if (status == 0 && objects > server->config->memory_size / sizeof(*truth)) {
        status = LINK_ERR_OBJECTS;
    }
    server->follow.held = 0;
    int err = receive_truth(server, fields, truth, objects, &status);
    if (err) {
        return err;
    }
    if (status == 0) {
        status = count_picture(server, number, truth, objects);
    }
    return send_scored(server, link_get16(fields), status);
}

/// Telling ///

static uint32_t precision_of(const tess_ap_t *ap, uint16_t label) {
    uint32_t q30;
    return tess_ap_class(ap, label, &q30) > 0 ? q30 : UNDEFINED;
}

int link_serve_tell(link_server_t *server, const link_message_t *message) {
    if (message->length != TELL_SIZE || link_get32(message->data + 4) == 0) {
        return link_refuse(&server->link);
    }
    uint16_t request = link_get16(message->data);
    int known = server->score.id == link_get32(message->data + 4);
    link_release(&server->link);
    const tess_ap_t *ap = &server->score.ap;
    uint16_t count = known ? ap->n_classes : 0, most = (LINK_PAYLOAD - PRECISION_AT) / 4, first = 0;
    uint32_t mean = UNDEFINED, found;
    if (known && tess_ap_mean(ap, &found) > 0) {
        mean = found;
    }
    do {
        uint8_t *payload;
        int err = link_reserve(&server->link, &payload);
        if (err) {
            return err;
        }
        uint16_t part = count - first < most ? (uint16_t)(count - first) : most;
        link_put16(payload, request);
        link_put16(payload + 2, (uint32_t)(known ? 0 : LINK_ERR_ORDER));
        link_put32(payload + 4, server->score.id);
        link_put32(payload + 8, server->score.id ? server->score.pictures : 0);
        link_put32(payload + 12, mean);
        link_put16(payload + 16, count);
        link_put16(payload + 18, first);
        for (uint16_t i = 0; i < part; i++) {
            link_put32(payload + PRECISION_AT + 4 * i, precision_of(ap, (uint16_t)(first + i)));
        }
        err = link_post(&server->link, LINK_PRECISION, PRECISION_AT + 4u * part);
        if (err) {
            return err;
        }
        first = (uint16_t)(first + part);
    } while (first < count);
    return 0;
}

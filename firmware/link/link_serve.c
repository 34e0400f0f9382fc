/*
 * Requests of the host: who are you, run, test yourself, take a new model. SPEC.md sections 8.3 to 8.6.
 */
#include <string.h>

#include "link_run.h"
#include "tess_format.h"

enum { RESULT_SIZE = 40, INFO_FIXED = 108, MOST_TEXT = 79, LETTERBOX_VERSION = 1, CHUNK_AT = 4 };
TESS_STATIC_ASSERT(info_fits, LINK_PAYLOAD >= INFO_FIXED + 4 * (MOST_TEXT + 1));
TESS_STATIC_ASSERT(chunks_are_units, LINK_PAYLOAD % LINK_STORE_UNIT == 0);

/// Models ///

static int open_at(link_server_t *server, const uint8_t *model, size_t size) {
    const link_config_t *config = server->config;
    int status = tess_open(&server->tess, model, size, config->memory, config->memory_size);
    return status == 0 && server->tess.decode && server->tess.decode->max_detections > config->max_boxes ? LINK_ERR_BOXES : status;
}

static int use(link_server_t *server, const uint8_t *model, size_t size, int place) {
    server->model = model;
    server->model_size = (uint32_t)size;
    server->place = place;
    server->found.session = server->score.id = server->follow.id = 0; // they were another model's
    server->status = model ? open_at(server, model, size) : LINK_ERR_NO_MODEL;
    return server->status;
}

void link_open_model(link_server_t *server) {
    const link_store_t *store = server->config->store;
    link_stored_t stored[2] = {{0, 0}, {0, 0}};
    for (int place = 0; store && place < 2; place++) {
        stored[place] = link_store_look(store, place);
    }
    int newest = stored[1].sequence > stored[0].sequence;
    for (int i = 0; i < 2; i++, newest = !newest) {
        if (stored[newest].sequence > 0 && use(server, store->place[newest], stored[newest].size, newest) == 0) {
            return;
        }
    }
    use(server, server->config->model, server->config->model_size, -1);
}

/// Answers ///

int link_send_result(link_server_t *server, uint16_t request, const link_result_t *result) {
    uint8_t *payload;
    int err = link_reserve(&server->link, &payload);
    if (err) {
        return err;
    }
    link_put16(payload, request);
    link_put16(payload + 2, (uint32_t)result->status);
    link_put16(payload + 4, result->boxes);
    link_put16(payload + 6, result->broken);
    link_put32(payload + 8, (uint32_t)result->run);
    link_put32(payload + 12, (uint32_t)(result->run >> 32));
    link_put32(payload + 16, (uint32_t)result->detect);
    link_put32(payload + 20, (uint32_t)(result->detect >> 32));
    link_put32(payload + 24, server->run.checksum);
    link_put32(payload + 28, result->stack);
    link_put32(payload + 32, result->touched);
    link_put32(payload + 36, server->run.pulls);
    return link_post(&server->link, LINK_RESULT, RESULT_SIZE);
}

static uint8_t *put_text(uint8_t *at, const char *text) {
    for (int i = 0; text && text[i] && i < MOST_TEXT; i++) {
        *at++ = (uint8_t)text[i];
    }
    *at++ = 0;
    return at;
}

// of the names, each with its zero
static uint32_t classes_crc(const tess_t *tess) {
    uint16_t count = tess_classes(tess);
    const char *first = count ? tess_class_name(tess, 0) : NULL;
    const char *last = count ? tess_class_name(tess, (uint16_t)(count - 1)) : NULL;
    return count ? tess_crc32((const uint8_t *)first, (size_t)(last - first) + strlen(last) + 1) : tess_crc32(NULL, 0);
}

static uint32_t preprocess_crc(const tess_t *tess) {
    uint8_t bytes[8];
    const struct tess_header *header = tess_header(tess);
    link_put16(bytes, header->input_h);
    link_put16(bytes + 2, header->input_w);
    link_put16(bytes + 4, header->input_c);
    bytes[6] = header->pad;
    bytes[7] = LETTERBOX_VERSION;
    return tess_crc32(bytes, sizeof(bytes));
}

static void put_model(const link_server_t *server, uint8_t *payload) {
    const struct tess_header *header = tess_header(&server->tess);
    size_t needed = 0;
    tess_needed(server->model, server->model_size, &needed);
    link_put32(payload + 16, (uint32_t)needed);
    link_put32(payload + 32, header->total_size);
    link_put32(payload + 36, header->crc32);
    memcpy(payload + 40, header->tflite_sha256, 16);
    link_put32(payload + 56, classes_crc(&server->tess));
    link_put32(payload + 60, preprocess_crc(&server->tess));
}

static void put_counters(const link_counters_t *counters, uint8_t *at) {
    const uint32_t values[8] = {counters->received, counters->damaged, counters->foreign, counters->duplicate,
        counters->refused, counters->sent, counters->repeated, counters->sessions};
    for (int i = 0; i < 8; i++) {
        link_put32(at + 4 * i, values[i]);
    }
}

int link_serve_info(link_server_t *server, uint16_t request) {
    const link_config_t *config = server->config;
    uint8_t *payload;
    int err = link_reserve(&server->link, &payload);
    if (err) {
        return err;
    }
    memset(payload, 0, INFO_FIXED);
    link_put16(payload, request);
    link_put16(payload + 2, TESS_VERSION);
    link_put16(payload + 4, (uint32_t)server->status);
    payload[6] = config->unit;
    payload[7] = config->caches;
    link_put32(payload + 8, config->clock_hz);
    link_put32(payload + 12, (uint32_t)config->memory_size);
    link_put32(payload + 20, config->line_bytes);
    link_put32(payload + 24, link_store_room(config->store));
    link_put16(payload + 28, config->max_boxes);
    link_put16(payload + 30, config->n_profile);
    link_put16(payload + 64, TESS_ISA);
    link_put16(payload + 66, (uint32_t)(server->place + 1));
    if (server->status == 0) {
        put_model(server, payload);
    }
    put_counters(&server->link.counters, payload + 68);
    link_put32(payload + 100, config->n_counters);
    link_put16(payload + 104, config->n_tracks);
    uint8_t *end = put_text(payload + INFO_FIXED, config->board);
    end = put_text(end, config->firmware);
    end = put_text(end, config->compiler);
    end = put_text(end, server->status == 0 ? tess_model_name(&server->tess) : "");
    return link_post(&server->link, LINK_INFO, (size_t)(end - payload));
}

/// A new model ///

// Chunks follow one another; the last one is filled up to a whole unit.
static int write_chunk(link_server_t *server, int place, uint32_t offset, const uint8_t *data, uint32_t size) {
    uint8_t bytes[LINK_PAYLOAD];
    uint32_t whole = (size + LINK_STORE_UNIT - 1) / LINK_STORE_UNIT * LINK_STORE_UNIT;
    memcpy(bytes, data, size);
    memset(bytes + size, 0xFF, whole - size);
    const link_store_t *store = server->config->store;
    return store->write(store->ctx, place, offset, bytes, whole) < 0 ? LINK_ERR_STORE : 0;
}

// Takes all chunks. A write that fails is remembered, what follows it only received. Returns 0, LINK_OVER or LINK_CLOSED.
static int receive_model(link_server_t *server, int place, uint32_t size, int *status) {
    for (uint32_t offset = 0; offset < size;) {
        link_message_t chunk;
        int err = link_receive(&server->link, &chunk);
        if (err) {
            return err;
        }
        uint32_t part = chunk.length > CHUNK_AT ? (uint32_t)(chunk.length - CHUNK_AT) : 0;
        int last = part == size - offset;
        if (chunk.type != LINK_CHUNK || part == 0 || part > size - offset || link_get32(chunk.data) != offset
                || (part % LINK_STORE_UNIT != 0 && !last)) {
            return link_refuse(&server->link);
        }
        if (*status == 0) {
            *status = write_chunk(server, place, offset, chunk.data + CHUNK_AT, part);
        }
        link_release(&server->link);
        offset += part;
    }
    return 0;
}

static int other_place(const link_server_t *server) {
    const link_store_t *store = server->config->store;
    if (server->place >= 0) {
        return !server->place;
    }
    return link_store_look(store, 1).sequence < link_store_look(store, 0).sequence;
}

int link_serve_load(link_server_t *server, uint16_t request, uint32_t size) {
    const link_store_t *store = server->config->store;
    link_result_t result = {0};
    result.status = !store ? LINK_ERR_NO_STORE : size == 0 || size > link_store_room(store) ? LINK_ERR_TOO_BIG : 0;
    int place = result.status ? 0 : other_place(server);
    server->run.checksum = server->run.pulls = 0;
    if (result.status == 0 && store->erase(store->ctx, place) < 0) {
        result.status = LINK_ERR_STORE;
    }
    int err = link_send_result(server, request, &result); // the host may send, or not
    if (err || result.status) {
        return err;
    }
    err = receive_model(server, place, size, &result.status);
    if (err) {
        return err;
    }
    if (result.status == 0) {
        result.status = open_at(server, store->place[place], size);
    }
    if (result.status == 0) {
        link_stored_t old[2] = {link_store_look(store, 0), link_store_look(store, 1)};
        uint32_t newest = old[0].sequence > old[1].sequence ? old[0].sequence : old[1].sequence;
        result.status = link_store_commit(store, place, newest + 1, size) < 0 ? LINK_ERR_STORE : 0;
    }
    link_open_model(server);
    return link_send_result(server, request, &result);
}

/// Serving ///

// A request is its id and `extra` further bytes.
static int answer(link_server_t *server, const link_message_t *message, size_t extra) {
    if (message->length != 2 + extra) {
        return link_refuse(&server->link);
    }
    uint8_t type = message->type;
    uint16_t request = link_get16(message->data);
    uint32_t size = extra ? link_get32(message->data + 4) : 0;
    link_release(&server->link);
    switch (type) {
    case LINK_ASK: return link_serve_info(server, request);
    case LINK_SELFTEST: return link_serve_selftest(server, request);
    default: return link_serve_load(server, request, size);
    }
}

static int dispatch(link_server_t *server, const link_message_t *message) {
    switch (message->type) {
    case LINK_RUN: return link_serve_run(server, message);
    case LINK_ASK:
    case LINK_SELFTEST: return answer(server, message, 0);
    case LINK_LOAD: return answer(server, message, 6);
    case LINK_FOUND: return link_serve_found(server, message);
    case LINK_SCORE: return link_serve_score(server, message);
    case LINK_TELL: return link_serve_tell(server, message);
    case LINK_TRACK: return link_serve_track(server, message);
    case LINK_ROWS: link_release(&server->link); return 0; // of a run that needed no more
    default: return link_refuse(&server->link);
    }
}

int link_serve(link_server_t *server, const link_config_t *config) {
    memset(server, 0, sizeof(*server));
    server->config = config;
    link_open_model(server);
    int err = link_begin(&server->link, &config->port, &config->start);
    while (err != LINK_CLOSED) {
        link_message_t message;
        err = link_receive(&server->link, &message);
        if (err == 0) {
            err = dispatch(server, &message);
        }
    }
    return err;
}

/*
 * The boxes of the last picture. They are what it found itself, or what it found before a restart and the host gives back.
 */
#include "link_run.h"

enum { FOUND_AT = 4, BOX_SIZE = 12 };

int link_found(const link_server_t *server, uint16_t run) {
    return server->found.session == server->link.session && server->found.run == run ? 0 : LINK_ERR_FOUND;
}

static void read_box(tess_box_t *box, const uint8_t *at) {
    box->x1 = (int16_t)link_get16(at);
    box->y1 = (int16_t)link_get16(at + 2);
    box->x2 = (int16_t)link_get16(at + 4);
    box->y2 = (int16_t)link_get16(at + 6);
    box->score = link_get16(at + 8);
    box->label = link_get16(at + 10);
}

int link_serve_found(link_server_t *server, const link_message_t *message) {
    if (message->length < FOUND_AT || (message->length - FOUND_AT) % BOX_SIZE != 0) {
        return link_refuse(&server->link);
    }
    uint16_t run = link_get16(message->data), first = link_get16(message->data + 2);
    uint16_t count = (uint16_t)((message->length - FOUND_AT) / BOX_SIZE);
    if (first == 0) {
        server->found.session = server->link.session;
        server->found.run = run;
        server->found.count = 0;
    }
    if (link_found(server, run) || first != server->found.count || count > server->config->max_boxes - first) {
        return link_refuse(&server->link);
    }
    for (uint16_t i = 0; i < count; i++) {
        read_box(&server->config->boxes[first + i], message->data + FOUND_AT + BOX_SIZE * i);
    }
    server->found.count = (uint16_t)(first + count);
    link_release(&server->link);
    return 0;
}

/*
 * See link_session.h. Numbers of frames are 16 bits and wrap; a frame lies in slot number % LINK_WINDOW.
 */
#include <string.h>

#include "link_session.h"
#include "tess_format.h"

TESS_STATIC_ASSERT(window_is_a_power_of_two_up_to_8, LINK_WINDOW <= 8 && (LINK_WINDOW & (LINK_WINDOW - 1)) == 0);
TESS_STATIC_ASSERT(patience_is_longer_than_a_frame, LINK_BAUD_PATIENCE > LINK_WIRE && LINK_BAUD_PATIENCE < 2048);

enum { READ_AT_ONCE = 64, WELCOME_SIZE = 20 };

static link_slot_t *slot_of(link_slot_t *slots, uint32_t seq) {
    return &slots[seq % LINK_WINDOW];
}

static uint16_t distance(uint32_t from, uint32_t to) {
    return (uint16_t)(to - from);
}

/// Sending ///

static uint8_t frames_there(link_t *link) {
    uint8_t have = 0;
    for (uint16_t seq = (uint16_t)(link->rx_next + 1); distance(link->rx_read, seq) < LINK_WINDOW; seq++) {
        if (slot_of(link->rx, seq)->type) {
            have = (uint8_t)(have | 1u << (distance(link->rx_next, seq) - 1));
        }
    }
    return have;
}

static int send(link_t *link, uint8_t type, uint16_t seq, uint32_t session, const uint8_t *payload, size_t length) {
    link_header_t header = {
        .version = LINK_VERSION,
        .type = type,
        .seq = seq,
        .ack = link->rx_next,
        .have = frames_there(link),
        .credit = (uint8_t)(LINK_WINDOW - distance(link->rx_read, link->rx_next)),
        .session = session,
        .boot = link->start.boot,
        .length = (uint16_t)length,
    };
    size_t size = link_frame_write(&header, payload, link->scratch, link->wire);
    link->counters.sent++;
    link->ack_due = 0;
    return link->port->write(link->port->ctx, link->wire, size) < 0 ? LINK_CLOSED : 0;
}

static int send_message(link_t *link, uint16_t seq) {
    const link_slot_t *slot = slot_of(link->tx, seq);
    return send(link, slot->type, seq, link->session, slot->data, slot->length);
}

// everything that the host does not have, or an acknowledgement when it has all
static int repeat(link_t *link) {
    int repeated = 0, err = 0;
    for (uint16_t i = 0; !err && i < distance(link->tx_acked, link->tx_next); i++) {
        if (i > 0 && link->tx_have >> (i - 1) & 1) {
            continue;
        }
        link->counters.repeated++;
        repeated = 1;
        err = send_message(link, (uint16_t)(link->tx_acked + i));
    }
    return err || repeated ? err : send(link, LINK_ACK, 0, link->session, NULL, 0);
}

static int send_welcome(link_t *link) {
    uint8_t payload[WELCOME_SIZE];
    payload[0] = (uint8_t)link->start.reset;
    payload[1] = LINK_WINDOW;
    link_put16(payload + 2, LINK_PAYLOAD);
    link_put32(payload + 4, link->start.pc);
    link_put32(payload + 8, link->start.lr);
    link_put32(payload + 12, link->start.cfsr);
    link_put32(payload + 16, link->port->set_baud ? link->port->base_baud : 0);
    return send(link, LINK_WELCOME, 0, link->session, payload, sizeof(payload));
}

int link_settle(link_t *link) {
    return link->ack_due ? send(link, LINK_ACK, 0, link->session, NULL, 0) : 0;
}

/// Receiving ///

static void reset_windows(link_t *link) {
    for (int i = 0; i < LINK_WINDOW; i++) {
        link->rx[i].type = link->tx[i].type = 0;
    }
    link->rx_read = link->rx_next = link->tx_acked = link->tx_next = LINK_FIRST_NUMBER;
    link->tx_have = link->tx_credit = link->ack_due = 0;
}

static int hello(link_t *link, const link_header_t *header) {
    if (header->session != link->session) {
        link->session = header->session;
        link->over = 1;
        link->counters.sessions++;
        reset_windows(link);
        link->tx_credit = header->credit;
    }
    return send_welcome(link);
}

static void take_acknowledgement(link_t *link, const link_header_t *header) {
    uint16_t progress = distance(link->tx_acked, header->ack);
    if (progress > distance(link->tx_acked, link->tx_next)) {
        return; // older than what is known already
    }
    link->tx_acked = header->ack;
    link->tx_have = header->have;
    link->tx_credit = header->credit;
}

static void take_message(link_t *link, const link_header_t *header, const uint8_t *payload) {
    link_slot_t *slot = slot_of(link->rx, header->seq);
    link->ack_due = 1;
    if (distance(link->rx_read, header->seq) >= LINK_WINDOW) {
        int old = distance(header->seq, link->rx_read) <= 0x7FFF;
        *(old ? &link->counters.duplicate : &link->counters.refused) += 1;
        return;
    }
    if (slot->type) {
        link->counters.duplicate++;
        return;
    }
    slot->type = header->type;
    slot->length = header->length;
    memcpy(slot->data, payload, header->length);
    while (distance(link->rx_read, link->rx_next) < LINK_WINDOW && slot_of(link->rx, link->rx_next)->type) {
        link->rx_next++;
    }
}

static int change_baud(link_t *link, uint32_t rate) {
    uint8_t answer[4];
    int can = link->port->set_baud && rate > 0;
    link_put32(answer, can ? rate : 0);
    int err = send(link, LINK_BAUD, 0, link->session, answer, sizeof(answer));
    if (!err && can && link->port->set_baud(link->port->ctx, rate) == 0) {
        link->baud = rate;
    }
    return err;
}

static int take_frame(link_t *link, const link_header_t *header, const uint8_t *payload) {
    link->counters.received++;
    link->quiet = 0;
    if (header->type == LINK_HELLO && header->session != 0) {
        return hello(link, header);
    }
    if (header->version != LINK_VERSION || header->session != link->session || header->boot != link->start.boot
            || link->session == 0) {
        link->counters.foreign++;
        return send(link, LINK_LOST, 0, header->session, NULL, 0);
    }
    take_acknowledgement(link, header);
    if (header->type >= LINK_FIRST_MESSAGE) {
        take_message(link, header, payload);
        return 0;
    }
    switch (header->type) {
    case LINK_POLL: return repeat(link);
    case LINK_ECHO: return send(link, LINK_ECHO, header->seq, link->session, payload, header->length);
    case LINK_BAUD: return header->length == 4 ? change_baud(link, link_get32(payload)) : 0;
    default: return 0;
    }
}

// The host may have gone back to the first rate without this device hearing of it.
static void watch_baud(link_t *link, uint32_t bytes) {
    link->quiet += bytes;
    if (link->baud && link->baud != link->port->base_baud && link->quiet > LINK_BAUD_PATIENCE) {
        link->port->set_baud(link->port->ctx, link->port->base_baud);
        link->baud = link->port->base_baud;
        link->quiet = 0;
    }
}

static int take_bytes(link_t *link, const uint8_t *bytes, int count) {
    for (int i = 0; i < count; i++) {
        link_header_t header;
        int size = link_parse(&link->parser, bytes[i]);
        if (size == 0) {
            continue;
        }
        if (size < 0 || link_frame_read(link->parser.frame, (size_t)size, &header) != 0) {
            link->counters.damaged++;
            continue;
        }
        int err = take_frame(link, &header, link->parser.frame + LINK_HEADER);
        if (err) {
            return err;
        }
    }
    watch_baud(link, (uint32_t)count);
    return 0;
}

// Takes what has arrived; when nothing has, pays an acknowledgement that is due, and waits.
static int listen(link_t *link) {
    uint8_t bytes[READ_AT_ONCE];
    int count = link->port->read(link->port->ctx, bytes, sizeof(bytes), 0);
    if (count == 0) {
        int err = link_settle(link);
        count = err ? err : link->port->read(link->port->ctx, bytes, sizeof(bytes), 1);
    }
    return count < 0 ? LINK_CLOSED : take_bytes(link, bytes, count);
}

/// For the caller ///

int link_begin(link_t *link, const link_port_t *port, const link_start_t *start) {
    memset(link, 0, sizeof(*link));
    link->port = port;
    link->start = *start;
    reset_windows(link);
    return send(link, LINK_AWAKE, 0, 0, NULL, 0);
}

static int ended(link_t *link) {
    int over = link->over;
    link->over = 0;
    return over ? LINK_OVER : 0;
}

int link_receive(link_t *link, link_message_t *message) {
    while (!link->over && link->rx_read == link->rx_next) {
        int err = listen(link);
        if (err) {
            return err;
        }
    }
    if (link->over) {
        return ended(link);
    }
    const link_slot_t *slot = slot_of(link->rx, link->rx_read);
    message->type = slot->type;
    message->length = slot->length;
    message->data = slot->data;
    return 0;
}

void link_release(link_t *link) {
    slot_of(link->rx, link->rx_read)->type = 0;
    link->rx_read++;
    link->ack_due = 1; // there is room again
}

int link_reserve(link_t *link, uint8_t **payload) {
    for (;;) {
        uint16_t under_way = distance(link->tx_acked, link->tx_next);
        if (link->over) {
            return ended(link);
        }
        if (under_way < LINK_WINDOW && under_way < link->tx_credit) {
            break;
        }
        int err = listen(link);
        if (err) {
            return err;
        }
    }
    *payload = slot_of(link->tx, link->tx_next)->data;
    return 0;
}

int link_post(link_t *link, uint8_t type, size_t length) {
    link_slot_t *slot = slot_of(link->tx, link->tx_next);
    slot->type = type;
    slot->length = (uint16_t)length;
    return send_message(link, link->tx_next++);
}

int link_refuse(link_t *link) {
    uint32_t session = link->session;
    link->counters.refused++;
    link->session = 0;
    link->over = 0;
    reset_windows(link);
    return send(link, LINK_LOST, 0, session, NULL, 0) ? LINK_CLOSED : LINK_OVER;
}

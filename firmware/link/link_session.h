/*
 * The device's end of a session: sequenced frames arrive once each, in order, or the session is over. SPEC.md section 8.2.
 *
 * The device keeps no time. It answers what arrives; the host watches the clock, repeats what was not acknowledged and
 * polls for what it misses. All buffers are inside of link_t.
 */
#ifndef LINK_SESSION_H
#define LINK_SESSION_H

#include "link_frame.h"

// Sequenced frames that are kept in each direction: a power of two, at most 8.
#ifndef LINK_WINDOW
#define LINK_WINDOW 4
#endif

// Number of the first sequenced frame: near the end, so that no session is too short to wrap.
#define LINK_FIRST_NUMBER 0xFFF0

// Bytes without a valid frame after which a raised baud rate is given up: more than a frame has, less than the 2048 by which a
// host calls a device back.
#ifndef LINK_BAUD_PATIENCE
#define LINK_BAUD_PATIENCE 1536
#endif

// Frames that need no session, or carry no number of their own.
enum link_control {
    LINK_HELLO = 1,   // host: begin this session
    LINK_WELCOME = 2, // device: it has begun
    LINK_LOST = 3,    // device: this session is not, or no longer, known here
    LINK_AWAKE = 4,   // device: I have started
    LINK_POLL = 5,    // host: repeat what I have not acknowledged, or acknowledge
    LINK_ACK = 6,     // both: nothing but the header
    LINK_BAUD = 7,    // host: go on at this rate; device: I do from here on, or cannot (0)
    LINK_ECHO = 8,    // host: send this back; device: here it is
    LINK_FIRST_MESSAGE = 16, // this type and all above are sequenced
};

enum link_error {
    LINK_OVER = -1,   // the session is over: a new one has begun, or the host broke a rule
    LINK_CLOSED = -2, // the port is gone
};

// How bytes leave and arrive. All functions get ctx.
typedef struct link_port {
    void *ctx;

    // Copies up to `size` bytes that have arrived. Returns how many; 0 when there are none (with `wait` it may sleep until there
    // are); negative when the port is gone.
    int (*read)(void *ctx, uint8_t *data, size_t size, int wait);

    // Sends all bytes. Returns 0, or negative when the port is gone.
    int (*write)(void *ctx, const uint8_t *data, size_t size);

    // Waits until everything is sent and goes on at this many bits a second. Returns 0, or negative when it cannot and stays as it
    // is. NULL where the port knows no rate.
    int (*set_baud)(void *ctx, uint32_t rate);

    // The rate after a start.
    uint32_t base_baud;

    // Rows of the picture that may be under way while the device computes: 0 where arriving bytes would be lost then.
    uint16_t rows_ahead;
} link_port_t;

// Why the device last started.
enum link_reset {
    LINK_RESET_UNKNOWN = 0,
    LINK_RESET_POWER = 1,
    LINK_RESET_PIN = 2,
    LINK_RESET_SOFTWARE = 3,
    LINK_RESET_WATCHDOG = 4,
    LINK_RESET_BROWN_OUT = 5,
    LINK_RESET_FAULT = 6, // pc, lr and cfsr say where
};

typedef struct link_start {
    uint32_t boot;              // another one after every start, as far as the board can tell
    uint32_t reset;             // enum link_reset
    uint32_t pc, lr, cfsr;      // of the fault
} link_start_t;

// What was counted since the start, in the order in which INFO reports it.
typedef struct link_counters {
    uint32_t received;   // valid frames
    uint32_t damaged;    // what was no frame
    uint32_t foreign;    // valid frames of another session
    uint32_t duplicate;  // sequenced frames that were there already
    uint32_t refused;    // sequenced frames without room, and messages that broke a rule
    uint32_t sent;       // frames
    uint32_t repeated;   // of them, sequenced frames sent again
    uint32_t sessions;
} link_counters_t;

typedef struct link_slot {
    uint8_t type;       // 0: empty
    uint16_t length;
    uint8_t data[LINK_PAYLOAD];
} link_slot_t;

// The caller owns it, link_start fills it; fields are private but for counters.
typedef struct link {
    const link_port_t *port;
    link_start_t start;
    link_counters_t counters;
    uint32_t session;       // 0: none
    uint32_t quiet;         // bytes since the last valid frame
    uint32_t baud;          // 0: never changed
    uint16_t rx_read;       // next message that the caller gets
    uint16_t rx_next;       // next frame that is missing
    uint16_t tx_acked;      // oldest frame that the host has not acknowledged
    uint16_t tx_next;       // number of the next new one
    uint8_t tx_have;        // frames after tx_acked that the host has
    uint8_t tx_credit;      // frames from tx_acked on that the host takes
    uint8_t ack_due;
    uint8_t over;           // the session that the caller works in is over
    link_slot_t rx[LINK_WINDOW], tx[LINK_WINDOW];
    link_parser_t parser;
    uint8_t scratch[LINK_FRAME], wire[LINK_WIRE];
} link_t;

typedef struct link_message {
    uint8_t type;
    uint16_t length;
    const uint8_t *data;
} link_message_t;

// Prepares everything and tells the host, if it listens, that the device has started. Returns 0 or LINK_CLOSED.
int link_begin(link_t *link, const link_port_t *port, const link_start_t *start);

// Waits for the next message; it stays valid until link_release. Returns 0, LINK_OVER or LINK_CLOSED. After LINK_OVER, from any
// function, a message or buffer still held is gone, and the next call waits for messages of the new session.
int link_receive(link_t *link, link_message_t *message);

// Gives the message's buffer back.
void link_release(link_t *link);

// Waits for a free buffer for a message of up to LINK_PAYLOAD bytes. Returns 0, LINK_OVER or LINK_CLOSED.
int link_reserve(link_t *link, uint8_t **payload);

// Sends the reserved buffer's first `length` bytes as a message. Returns 0 or LINK_CLOSED.
int link_post(link_t *link, uint8_t type, size_t length);

// Sends an acknowledgement that is due: before a time without listening. Returns 0 or LINK_CLOSED.
int link_settle(link_t *link);

// Ends the session because the host broke a rule, and tells it. Returns LINK_OVER or LINK_CLOSED.
int link_refuse(link_t *link);

#endif

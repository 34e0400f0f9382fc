/*
 * Frames of the link: bytes on the wire to checked messages and back. SPEC.md section 8 has the layout byte by byte.
 *
 * A frame is a header of 20 bytes with a CRC-16 of its own, up to LINK_PAYLOAD bytes, and a CRC-32 over all of it;
 * COBS takes the zeros out of it, and a zero stands before and behind. Nothing here knows what a frame means.
 */
#ifndef LINK_FRAME_H
#define LINK_FRAME_H

#include <stddef.h>
#include <stdint.h>

// Version of the link. Header and meaning of HELLO, WELCOME, LOST and AWAKE stay the same in every version.
#define LINK_VERSION 2

// Most payload bytes of a frame. Costs (2 * LINK_WINDOW + 2) times itself in RAM.
#ifndef LINK_PAYLOAD
#define LINK_PAYLOAD 512
#endif

enum {
    LINK_HEADER = 20,
    LINK_FRAME = LINK_HEADER + LINK_PAYLOAD + 4, // header, payload, CRC-32
    LINK_WIRE = LINK_FRAME + LINK_FRAME / 254 + 3, // with COBS and both zeros
};

typedef struct link_header {
    uint8_t version;
    uint8_t type;
    uint16_t seq;     // number of a sequenced frame
    uint16_t ack;     // number of the sequenced frame that the sender of this one waits for
    uint8_t have;     // bit i: frame ack + 1 + i is there already
    uint8_t credit;   // sequenced frames, from ack on, that the sender of this one has room for
    uint32_t session;
    uint32_t boot;
    uint16_t length;  // of the payload
} link_header_t;

// Collects the bytes between two zeros and undoes COBS. Fields are private; all zero is the start.
typedef struct link_parser {
    uint16_t size;     // decoded bytes so far
    uint8_t left;      // bytes up to the next code byte
    uint8_t zero;      // that code byte stands for a zero
    uint8_t bad;       // skip to the next zero on the wire
    uint8_t frame[LINK_FRAME];
} link_parser_t;

// Takes one byte of the wire. Returns the size of a complete frame, now in parser->frame until the next call; 0 when there
// is none yet; -1 when what ended here is no frame.
int link_parse(link_parser_t *parser, uint8_t byte);

// Reads and checks a frame of `size` bytes: length, CRC-16, CRC-32. Returns 0, or -1 when it is damaged.
int link_frame_read(const uint8_t *frame, size_t size, link_header_t *header);

// Writes header, payload (header->length bytes) and CRCs to `wire`, ready to be sent. Returns how many bytes, at most
// LINK_WIRE. `scratch` is overwritten.
size_t link_frame_write(const link_header_t *header, const uint8_t *payload, uint8_t scratch[LINK_FRAME],
    uint8_t wire[LINK_WIRE]);

// Little-endian fields at any address.
static inline uint16_t link_get16(const uint8_t *at) {
    return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t link_get32(const uint8_t *at) {
    return link_get16(at) | (uint32_t)link_get16(at + 2) << 16;
}

static inline void link_put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static inline void link_put32(uint8_t *at, uint32_t value) {
    link_put16(at, value);
    link_put16(at + 2, value >> 16);
}

#endif

/*
 * COBS, header and both CRCs. SPEC.md section 8.1.
 */
#include <string.h>

#include "link_frame.h"
#include "tess_format.h"

// CRC-16 with polynomial 0x1021, start 0xFFFF, as in HDLC's header checks (CRC-16/IBM-3740).
static uint16_t crc16(const uint8_t *data, size_t size) {
    uint32_t crc = 0xFFFF;
    for (size_t i = 0; i < size; i++) {
        crc ^= (uint32_t)data[i] << 8;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1;
        }
        crc &= 0xFFFF;
    }
    return (uint16_t)crc;
}

/// Reading ///

static void parse_begin(link_parser_t *parser) {
    parser->size = 0;
    parser->left = 0;
    parser->zero = 0;
    parser->bad = 0;
}

static void append(link_parser_t *parser, uint8_t byte) {
    if (parser->size < LINK_FRAME) {
        parser->frame[parser->size++] = byte;
    } else {
        parser->bad = 1;
    }
}

// a zero on the wire
static int parse_end(link_parser_t *parser) {
    int empty = parser->size == 0 && parser->left == 0 && !parser->zero && !parser->bad;
    int whole = !parser->bad && parser->left == 0;
    int size = parser->size;
    parse_begin(parser);
    return empty ? 0 : whole && size > 0 ? size : -1;
}

int link_parse(link_parser_t *parser, uint8_t byte) {
    if (byte == 0) {
        return parse_end(parser);
    }
    if (parser->left > 0) {
        parser->left--;
        append(parser, byte);
        return 0;
    }
    if (parser->zero) {
        append(parser, 0);
    }
    parser->left = (uint8_t)(byte - 1);
    parser->zero = byte < 0xFF;
    return 0;
}

int link_frame_read(const uint8_t *frame, size_t size, link_header_t *header) {
    if (size < LINK_HEADER + 4 || link_get16(frame + 18) != crc16(frame, 18)) {
        return -1;
    }
    header->version = frame[0];
    header->type = frame[1];
    header->seq = link_get16(frame + 2);
    header->ack = link_get16(frame + 4);
    header->have = frame[6];
    header->credit = frame[7];
    header->session = link_get32(frame + 8);
    header->boot = link_get32(frame + 12);
    header->length = link_get16(frame + 16);
    if (header->length > LINK_PAYLOAD || size != (size_t)LINK_HEADER + header->length + 4) {
        return -1;
    }
    return link_get32(frame + size - 4) == tess_crc32(frame, size - 4) ? 0 : -1;
}

/// Writing ///

static size_t write_cobs(const uint8_t *data, size_t size, uint8_t *wire) {
    size_t code = 1, out = 2; // wire[0] is the zero before the frame
    wire[0] = 0;
    for (size_t i = 0; i < size; i++) {
        if (data[i] != 0) {
            wire[out++] = data[i];
        }
        if (data[i] == 0 || out - code == 0xFF) {
            wire[code] = (uint8_t)(out - code);
            code = out++;
        }
    }
    wire[code] = (uint8_t)(out - code);
    wire[out++] = 0;
    return out;
}

size_t link_frame_write(const link_header_t *header, const uint8_t *payload, uint8_t scratch[LINK_FRAME],
        uint8_t wire[LINK_WIRE]) {
    size_t size = (size_t)LINK_HEADER + header->length;
    scratch[0] = header->version;
    scratch[1] = header->type;
    link_put16(scratch + 2, header->seq);
    link_put16(scratch + 4, header->ack);
    scratch[6] = header->have;
    scratch[7] = header->credit;
    link_put32(scratch + 8, header->session);
    link_put32(scratch + 12, header->boot);
    link_put16(scratch + 16, header->length);
    link_put16(scratch + 18, crc16(scratch, 18));
    if (header->length > 0) {
        memcpy(scratch + LINK_HEADER, payload, header->length);
    }
    link_put32(scratch + size, tess_crc32(scratch, size));
    return write_cobs(scratch, size + 4, wire);
}

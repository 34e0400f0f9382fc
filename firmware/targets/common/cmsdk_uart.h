// UART of Arm's Cortex-M System Design Kit (DDI 0479D, 4.3), as boards with FPGA images have it: port.h's functions for a line at `base`.
#ifndef CMSDK_UART_H
#define CMSDK_UART_H

#include "nvic.h"
#include "register.h"

enum { CMSDK_DATA = 0x0, CMSDK_STATE = 0x4, CMSDK_CTRL = 0x8, CMSDK_INTERRUPTS = 0xC, CMSDK_DIVIDER = 0x10 };
enum { CMSDK_SENDER_FULL = 1, CMSDK_RECEIVED = 2, CMSDK_BAUD = 115200 };

// `clock` in Hz; `irq` is raised when a byte has arrived.
static inline void cmsdk_uart_init(uint32_t base, uint32_t clock, uint32_t irq) {
    REGISTER(base + CMSDK_DIVIDER) = (clock + CMSDK_BAUD / 2) / CMSDK_BAUD;
    REGISTER(base + CMSDK_CTRL) = 1 | 2 | 8; // sender, receiver, its interrupt
    nvic_enable(irq);
}

static inline int cmsdk_uart_get(uint32_t base) {
    return REGISTER(base + CMSDK_STATE) & CMSDK_RECEIVED ? (int)(REGISTER(base + CMSDK_DATA) & 0xFF) : -1;
}

static inline void cmsdk_uart_put(uint32_t base, uint8_t byte) {
    while (REGISTER(base + CMSDK_STATE) & CMSDK_SENDER_FULL) {
    }
    REGISTER(base + CMSDK_DATA) = byte;
}

static inline void cmsdk_uart_wait(uint32_t base, uint32_t irq) {
    REGISTER(base + CMSDK_INTERRUPTS) = 2;
    nvic_clear(irq);
    if (!(REGISTER(base + CMSDK_STATE) & CMSDK_RECEIVED)) {
        nvic_sleep();
    }
}

#endif

// Why an STM32F4 or F7 last started (RM0090 7.3.21, RM0385 5.3.21).
#ifndef RCC_CSR_H
#define RCC_CSR_H

#include "link_session.h"
#include "register.h"

#define RCC_CSR 0x40023874u

// enum link_reset; clears the flags. Of several the rarest says most: a power-on sets nearly all.
static inline uint32_t rcc_csr_reset_reason(void) {
    uint32_t flags = REGISTER(RCC_CSR);
    REGISTER(RCC_CSR) |= 1u << 24;
    return (flags & 1u << 27) ? LINK_RESET_POWER
        : (flags & 3u << 29) ? LINK_RESET_WATCHDOG
        : (flags & 1u << 28) ? LINK_RESET_SOFTWARE
        : (flags & 1u << 25) ? LINK_RESET_BROWN_OUT
        : (flags & 1u << 26) ? LINK_RESET_PIN
                           : LINK_RESET_UNKNOWN;
}

#endif

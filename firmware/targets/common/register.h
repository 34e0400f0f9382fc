// Registers of peripherals.
#ifndef REGISTER_H
#define REGISTER_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

// Waits until the masked bits have this value.
static inline void wait_for(uint32_t address, uint32_t mask, uint32_t value) {
    while ((REGISTER(address) & mask) != value) {
    }
}

// Waits until the bits are set, but no more than so many reads. Whether they are.
static inline int wait_bounded(uint32_t address, uint32_t bits, uint32_t reads) {
    while (reads-- > 0) {
        if ((REGISTER(address) & bits) == bits) {
            return 1;
        }
    }
    return 0;
}

// Replaces the masked bits.
static inline void modify(uint32_t address, uint32_t mask, uint32_t value) {
    REGISTER(address) = (REGISTER(address) & ~mask) | value;
}

#endif

/* What STM32F7 and STM32H7 have in common: a port.c of one of them sets up clocks, memory protection and pins, this does the rest.
 *
 * Registers are named as in the reference manuals RM0385 (STM32F746) and RM0433 (STM32H743), and in ARM's DDI 0403E (ARMv7-M).
 */
#ifndef STM32_H
#define STM32_H

#include <stdint.h>

#include "link_store.h"
#include "register.h"

// Set by port_init, before anything else of this header is called.
typedef struct stm32_clocks {
    uint32_t core;  // Hz
    uint32_t usart; // Hz, what the USART divides
} stm32_clocks_t;
extern stm32_clocks_t stm32_clocks;

// The USART that the ST-Link makes a virtual COM port of, and the DMA stream that takes what it receives.
typedef struct stm32_serial {
    uint32_t usart;
    uint32_t stream;
    uint32_t stream_bits; // of DMA_SxCR beside the common ones: the request, and what the chip needs
} stm32_serial_t;
extern const stm32_serial_t stm32_serial;

// Clocks and pins of the serial line; whatever chooses the stream's request outside of it.
void stm32_serial_connect(void);

// enum link_reset, from the chip's reset flags, which it clears.
uint32_t stm32_reset_reason(void);

// Erases the sector of the flash that begins at the address. Returns 0, or -1 when the controller reports an error.
int stm32_flash_erase(uint32_t address);
extern const uint32_t stm32_flash_sector; // bytes of each sector of the store

// Writes LINK_STORE_UNIT bytes, which are erased. Returns as stm32_flash_erase.
int stm32_flash_write(uint32_t address, const uint8_t *data);

// Whether something was read since the last call that error correction could not repair.
int stm32_flash_damaged(void);

// The store with its places in flash: what erases, writes and reads them.
const link_store_t *stm32_store(const link_store_t *places);

// Empties both caches and switches them on. The MPU has been set up.
void stm32_enable_caches(void);

// Starts the cycle counter and TIM2, whose clock is half of the core's.
void stm32_start_counters(void);

#endif

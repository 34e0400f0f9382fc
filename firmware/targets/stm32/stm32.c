#include "stm32.h"

#include "link.h"
#include "port.h"
#include "scb.h"

enum { RING = 8192, BASE_BAUD = 115200, ROWS_AHEAD = 4 };

stm32_clocks_t stm32_clocks;

// Where DMA leaves what was received: memory that is not cached.
static volatile uint8_t ring[RING] __attribute__((section(".dma")));
static uint32_t ring_read;

/// Caches (DDI 0403E B4.8) ///

void stm32_enable_caches(void) {
    SCB_CSSELR = 0; // the data cache
    __asm volatile("dsb" ::: "memory");
    uint32_t size = SCB_CCSIDR;
    uint32_t sets = ((size >> 13) & 0x7FFF) + 1, ways = ((size >> 3) & 0x3FF) + 1;
    for (uint32_t way = 0; way < ways; way++) {
        for (uint32_t set = 0; set < sets; set++) {
            SCB_DCISW = way << 30 | set << 5; // four ways, lines of 32 bytes in every Cortex-M7
        }
    }
    SCB_ICIALLU = 0;
    __asm volatile("dsb\n isb" ::: "memory");
    SCB_CCR |= 1u << 17 | 1u << 16;
    __asm volatile("dsb\n isb" ::: "memory");
}

/// Cycles ///

#define DWT_CTRL REGISTER(0xE0001000u)
#define DWT_CYCCNT REGISTER(0xE0001004u)
#define DWT_LAR REGISTER(0xE0001FB0u)
#define TIM2_CR1 REGISTER(0x40000000u)
#define TIM2_EGR REGISTER(0x40000014u)
#define TIM2_CNT REGISTER(0x40000024u)
#define TIM2_PSC REGISTER(0x40000028u)

void stm32_start_counters(void) {
    TIM2_PSC = 128 - 1; // with half of the core's clock: 256 cycles a tick
    TIM2_EGR = 1;       // take the divider over now
    SCB_DEMCR |= 1u << 24;
    DWT_LAR = 0xC5ACCE55u;
    DWT_CTRL |= 1;
    TIM2_CR1 = 1;
    port_restart_ticks();
}

void port_restart_ticks(void) {
    DWT_CYCCNT = 0;
    TIM2_CNT = 0;
}

// CYCCNT wraps within seconds; TIM2 says how often. Nobody sleeps here: the cycle counter would, and TIM2 would not.
uint64_t port_ticks(void) {
    uint32_t fine = DWT_CYCCNT;
    uint32_t coarse = TIM2_CNT;
    return port_widen(fine, coarse, 8);
}

uint64_t port_instructions(uint64_t ticks) {
    return ticks;
}

/// Serial line: RM0433 chapters 48 and 15, RM0385 chapters 31 and 8 ///

#define USART_CR1 (stm32_serial.usart + 0x00u)
#define USART_CR3 (stm32_serial.usart + 0x08u)
#define USART_BRR (stm32_serial.usart + 0x0Cu)
#define USART_ISR (stm32_serial.usart + 0x1Cu)
#define USART_RDR (stm32_serial.usart + 0x24u)
#define USART_TDR (stm32_serial.usart + 0x28u)
enum { UE = 1 << 0, RE = 1 << 2, TE = 1 << 3, DMAR = 1 << 6, OVRDIS = 1 << 12, TC = 1 << 6, TXE = 1 << 7 };

#define DMA_CR (stm32_serial.stream + 0x00u)
#define DMA_NDTR (stm32_serial.stream + 0x04u)
#define DMA_PAR (stm32_serial.stream + 0x08u)
#define DMA_M0AR (stm32_serial.stream + 0x0Cu)
enum { DMA_EN = 1 << 0, DMA_CIRCULAR = 1 << 8, DMA_MINC = 1 << 10, DMA_HIGH_PRIORITY = 2 << 16 };

static uint32_t divider(uint32_t rate) {
    return (stm32_clocks.usart + rate / 2) / rate;
}

void port_uart_init(void) {
    stm32_serial_connect();
    REGISTER(DMA_NDTR) = RING;
    REGISTER(DMA_PAR) = USART_RDR;
    REGISTER(DMA_M0AR) = (uint32_t)(uintptr_t)ring;
    REGISTER(DMA_CR) = stm32_serial.stream_bits | DMA_HIGH_PRIORITY | DMA_MINC | DMA_CIRCULAR;
    REGISTER(DMA_CR) |= DMA_EN;
    REGISTER(USART_BRR) = divider(BASE_BAUD);
    REGISTER(USART_CR3) = OVRDIS | DMAR;
    REGISTER(USART_CR1) = TE | RE | UE;
}

int port_uart_get(void) {
    if (ring_read == RING - REGISTER(DMA_NDTR) % RING) {
        return -1;
    }
    int byte = ring[ring_read];
    ring_read = (ring_read + 1) % RING;
    return byte;
}

void port_uart_put(uint8_t byte) {
    wait_for(USART_ISR, TXE, TXE);
    REGISTER(USART_TDR) = byte;
}

// Awake: see port_ticks.
void port_uart_wait(void) {
}

static int set_baud(void *ctx, uint32_t rate) {
    (void)ctx;
    if (rate == 0 || divider(rate) < 16 || divider(rate) > 0xFFFF) { // with 16 samples a bit
        return -1;
    }
    wait_for(USART_ISR, TC, TC);
    REGISTER(USART_CR1) &= ~(uint32_t)UE; // RM0433 48.8.5: BRR is written only while UE is 0
    REGISTER(USART_BRR) = divider(rate);
    REGISTER(USART_CR1) |= UE;
    return 0;
}

void port_describe(link_config_t *config) {
    config->unit = LINK_CYCLES;
    config->clock_hz = stm32_clocks.core;
    config->caches = LINK_INSTRUCTION_CACHE | LINK_DATA_CACHE;
    config->port.set_baud = set_baud;
    config->port.base_baud = BASE_BAUD;
    config->port.rows_ahead = ROWS_AHEAD;
    config->store = stm32_store(config->store);
    config->start.reset = stm32_reset_reason();
    port_noted(&config->start);
}

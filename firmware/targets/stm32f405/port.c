/* STM32F405 (RM0090 revision 19) at 168 MHz, from its own oscillator of 16 MHz whatever crystal a board has; and QEMU's
 * netduinoplus2, which has no PLL: there it is never ready and all clocks stay as after a reset, so one program runs on both.
 *
 * A chip counts cycles (DWT). QEMU under `-icount shift=0` has no such counter, but an instruction takes 1 ns and its timers run at 1
 * GHz, so a tick of TIM2 is an instruction. TIM5, 256 times slower than either, says how often it went round. Outside of RAM and flash
 * there are faults by themselves; QEMU drops writes to the flash and to its mirror at 0, and those are made faults here.
 */
#include "link.h"
#include "mpu.h"
#include "nvic.h"
#include "port.h"
#include "rcc_csr.h"
#include "register.h"
#include "scb.h"

#define PWR_CR 0x40007000u
#define FLASH_ACR 0x40023C00u
#define RCC_CR 0x40023800u
#define RCC_PLLCFGR 0x40023804u
#define RCC_CFGR 0x40023808u
#define RCC_AHB1ENR 0x40023830u
#define RCC_APB1ENR 0x40023840u
#define RCC_APB2ENR 0x40023844u
enum { VOS1 = 1 << 14, PLLON = 1 << 24, PLLRDY = 1 << 25, PLL_READS = 10000 }; // some 3 ms; a PLL takes 0.3
enum { WAIT_STATES = 5, PREFETCH_AND_CACHES = 7 << 8 };
enum { SLOW_HZ = 16000000, CORE_HZ = 168000000, BAUD = 115200 };

#define TIM2 0x40000000u
#define TIM5 0x40000C00u
enum { CR1 = 0x00, EGR = 0x14, CNT = 0x24, PSC = 0x28 };

#define DWT_CTRL 0xE0001000u
#define DWT_CYCCNT 0xE0001004u

#define GPIOA_MODER 0x40020000u
#define GPIOA_AFRH 0x40020024u
#define USART1_SR 0x40011000u
#define USART1_DR 0x40011004u
#define USART1_BRR 0x40011008u
#define USART1_CR1 0x4001100Cu
enum { RECEIVED = 0x28, ROOM_TO_SEND = 0x80, USART1_IRQ = 37, RING = 4096 }; // RXNE, ORE; TXE

static uint32_t core_hz;      // 0 in QEMU
static uint32_t fine_counter; // the register

/// Clocks and counters ///

// 1 MHz, times 336, by 2; the reserved bits as after reset, 48 MHz for nobody.
static int start_pll(void) {
    REGISTER(RCC_PLLCFGR) = 2u << 28 | 7u << 24 | 336u << 6 | 16u;
    modify(PWR_CR, VOS1, VOS1);
    REGISTER(RCC_CR) |= PLLON;
    return wait_bounded(RCC_CR, PLLRDY, PLL_READS);
}

// APB1 a quarter, APB2 half; timers run at twice their bus.
static void switch_over(void) {
    REGISTER(FLASH_ACR) = PREFETCH_AND_CACHES | WAIT_STATES;
    wait_for(FLASH_ACR, 0xF, WAIT_STATES);
    modify(RCC_CFGR, 7u << 13 | 7u << 10 | 0xFu << 4, 4u << 13 | 5u << 10);
    modify(RCC_CFGR, 3, 2);
    wait_for(RCC_CFGR, 3u << 2, 2u << 2);
    core_hz = CORE_HZ;
}

static void start_timer(uint32_t timer, uint32_t divider) {
    REGISTER(timer + PSC) = divider - 1;
    REGISTER(timer + EGR) = 1; // take the divider over now, count from 0
    REGISTER(timer + CR1) = 1;
}

static void start_cycle_counter(void) {
    SCB_DEMCR |= 1u << 24;
    REGISTER(DWT_CYCCNT) = 0;
    REGISTER(DWT_CTRL) |= 1;
}

void port_init(void) {
    mpu_region(0, 0x00000000, 28, MPU_READ_ONLY | MPU_WRITE_THROUGH); // 256 MB
    mpu_enable(1);
    REGISTER(RCC_APB1ENR) |= 1u << 28 | 1u << 3 | 1; // PWR, TIM5, TIM2
    (void)REGISTER(RCC_APB1ENR);                     // two cycles pass before a clock is there
    if (start_pll()) {
        switch_over();
        start_cycle_counter();
        fine_counter = DWT_CYCCNT;
        start_timer(TIM5, 128);
    } else {
        start_timer(TIM2, 1);
        fine_counter = TIM2 + CNT;
        start_timer(TIM5, 256);
    }
}

void port_restart_ticks(void) {
    REGISTER(fine_counter) = 0;
    REGISTER(TIM5 + CNT) = 0;
}

uint64_t port_ticks(void) {
    uint32_t fine = REGISTER(fine_counter);
    uint32_t coarse = REGISTER(TIM5 + CNT);
    return port_widen(fine, coarse, 8);
}

uint64_t port_instructions(uint64_t ticks) {
    return ticks;
}

/// Serial line: looked at whenever something is sent or asked for ///

static struct {
    uint32_t read, written;
    uint8_t bytes[RING];
} ring;

// Reading the data after the state also forgets a byte that came too early for its predecessor.
static void look(void) {
    if (REGISTER(USART1_SR) & RECEIVED) {
        ring.bytes[ring.written++ % RING] = (uint8_t)REGISTER(USART1_DR);
    }
}

// USART1 on PA9 and PA10 (AF7).
void port_uart_init(void) {
    uint32_t clock = core_hz ? core_hz / 2 : SLOW_HZ;
    REGISTER(RCC_AHB1ENR) |= 1;
    REGISTER(RCC_APB2ENR) |= 1u << 4;
    (void)REGISTER(RCC_APB2ENR);
    modify(GPIOA_AFRH, 0xFF0u, 0x770u);
    modify(GPIOA_MODER, 0xFu << 18, 0xAu << 18);
    REGISTER(USART1_BRR) = (clock + BAUD / 2) / BAUD;
    REGISTER(USART1_CR1) = 1u << 13 | 1u << 5 | 1u << 3 | 1u << 2; // on, interrupt, sender, receiver
    nvic_enable(USART1_IRQ);
}

int port_uart_get(void) {
    look();
    return ring.read == ring.written ? -1 : ring.bytes[ring.read++ % RING];
}

void port_uart_put(uint8_t byte) {
    look();
    while (!(REGISTER(USART1_SR) & ROOM_TO_SEND)) {
        look();
    }
    REGISTER(USART1_DR) = byte;
}

// A chip stays awake: its cycle counter would sleep, and TIM5 would not.
void port_uart_wait(void) {
    nvic_clear(USART1_IRQ);
    if (!core_hz && !(REGISTER(USART1_SR) & RECEIVED)) {
        nvic_sleep();
    }
}

/// What it says of itself ///

void port_describe(link_config_t *config) {
    config->unit = core_hz ? LINK_CYCLES : LINK_INSTRUCTIONS;
    config->clock_hz = core_hz;
    config->start.reset = rcc_csr_reset_reason(); // QEMU has no flags
    port_noted(&config->start);
}

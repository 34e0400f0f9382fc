/* netduinoplus2 under `-icount shift=0`: an instruction takes 1 ns and QEMU clocks the timers at 1 GHz, so a tick of TIM2
 * is an instruction. TIM5, 256 times slower, says how often TIM2 went round. Outside of RAM and flash this machine faults by
 * itself; it drops writes to the flash and to its mirror at 0, and those are made faults here.
 */
#include "port.h"

#include "mpu.h"
#include "nvic.h"

#define TIM2 0x40000000u
#define TIM5 0x40000C00u
#define CR1(timer) (*(volatile uint32_t *)((timer) + 0x00u))
#define EGR(timer) (*(volatile uint32_t *)((timer) + 0x14u))
#define CNT(timer) (*(volatile uint32_t *)((timer) + 0x24u))
#define PSC(timer) (*(volatile uint32_t *)((timer) + 0x28u))

#define RCC_AHB1ENR (*(volatile uint32_t *)0x40023830u)
#define RCC_APB2ENR (*(volatile uint32_t *)0x40023844u)
#define GPIOA_MODER (*(volatile uint32_t *)0x40020000u)
#define GPIOA_AFRH (*(volatile uint32_t *)0x40020024u)
#define USART1_SR (*(volatile uint32_t *)0x40011000u) // 0x20: byte received, 0x80: room to send
#define USART1_DR (*(volatile uint32_t *)0x40011004u)
#define USART1_BRR (*(volatile uint32_t *)0x40011008u)
#define USART1_CR1 (*(volatile uint32_t *)0x4001100Cu)
enum { USART1_IRQ = 37 };

static void start(uint32_t timer, uint32_t divider) {
    PSC(timer) = divider - 1;
    EGR(timer) = 1; // take the divider over now, count from 0
    CR1(timer) = 1;
}

void port_init(void) {
    mpu_region(0, 0x00000000, 28, MPU_READ_ONLY); // 256 MB
    mpu_enable(1);
    start(TIM2, 1);
    start(TIM5, 256);
}

uint64_t port_ticks(void) {
    uint32_t fine = CNT(TIM2);
    uint32_t coarse = CNT(TIM5);
    return port_widen(fine, coarse, 8);
}

uint64_t port_instructions(uint64_t ticks) {
    return ticks;
}

// USART1 on PA9 and PA10, from the 16 MHz that the chip starts with.
void port_uart_init(void) {
    RCC_AHB1ENR |= 1;
    RCC_APB2ENR |= 1u << 4;
    GPIOA_MODER = (GPIOA_MODER & ~(0xFu << 18)) | 0xAu << 18;
    GPIOA_AFRH = (GPIOA_AFRH & ~0xFF0u) | 0x770u;
    USART1_BRR = 139; // 16 MHz / 115200
    USART1_CR1 = 1u << 13 | 1u << 5 | 1u << 3 | 1u << 2; // on, interrupt, sender, receiver
    nvic_enable(USART1_IRQ);
}

// Reading the data after the state also forgets a byte that came too early for its predecessor.
int port_uart_get(void) {
    return USART1_SR & 0x28 ? (int)(USART1_DR & 0xFF) : -1;
}

void port_uart_put(uint8_t byte) {
    while (!(USART1_SR & 0x80)) {
    }
    USART1_DR = byte;
}

void port_uart_wait(void) {
    nvic_clear(USART1_IRQ);
    if (!(USART1_SR & 0x28)) {
        nvic_sleep();
    }
}

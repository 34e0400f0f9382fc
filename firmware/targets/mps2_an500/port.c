/* mps2-an500 under `-icount shift=10`: an instruction takes 1024 ns, a tick of the 25 MHz timers 40 ns, so 25.6 ticks are
 * an instruction and rounding recovers the exact count. TIMER0 alone would wrap after 168 M instructions; the dual timer,
 * 256 times slower, extends it to 43 G; then QEMU's goes astray, so every measurement begins anew.
 */
#include "port.h"

#include "cmsdk_uart.h"
#include "link.h"
#include "mpu.h"

#define UART 0x40004000u
enum { UART_IRQ = 0, CLOCK_HZ = 25000000 }; // its receiver's

#define TIMER0_CTRL (*(volatile uint32_t *)0x40000000u)
#define TIMER0_VALUE (*(volatile uint32_t *)0x40000004u)
#define TIMER0_RELOAD (*(volatile uint32_t *)0x40000008u)
#define DUAL1_LOAD (*(volatile uint32_t *)0x40002000u)
#define DUAL1_VALUE (*(volatile uint32_t *)0x40002004u)
#define DUAL1_CONTROL (*(volatile uint32_t *)0x40002008u)

// QEMU's board reads zeros and drops writes in the holes of its map, and lets code be written; here both are faults.
static void protect_memory(void) {
    mpu_region(0, 0x00000000, 22, MPU_READ_ONLY);
    mpu_region(1, 0x20000000, 22, MPU_READ_WRITE | MPU_NO_EXECUTE);
    mpu_region(2, 0x40000000, 20, MPU_READ_WRITE | MPU_NO_EXECUTE);
    mpu_enable(0);
}

void port_init(void) {
    protect_memory();
    TIMER0_RELOAD = 0xFFFFFFFFu;
    TIMER0_CTRL = 1;
    DUAL1_CONTROL = (1u << 7) | (1u << 6) | (2u << 2) | (1u << 1); // on, periodic, 1/256, 32 bit
    port_restart_ticks();
}

void port_restart_ticks(void) {
    TIMER0_VALUE = 0xFFFFFFFFu;
    DUAL1_LOAD = 0xFFFFFFFFu;
}

uint64_t port_ticks(void) {
    uint32_t fine = ~TIMER0_VALUE;
    uint32_t coarse = ~DUAL1_VALUE;
    return port_widen(fine, coarse, 8);
}

uint64_t port_instructions(uint64_t ticks) {
    return (ticks * 5 + 64) >> 7; // ticks * 40 / 1024, rounded
}

void port_uart_init(void) {
    cmsdk_uart_init(UART, CLOCK_HZ, UART_IRQ);
}

int port_uart_get(void) {
    return cmsdk_uart_get(UART);
}

void port_uart_put(uint8_t byte) {
    cmsdk_uart_put(UART, byte);
}

void port_uart_wait(void) {
    cmsdk_uart_wait(UART, UART_IRQ);
}

void port_describe(link_config_t *config) {
    config->unit = LINK_INSTRUCTIONS;
}

/* mps3-an547 under `-icount shift=10`: an instruction takes 1024 ns, a tick of the system counter, which runs at 32 MHz, 31.25 ns,
 * so 32.768 ticks are an instruction and rounding recovers the exact count. Everything runs in the Secure state, as after a reset:
 * peripherals are reached by their Secure addresses.
 */
#include "port.h"

#include "link.h"
#include "mpu_v8.h"
#include "nvic.h"

#define UART_DATA (*(volatile uint32_t *)0x59303000u)
#define UART_STATE (*(volatile uint32_t *)0x59303004u) // 1: sender full, 2: byte received
#define UART_CTRL (*(volatile uint32_t *)0x59303008u)
#define UART_INTERRUPTS (*(volatile uint32_t *)0x5930300Cu)
#define UART_DIVIDER (*(volatile uint32_t *)0x59303010u)
enum { UART_IRQ = 43 }; // receiver and sender together

#define COUNTER_CONTROL (*(volatile uint32_t *)0x58100000u)
#define COUNTER_LOW (*(volatile uint32_t *)0x58100008u)
#define COUNTER_HIGH (*(volatile uint32_t *)0x5810000Cu)

// Holes of the map, and writes to code.
static void protect_memory(void) {
    mpu_region(0, 0x00000000, 0x0007FFFF, MPU_READ_ONLY);
    mpu_region(1, 0x01000000, 0x011FFFFF, MPU_READ_ONLY);
    mpu_region(2, 0x20000000, 0x2007FFFF, MPU_READ_WRITE | MPU_NO_EXECUTE);
    mpu_region(3, 0x21000000, 0x213FFFFF, MPU_READ_WRITE | MPU_NO_EXECUTE);
    mpu_region(4, 0x40000000, 0x5FFFFFFF, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_DEVICE);
    mpu_enable();
}

void port_init(void) {
    protect_memory();
    COUNTER_CONTROL = 1;
}

// 64 bits in two halves: where the upper one changed between its two reads, the lower one's top bit says which goes with it.
uint64_t port_ticks(void) {
    uint32_t before = COUNTER_HIGH;
    uint32_t low = COUNTER_LOW;
    uint32_t after = COUNTER_HIGH;
    return (uint64_t)(after - ((after - before) & low >> 31)) << 32 | low;
}

uint64_t port_instructions(uint64_t ticks) {
    return (ticks * 125 + 2048) >> 12; // ticks * 31.25 / 1024, rounded
}

void port_uart_init(void) {
    UART_DIVIDER = 278; // 32 MHz / 115200
    UART_CTRL = 1 | 2 | 8; // sender, receiver, its interrupt
    nvic_enable(UART_IRQ);
}

int port_uart_get(void) {
    return UART_STATE & 2 ? (int)(UART_DATA & 0xFF) : -1;
}

void port_uart_put(uint8_t byte) {
    while (UART_STATE & 1) {
    }
    UART_DATA = byte;
}

void port_uart_wait(void) {
    UART_INTERRUPTS = 2;
    nvic_clear(UART_IRQ);
    if (!(UART_STATE & 2)) {
        nvic_sleep();
    }
}

void port_describe(link_config_t *config) {
    config->unit = LINK_INSTRUCTIONS;
}

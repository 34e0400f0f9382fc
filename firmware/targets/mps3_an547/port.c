/* mps3-an547 under `-icount shift=10`: an instruction takes 1024 ns, a tick of the system counter, which runs at 32 MHz, 31.25 ns,
 * so 32.768 ticks are an instruction and rounding recovers the exact count. Everything runs in the Secure state, as after a reset:
 * peripherals are reached by their Secure addresses.
 */
#include "port.h"

#include "cmsdk_uart.h"
#include "link.h"
#include "mpu_v8.h"

#define UART 0x59303000u
enum { UART_IRQ = 43, CLOCK_HZ = 32000000 }; // receiver and sender together

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

void port_restart_ticks(void) { // 64 bits do not end
}

uint64_t port_instructions(uint64_t ticks) {
    return (ticks * 125 + 2048) >> 12; // ticks * 31.25 / 1024, rounded
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

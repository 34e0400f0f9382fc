// A board's start, then a word behind its RAM. After the reset: what the note of the fault says.
#include "link.h"
#include "port.h"

int main(void);
void touch(volatile uint32_t *word);

static void put(const char *text) {
    while (*text) {
        port_uart_put((uint8_t)*text++);
    }
}

static void put_hex(uint32_t value) {
    put(" 0x");
    for (int shift = 28; shift >= 0; shift -= 4) {
        port_uart_put((uint8_t)"0123456789abcdef"[value >> shift & 15]);
    }
}

__attribute__((noinline)) void touch(volatile uint32_t *word) {
    *word = 1;
    __asm volatile("dsb" ::: "memory");
}

int main(void) {
    link_config_t config = {0};
    port_uart_init();
    port_describe(&config);
    if (config.start.reset != LINK_RESET_FAULT) {
        put("start 0\n");
        touch((volatile uint32_t *)0x20030000u);
    }
    put("fault");
    put_hex(config.start.pc);
    put_hex(config.start.cfsr);
    put("\n");
    for (;;) {
        port_uart_wait();
    }
}

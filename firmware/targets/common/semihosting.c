#include "semihosting.h"

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_SEEK = 0x0A,
    SYS_EXIT_EXTENDED = 0x20,
    APPLICATION_EXIT = 0x20026
};

static int call(int operation, const void *argument) {
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

int semi_open(const char *name, uint32_t length, int mode) {
    uintptr_t block[3] = {(uintptr_t)name, (uintptr_t)mode, length};
    return call(SYS_OPEN, block);
}

void semi_close(int file) {
    uintptr_t block[1] = {(uintptr_t)file};
    call(SYS_CLOSE, block);
}

// SYS_READ and SYS_WRITE return how many bytes were NOT moved.
static int move(int operation, int file, uint32_t offset, const void *data, size_t size) {
    uintptr_t where[2] = {(uintptr_t)file, offset};
    uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)data, size};
    if (size == 0) {
        return 0;
    }
    if (call(SYS_SEEK, where) != 0) {
        return -1;
    }
    return call(operation, block) == 0 ? 0 : -1;
}

int semi_read_at(int file, uint32_t offset, void *data, size_t size) {
    return move(SYS_READ, file, offset, data, size);
}

int semi_write_at(int file, uint32_t offset, const void *data, size_t size) {
    return move(SYS_WRITE, file, offset, data, size);
}

void semi_puts(const char *text) {
    call(SYS_WRITE0, text);
}

void semi_hex(const char *name, uint32_t value) {
    char text[11] = "0x";
    for (int i = 0; i < 8; i++) {
        text[2 + i] = "0123456789abcdef"[(value >> (28 - 4 * i)) & 15];
    }
    text[10] = 0;
    semi_puts(" ");
    semi_puts(name);
    semi_puts("=");
    semi_puts(text);
}

void semi_decimal(const char *name, uint64_t value) {
    char text[21];
    int at = 20;
    text[at] = 0;
    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    semi_puts(" ");
    semi_puts(name);
    semi_puts("=");
    semi_puts(text + at);
}

void semi_exit(int status) {
    uintptr_t block[2] = {APPLICATION_EXIT, (uintptr_t)status};
    for (;;) {
        call(SYS_EXIT_EXTENDED, block);
    }
}

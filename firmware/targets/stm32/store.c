/* Two places for loaded models at the end of the flash. They can be written only while something is written: a region of the MPU
 * says so, and keeps the cache away, for exactly that time.
 */
#include "mpu.h"
#include "scb.h"
#include "stm32.h"

enum { STORE_REGION = 7, CACHE_LINE = 32, BFHFNMIGN = 1 << 8 };

static link_store_t store;

static uint32_t address_of(int place, uint32_t offset) {
    return (uint32_t)(uintptr_t)store.place[place] + offset;
}

// Both places, one behind the other, are a power of two, and lie at a multiple of it.
static void open_places(void) {
    uint32_t log2 = 31u - (uint32_t)__builtin_clz(2 * store.size);
    mpu_region(STORE_REGION, address_of(0, 0), log2, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_DEVICE);
    mpu_settle();
}

// The cache forgets what these bytes were, before it may hold them again.
static void close_places(uint32_t first, uint32_t size) {
    for (uint32_t line = first; line < first + size; line += CACHE_LINE) {
        SCB_DCIMVAC = line;
    }
    mpu_settle();
    mpu_forget(STORE_REGION);
    mpu_settle();
}

// From the end on, so that the record goes first.
static int erase(void *ctx, int place) {
    int err = 0;
    (void)ctx;
    open_places();
    for (uint32_t left = store.size; left > 0 && err == 0; left -= stm32_flash_sector) {
        err = stm32_flash_erase(address_of(place, left - stm32_flash_sector));
    }
    close_places(address_of(place, 0), store.size);
    return err;
}

static int write(void *ctx, int place, uint32_t offset, const uint8_t *data, uint32_t size) {
    int err = 0;
    (void)ctx;
    open_places();
    for (uint32_t at = 0; at < size && err == 0; at += LINK_STORE_UNIT) {
        err = stm32_flash_write(address_of(place, offset + at), data + at);
    }
    close_places(address_of(place, offset), size);
    return err;
}

// With faults of the bus ignored (DDI 0403E, CCR.BFHFNMIGN at priority -1). A read of any byte checks all of its unit.
static int readable(void *ctx, int place, uint32_t offset, uint32_t size) {
    (void)ctx;
    (void)stm32_flash_damaged(); // of before
    SCB_CCR |= BFHFNMIGN;
    __asm volatile("dsb\n cpsid f\n isb" ::: "memory");
    for (uint32_t at = 0; at < size; at += LINK_STORE_UNIT) {
        (void)REGISTER(address_of(place, offset + at));
    }
    __asm volatile("dsb\n cpsie f\n isb" ::: "memory");
    SCB_CCR &= ~(uint32_t)BFHFNMIGN;
    return !stm32_flash_damaged();
}

const link_store_t *stm32_store(const link_store_t *places) {
    store = *places;
    store.erase = erase;
    store.write = write;
    store.readable = readable;
    return &store;
}

/* STM32F746G Discovery at 216 MHz, from its 25 MHz oscillator, or, where none comes, from the chip's own of 16 MHz, so that the same
 * image starts on other boards with this chip. Sections are those of RM0385 revision 8.
 */
#include "mpu.h"
#include "port.h"
#include "rcc_csr.h"
#include "stm32.h"

// Chapter 4, power
#define PWR_CR1 0x40007000u
#define PWR_CSR1 0x40007004u
enum { VOS = 3 << 14, VOS1 = 3 << 14, ODEN = 1 << 16, ODSWEN = 1 << 17, ODRDY = 1 << 16, ODSWRDY = 1 << 17 };

// 3.7.1, flash
#define FLASH_ACR 0x40023C00u
enum { PRFTEN = 1 << 8, WAIT_STATES = 7 };

// Chapter 5, clocks
#define RCC_CR 0x40023800u
#define RCC_PLLCFGR 0x40023804u
#define RCC_CFGR 0x40023808u
#define RCC_AHB1ENR 0x40023830u
#define RCC_APB1ENR 0x40023840u
#define RCC_APB2ENR 0x40023844u
enum { HSEON = 1 << 16, HSERDY = 1 << 17, PLLON = 1 << 24, PLLRDY = 1 << 25 };
enum { HSE_READS = 100000, CORE_HZ = 216000000 }; // some 50 ms; an oscillator takes a few

#define GPIOA_MODER 0x40020000u
#define GPIOA_AFRH 0x40020024u
#define GPIOB_MODER 0x40020400u
#define GPIOB_AFRL 0x40020420u

// USART1 and DMA2 stream 2, whose channel 4 is what USART1 receives (8.3.3).
const stm32_serial_t stm32_serial = {.usart = 0x40011000u, .stream = 0x40026440u, .stream_bits = 4u << 25};

// Everything that a program may touch; the rest, address 0 included, is a fault. DTCM is the first 64 KB of RAM; its speed does not
// depend on what is said of caches.
static void protect_memory(void) {
    mpu_region(0, 0x08000000, 20, MPU_READ_ONLY | MPU_WRITE_THROUGH);                // flash
    mpu_region(1, 0x20000000, 18, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_WRITE_BACK); // DTCM, SRAM1 but for its end
    mpu_region(2, 0x20040000, 16, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_WRITE_BACK); // the end of SRAM1
    mpu_region(3, 0x2004C000, 14, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_UNCACHED);   // SRAM2, for DMA
    mpu_region(4, 0x40000000, 29, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_DEVICE);
    mpu_enable(0);
}

// 1 MHz for the PLL, from outside if possible; times 432, by 2.
static void configure_pll(void) {
    REGISTER(RCC_CR) |= HSEON;
    int outside = wait_bounded(RCC_CR, HSERDY, HSE_READS);
    uint32_t source = outside ? 1u << 22 | 25u : 16u;            // PLLSRC, PLLM
    REGISTER(RCC_PLLCFGR) = 2u << 28 | 9u << 24 | 432u << 6 | source; // reserved bits as after reset, PLLQ, PLLN
}

// 4.1.4: over-drive, which 216 MHz needs, is entered with the PLL running but not in use.
static void start_pll(void) {
    modify(PWR_CR1, VOS, VOS1);
    REGISTER(RCC_CR) |= PLLON;
    REGISTER(PWR_CR1) |= ODEN;
    wait_for(PWR_CSR1, ODRDY, ODRDY);
    REGISTER(PWR_CR1) |= ODSWEN;
    wait_for(PWR_CSR1, ODSWRDY, ODSWRDY);
    wait_for(RCC_CR, PLLRDY, PLLRDY);
}

// AHB as fast as the core, APB1 a quarter, APB2 half.
static void switch_over(void) {
    REGISTER(FLASH_ACR) = PRFTEN | WAIT_STATES; // table 5, at 2.7 V and more
    wait_for(FLASH_ACR, 0xF, WAIT_STATES);
    modify(RCC_CFGR, 7u << 13 | 7u << 10 | 0xFu << 4, 4u << 13 | 5u << 10);
    modify(RCC_CFGR, 3, 2);
    wait_for(RCC_CFGR, 3u << 2, 2u << 2);
}

void port_init(void) {
    REGISTER(RCC_APB1ENR) |= 1u << 28 | 1; // PWR, TIM2
    (void)REGISTER(RCC_APB1ENR);           // 5.2.13: two cycles pass before a clock is there
    configure_pll();
    start_pll();
    switch_over();
    stm32_clocks.core = CORE_HZ;
    stm32_clocks.usart = CORE_HZ / 2;
    protect_memory();
    stm32_enable_caches();
    stm32_start_counters();
}

// USART1 on PA9 and PB7 (AF7), which the ST-Link listens to.
void stm32_serial_connect(void) {
    REGISTER(RCC_AHB1ENR) |= 1u << 22 | 3; // DMA2, GPIOA, GPIOB
    REGISTER(RCC_APB2ENR) |= 1u << 4;
    (void)REGISTER(RCC_APB2ENR);
    modify(GPIOA_AFRH, 0xFu << 4, 7u << 4);
    modify(GPIOA_MODER, 3u << 18, 2u << 18);
    modify(GPIOB_AFRL, 0xFu << 28, 7u << 28);
    modify(GPIOB_MODER, 3u << 14, 2u << 14);
}

uint32_t stm32_reset_reason(void) {
    return rcc_csr_reset_reason();
}

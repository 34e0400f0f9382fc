/* STM32H743 on a Nucleo-H743ZI or ZI2: 480 MHz on chips of revision V, 400 MHz on older ones, which stand no more.
 *
 * The PLL's reference is the 8 MHz that the ST-Link feeds to OSC_IN, or, where none comes, the chip's own 64 MHz oscillator, so
 * that the same image starts on other boards with this chip. Sections are those of RM0433 revision 8.
 */
#include "link_session.h"
#include "mpu.h"
#include "port.h"
#include "stm32.h"

#define DBGMCU_IDC 0x5C001000u // 60.5.8: revision in the upper half
enum { REVISION_V = 0x2003 };

// Chapter 6, power
#define PWR_CSR1 0x58024804u
#define PWR_CR3 0x5802480Cu
#define PWR_D3CR 0x58024818u
#define SYSCFG_PWRCR 0x5800042Cu
enum { ACTVOSRDY = 1 << 13, LDOEN = 1 << 1, SUPPLY = 7, VOS = 3 << 14, VOS1 = 3 << 14, VOSRDY = 1 << 13, ODEN = 1 };

// 4.9.1, flash
#define FLASH_ACR 0x52002000u

// Chapter 8, clocks
#define RCC_CR 0x58024400u
#define RCC_CFGR 0x58024410u
#define RCC_D1CFGR 0x58024418u
#define RCC_D2CFGR 0x5802441Cu
#define RCC_D3CFGR 0x58024420u
#define RCC_PLLCKSELR 0x58024428u
#define RCC_PLLCFGR 0x5802442Cu
#define RCC_PLL1DIVR 0x58024430u
#define RCC_RSR 0x580244D0u
#define RCC_AHB1ENR 0x580244D8u
#define RCC_AHB2ENR 0x580244DCu
#define RCC_AHB4ENR 0x580244E0u
#define RCC_APB1LENR 0x580244E8u
#define RCC_APB4ENR 0x580244F4u
enum { HSEON = 1 << 16, HSERDY = 1 << 17, HSEBYP = 1 << 18, PLL1ON = 1 << 24, PLL1RDY = 1 << 25 };
enum { HSE_READS = 100000 }; // some 10 ms; a clock from outside is there at once

#define GPIOD_MODER 0x58020C00u
#define GPIOD_AFRH 0x58020C24u
#define DMAMUX1_C0CR 0x40020800u
enum { USART3_RX_REQUEST = 45 };

// DMA1 stream 0. TRBUFF (bit 20): without it a stream to a USART can lock up (errata sheet ES0392, DMA).
const stm32_serial_t stm32_serial = {.usart = 0x40004800u, .stream = 0x40020010u, .stream_bits = 1u << 20};

// Everything that a program may touch; the rest, address 0 included, is a fault.
static void protect_memory(void) {
    mpu_region(0, 0x08000000, 21, MPU_READ_ONLY | MPU_WRITE_THROUGH);                 // flash
    mpu_region(1, 0x20000000, 17, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_UNCACHED);    // DTCM, as fast as a cache
    mpu_region(2, 0x24000000, 19, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_WRITE_BACK);  // AXI SRAM
    mpu_region(3, 0x30000000, 18, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_WRITE_BACK);  // SRAM1, SRAM2
    mpu_region(4, 0x30040000, 15, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_UNCACHED);    // SRAM3, for DMA
    mpu_region(5, 0x40000000, 29, MPU_READ_WRITE | MPU_NO_EXECUTE | MPU_DEVICE);
    mpu_enable(0);
}

// 6.6.2: the supply is chosen once, then VOS1; VOS0 for 480 MHz.
static void raise_voltage(int fast) {
    modify(PWR_CR3, SUPPLY, LDOEN);
    wait_for(PWR_CSR1, ACTVOSRDY, ACTVOSRDY);
    modify(PWR_D3CR, VOS, VOS1);
    wait_for(PWR_D3CR, VOSRDY, VOSRDY);
    if (fast) {
        REGISTER(RCC_APB4ENR) |= 1u << 1; // SYSCFG
        (void)REGISTER(RCC_APB4ENR);
        REGISTER(SYSCFG_PWRCR) |= ODEN;
        wait_for(PWR_D3CR, VOSRDY, VOSRDY);
    }
}

// 2 MHz for the PLL, from outside if possible.
static void start_oscillator(void) {
    REGISTER(RCC_CR) |= HSEBYP;
    REGISTER(RCC_CR) |= HSEON;
    int outside = wait_bounded(RCC_CR, HSERDY, HSE_READS);
    REGISTER(RCC_PLLCKSELR) = outside ? 4u << 4 | 2u : 32u << 4; // DIVM1, PLLSRC
}

// 8.5.5
static void start_pll(uint32_t multiplier) {
    REGISTER(RCC_PLLCFGR) = 1u << 16 | 1u << 2;                   // DIVP1EN; wide VCO, reference of 2 to 4 MHz
    REGISTER(RCC_PLL1DIVR) = 1u << 24 | 1u << 16 | 1u << 9 | (multiplier - 1); // everything by 2
    REGISTER(RCC_CR) |= PLL1ON;
    wait_for(RCC_CR, PLL1RDY, PLL1RDY);
}

// Buses: AXI and AHB half of the core, peripherals a quarter.
static void switch_over(uint32_t wait_states) {
    REGISTER(RCC_D1CFGR) = 4u << 4 | 8u;
    REGISTER(RCC_D2CFGR) = 4u << 8 | 4u << 4;
    REGISTER(RCC_D3CFGR) = 4u << 4;
    REGISTER(FLASH_ACR) = 2u << 4 | wait_states; // table 17: WRHIGHFREQ, LATENCY
    wait_for(FLASH_ACR, 0x3F, 2u << 4 | wait_states);
    modify(RCC_CFGR, 7, 3);
    wait_for(RCC_CFGR, 7u << 3, 3u << 3);
}

void port_init(void) {
    int fast = REGISTER(DBGMCU_IDC) >> 16 >= REVISION_V;
    raise_voltage(fast);
    start_oscillator();
    start_pll(fast ? 480 : 400);
    switch_over(fast ? 4 : 2);
    stm32_clocks.core = fast ? 480000000 : 400000000;
    stm32_clocks.usart = stm32_clocks.core / 4;
    REGISTER(RCC_AHB2ENR) |= 7u << 29; // SRAM1 to 3
    REGISTER(RCC_APB1LENR) |= 1;       // TIM2
    (void)REGISTER(RCC_APB1LENR);      // 8.5.12: two cycles pass before a clock is there
    protect_memory();
    stm32_enable_caches();
    stm32_start_counters();
}

// USART3 on PD8 and PD9 (AF7), which the ST-Link listens to; DMAMUX1 channel 0 is DMA1 stream 0.
void stm32_serial_connect(void) {
    REGISTER(RCC_AHB4ENR) |= 1u << 3;
    REGISTER(RCC_AHB1ENR) |= 1;
    REGISTER(RCC_APB1LENR) |= 1u << 18;
    (void)REGISTER(RCC_APB1LENR);
    modify(GPIOD_AFRH, 0xFF, 0x77);
    modify(GPIOD_MODER, 0xFu << 16, 0xAu << 16);
    REGISTER(DMAMUX1_C0CR) = USART3_RX_REQUEST;
}

// 8.7.39. Of several flags the rarest says most: a power-on sets nearly all.
uint32_t stm32_reset_reason(void) {
    uint32_t flags = REGISTER(RCC_RSR);
    REGISTER(RCC_RSR) |= 1u << 16;
    return (flags & 1u << 23) ? LINK_RESET_POWER
        : (flags & (3u << 26 | 3u << 28)) ? LINK_RESET_WATCHDOG
        : (flags & 1u << 21) ? LINK_RESET_BROWN_OUT
        : (flags & 1u << 24) ? LINK_RESET_SOFTWARE
        : (flags & 1u << 22) ? LINK_RESET_PIN
                           : LINK_RESET_UNKNOWN;
}

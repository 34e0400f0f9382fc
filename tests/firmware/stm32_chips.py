"""Clocks, power and flash of the chips, as RM0433, RM0385 and RM0090 have them. See stm32_board.py."""

from typing import ClassVar

from unicorn.arm_const import UC_CPU_ARM_CORTEX_M4

from tests.firmware.stm32_board import DWT, PATIENCE, SCS, TIM2, Board, core_registers, serial_registers
from tests.firmware.stm32_flash import Cells, FlashF7, FlashFixed, FlashH7, Refused

MHZ = 1_000_000


class Stm32H743(Board):
    """Nucleo-H743ZI2: the ST-Link feeds 8 MHz to OSC_IN."""

    name = "stm32h743"
    memories: ClassVar = {
        0x20000000: 128 << 10, 0x24000000: 512 << 10, 0x30000000: 256 << 10, 0x30040000: 32 << 10,
    }  # fmt: skip
    peripherals: ClassVar = (
        (0x40000000, 0x1000), (0x40004000, 0x1000), (0x40020000, 0x1000), (0x52002000, 0x1000), (0x58000000, 0x1000),
        (0x58020000, 0x1000), (0x58024000, 0x1000), (0x5C001000, 0x1000),
    )  # fmt: skip
    dma_reaches: ClassVar = ((0x24000000, 512 << 10), (0x30000000, 288 << 10))
    flash_size, usart, stream, cache_sets, slow_clock = 2 << 20, 0x40004800, 0x40020010, 128, 64 * MHZ
    controller = FlashH7

    PWR_CSR1, PWR_CR3, PWR_D3CR, SYSCFG_PWRCR = 0x58024804, 0x5802480C, 0x58024818, 0x5800042C
    ACR, CR, CFGR, RSR = 0x52002000, 0x58024400, 0x58024410, 0x580244D0
    D1CFGR, D2CFGR, D3CFGR, PLLCKSELR, PLLCFGR, PLL1DIVR = (0x58024400 + at for at in (0x18, 0x1C, 0x20, 0x28, 0x2C, 0x30))
    AHB1ENR, AHB2ENR, AHB4ENR, APB1LENR, APB4ENR = (0x58024400 + at for at in (0xD8, 0xDC, 0xE0, 0xE8, 0xF4))
    GPIOD, DMAMUX, IDC = 0x58020C00, 0x40020800, 0x5C001000
    LIMITS: ClassVar = {0: 480 * MHZ, 1: 400 * MHZ, 2: 300 * MHZ, 3: 200 * MHZ}  # core, by voltage scale (DS12110, table 22)
    # Table 17, VOS1 and VOS0: highest AXI clock by (LATENCY, WRHIGHFREQ)
    FLASH_LIMITS: ClassVar = {(0, 0): 70, (1, 1): 140, (2, 1): 185, (2, 2): 210, (3, 2): 225, (4, 2): 240}

    plain: ClassVar = {
        **core_registers(cache_sets), **serial_registers(usart, stream),
        PWR_CSR1: 0x4000, PWR_CR3: 6, PWR_D3CR: 0x4000, SYSCFG_PWRCR: 0, ACR: 0x37, CR: 0x25, CFGR: 0, RSR: 0,
        D1CFGR: 0, D2CFGR: 0, D3CFGR: 0, PLLCKSELR: 0x02020200, PLLCFGR: 0x01FF0000, PLL1DIVR: 0x01010280,
        AHB1ENR: 0, AHB2ENR: 0, AHB4ENR: 0, APB1LENR: 0, APB4ENR: 0x10000,
        GPIOD: 0xFFFFFFFF, GPIOD + 0x24: 0, DMAMUX: 0, IDC: 0x20036450,
    }  # fmt: skip

    def __init__(self, image: bytes, crystal: bool = True, cells: Cells | None = None, revision: int = 0x2003) -> None:
        self.revision = revision
        super().__init__(image, crystal, cells)
        self.options["revision"] = revision

    def power_on(self, cold: bool) -> None:
        self.registers[self.IDC] = self.revision << 16 | 0x450
        self.registers[self.RSR] = 0x00FE0000 if cold else 0x01400000

    def gates(self):
        return (
            (self.APB4ENR, 1, self.SYSCFG_PWRCR, self.SYSCFG_PWRCR), (self.APB1LENR, 0, TIM2, TIM2 + 0x28),
            (self.APB1LENR, 18, self.usart, self.usart + 0x28), (self.AHB4ENR, 3, self.GPIOD, self.GPIOD + 0x24),
            (self.AHB1ENR, 0, self.stream, self.DMAMUX),
        )  # fmt: skip

    def rules(self):
        clocks = (self.D1CFGR, self.D2CFGR, self.D3CFGR, self.ACR)
        return {
            **super().rules(),
            **dict.fromkeys(clocks, lambda *_: self.check()),
            **dict.fromkeys((self.PLLCKSELR, self.PLLCFGR, self.PLL1DIVR), self._pll_changed),
            self.PWR_CR3: self._supply, self.PWR_D3CR: self._voltage, self.SYSCFG_PWRCR: self._overdrive,
            self.CR: self._oscillators, self.CFGR: self._switched, self.RSR: self._flags_cleared,
        }  # fmt: skip

    def _supply(self, _: int, value: int) -> None:
        if value & 7 != 2:
            raise Refused(f"PWR: CR3 {value:#x} does not settle on the LDO that feeds this board")
        self.later(self.PWR_CSR1, 1 << 13)

    def _voltage(self, before: int, value: int) -> None:
        if not self.registers[self.PWR_CSR1] >> 13 & 1:
            raise Refused("PWR: VOS is written before ACTVOSRDY")
        self.later(self.PWR_D3CR, 1 << 13)

    def _overdrive(self, before: int, value: int) -> None:
        if self.registers[self.PWR_D3CR] >> 13 & 7 != 7:
            raise Refused("PWR: VOS0 is not entered from VOS1")
        if self.revision < 0x2003:
            raise Refused("PWR: this revision has no VOS0")
        self.later(self.PWR_D3CR, 1 << 13)

    def scale(self) -> int:
        """Voltage scale that holds, 3 while another one is on its way."""
        settled = self.registers[self.PWR_D3CR] >> 13 & 1
        vos = self.registers[self.PWR_D3CR] >> 14 & 3
        return 3 if not settled else 0 if vos == 3 and self.registers[self.SYSCFG_PWRCR] & 1 else {3: 1, 2: 2}.get(vos, 3)

    def _oscillators(self, before: int, value: int) -> None:
        if value & ~before & 1 << 16 and self.crystal:
            self.later(self.CR, 1 << 17)
        if (value ^ before) & 1 << 18 and before & 1 << 16:
            raise Refused("RCC: HSEBYP changes while HSE runs")
        if value & ~before & 1 << 24:
            self.check_pll()
            self.later(self.CR, 1 << 25)

    def _pll_changed(self, *_: int) -> None:
        if self.registers[self.CR] & 1 << 24:
            raise Refused("RCC: the PLL is changed while it runs")

    def pll(self) -> tuple[float, float, float]:
        """Reference, VCO and output in Hz."""
        source, divided = self.registers[self.PLLCKSELR] & 3, self.registers[self.PLLCKSELR] >> 4 & 63
        if source == 2 and not self.registers[self.CR] >> 17 & 1:
            raise Refused("RCC: the PLL's source, HSE, is not ready")
        if source not in (0, 2) or not divided:
            raise Refused("RCC: the PLL has no reference")
        reference = (8 if source == 2 else 64) * MHZ / divided
        dividers = self.registers[self.PLL1DIVR]
        vco = reference * ((dividers & 511) + 1)
        return reference, vco, vco / ((dividers >> 9 & 127) + 1)

    def check_pll(self) -> None:
        reference, vco, _ = self.pll()
        settings = self.registers[self.PLLCFGR]
        low = MHZ << (settings >> 2 & 3)
        if not low <= reference <= 2 * low:
            raise Refused(f"RCC: PLL1RGE is not for a reference of {reference:g} Hz")
        highest = (960 if self.revision >= 0x2003 else 836) * MHZ
        if settings & 2 or not 192 * MHZ <= vco <= highest:
            raise Refused(f"RCC: the VCO cannot run at {vco:g} Hz")
        if not settings & 1 << 16:
            raise Refused("RCC: the PLL's output is off")

    def _switched(self, before: int, value: int) -> None:
        if value & 7 == 3:
            if not self.registers[self.CR] >> 25 & 1:
                raise Refused("RCC: switched to the PLL before it is ready")
        elif value & 7:
            raise Refused("RCC: switched to a clock that is not modelled")
        self.check()
        self.waiting.setdefault(self.CFGR, []).append(((value & 7) << 3, 5))
        self.core = round(self.clocks()[0])

    def clocks(self) -> tuple[float, float, float, float]:
        """Core, AXI, and the two peripheral buses of D2, in Hz."""
        system = self.pll()[2] if self.registers[self.CFGR] & 7 == 3 else 64 * MHZ
        d1, d2 = self.registers[self.D1CFGR], self.registers[self.D2CFGR]
        if d1 >> 8:
            raise Refused("RCC: D1CPRE is not modelled")
        axi = system / ({8: 2, 9: 4}[d1 & 15] if d1 & 8 else 1)
        return system, axi, axi / self._bus(d2 >> 4), axi / self._bus(d2 >> 8)

    @staticmethod
    def _bus(field: int) -> int:
        return 2 << (field & 3) if field & 4 else 1

    def check(self) -> None:
        """Nothing runs faster than it stands."""
        core, axi, *buses = self.clocks()
        buses += [axi / self._bus(self.registers[at] >> 4) for at in (self.D1CFGR, self.D3CFGR)]
        scale = self.scale()
        most = self.LIMITS[scale]
        if core > most or axi > most / 2 or max(buses) > most / 4:
            raise Refused(f"RCC: {core:g}, {axi:g}, {max(buses):g} Hz are too fast for VOS{scale}")
        setting = (self.registers[self.ACR] & 15, self.registers[self.ACR] >> 4 & 3)
        enough = self.FLASH_LIMITS.get(setting, 64 if setting == (7, 3) else 0) * MHZ
        if axi > enough:
            raise Refused(f"FLASH: {setting[0]} wait states and WRHIGHFREQ {setting[1]} are not for {axi:g} Hz")

    def timer_clock(self) -> int:
        _, axi, bus, _ = self.clocks()
        return round(min(axi, 2 * bus))

    def usart_clock(self) -> int:
        return round(self.clocks()[2])

    def pins_connected(self) -> bool:
        return self.registers[self.GPIOD] >> 16 & 15 == 0xA and self.registers[self.GPIOD + 0x24] & 0xFF == 0x77

    def requests_usart(self, settings: int) -> bool:
        needed = self.registers[self.AHB2ENR] >> 31 & 1 and settings & 1 << 20
        return bool(needed and self.registers[self.DMAMUX] & 127 == 45)

    def _flags_cleared(self, before: int, value: int) -> None:
        self.registers[self.RSR] = 0 if value & 1 << 16 else before


class Stm32F746(Board):
    """STM32F746G Discovery: a 25 MHz oscillator."""

    name = "stm32f746"
    memories: ClassVar = {0x20000000: 320 << 10}
    peripherals: ClassVar = (
        (0x40000000, 0x1000), (0x40007000, 0x1000), (0x40011000, 0x1000), (0x40020000, 0x1000), (0x40023000, 0x1000),
        (0x40026000, 0x1000),
    )  # fmt: skip
    dma_reaches: ClassVar = ((0x20000000, 320 << 10),)
    flash_size, usart, stream, cache_sets, slow_clock = 1 << 20, 0x40011000, 0x40026440, 32, 16 * MHZ
    controller = FlashF7

    PWR_CR1, PWR_CSR1, ACR = 0x40007000, 0x40007004, 0x40023C00
    CR, PLLCFGR, CFGR, AHB1ENR, APB1ENR, APB2ENR, CSR = (0x40023800 + at for at in (0, 4, 8, 0x30, 0x40, 0x44, 0x74))
    GPIOA, GPIOB = 0x40020000, 0x40020400

    plain: ClassVar = {
        **core_registers(cache_sets), **serial_registers(usart, stream),
        PWR_CR1: 0xC000, PWR_CSR1: 0, ACR: 0, CR: 0x83, PLLCFGR: 0x24003010, CFGR: 0, CSR: 0, AHB1ENR: 0x00100000, APB1ENR: 0,
        APB2ENR: 0, GPIOA: 0xA8000000, GPIOA + 0x24: 0, GPIOB: 0x280, GPIOB + 0x20: 0,
    }  # fmt: skip

    def power_on(self, cold: bool) -> None:
        self.registers[self.CSR] = 0x0E000000 if cold else 0x14000000

    def gates(self):
        return (
            (self.APB1ENR, 0, TIM2, TIM2 + 0x28), (self.APB1ENR, 28, self.PWR_CR1, self.PWR_CSR1),
            (self.APB2ENR, 4, self.usart, self.usart + 0x28), (self.AHB1ENR, 0, self.GPIOA, self.GPIOA + 0x24),
            (self.AHB1ENR, 1, self.GPIOB, self.GPIOB + 0x24), (self.AHB1ENR, 22, self.stream, self.stream + 0xC),
        )  # fmt: skip

    def rules(self):
        return {
            **super().rules(),
            self.ACR: lambda *_: self.check(), self.PWR_CR1: self._power, self.CR: self._oscillators,
            self.PLLCFGR: self._pll_changed, self.CFGR: self._switched, self.CSR: self._flags_cleared,
        }  # fmt: skip

    def _power(self, before: int, value: int) -> None:
        running = self.registers[self.CR] >> 24 & 1
        if (value ^ before) & 3 << 14 and running:
            raise Refused("PWR: VOS changes while the PLL runs")
        if value & ~before & 1 << 16:
            if not running:
                raise Refused("PWR: over-drive is entered without the PLL")
            self.later(self.PWR_CSR1, 1 << 16)
        if value & ~before & 1 << 17:
            if not self.registers[self.PWR_CSR1] >> 16 & 1:
                raise Refused("PWR: switched to over-drive before ODRDY")
            self.later(self.PWR_CSR1, 1 << 17)

    def _oscillators(self, before: int, value: int) -> None:
        if value & ~before & 1 << 16 and self.crystal:
            self.later(self.CR, 1 << 17)
        if value & ~before & 1 << 24:
            self.check_pll()
            self.later(self.CR, 1 << 25, 12)

    def _pll_changed(self, _: int, value: int) -> None:
        if self.registers[self.CR] & 1 << 24:
            raise Refused("RCC: the PLL is changed while it runs")
        if value >> 28 != 2:
            raise Refused("RCC: reserved bits of PLLCFGR change")

    def pll(self) -> tuple[float, float, float]:
        """Reference, VCO and output in Hz."""
        value = self.registers[self.PLLCFGR]
        if value >> 22 & 1 and not self.registers[self.CR] >> 17 & 1:
            raise Refused("RCC: the PLL's source, HSE, is not ready")
        reference = (25 if value >> 22 & 1 else 16) * MHZ / (value & 63)
        vco = reference * (value >> 6 & 511)
        return reference, vco, vco / (2 * (value >> 16 & 3) + 2)

    def check_pll(self) -> None:
        reference, vco, _ = self.pll()
        if not MHZ <= reference <= 2 * MHZ or not 100 * MHZ <= vco <= 432 * MHZ:
            raise Refused(f"RCC: the PLL cannot make {vco:g} Hz from {reference:g}")

    def _switched(self, before: int, value: int) -> None:
        if value & 3 == 2 and not self.registers[self.CR] >> 25 & 1:
            raise Refused("RCC: switched to the PLL before it is ready")
        if value & 3 not in (0, 2):
            raise Refused("RCC: switched to a clock that is not modelled")
        self.check()
        self.registers[self.CFGR] = value & ~0xC | before & 0xC
        if value & 3 != before >> 2 & 3:
            self.waiting.setdefault(self.CFGR, []).append(((value & 3) << 2, 5))
        self.core = round(self.clocks()[0])

    def clocks(self) -> tuple[float, float, float]:
        """Core and the two peripheral buses, in Hz."""
        value = self.registers[self.CFGR]
        system = self.pll()[2] if value & 3 == 2 else 16 * MHZ
        if value & 0x80:
            raise Refused("RCC: HPRE is not modelled")
        return system, system / self._bus(value >> 10), system / self._bus(value >> 13)

    @staticmethod
    def _bus(field: int) -> int:
        return 2 << (field & 3) if field & 4 else 1

    def check(self) -> None:
        """Nothing runs faster than it stands (DS10916, table 17; RM0385, table 5)."""
        core, slow, fast = self.clocks()
        driven = self.registers[self.PWR_CSR1] >> 17 & 1 and self.registers[self.PWR_CR1] >> 14 & 3 == 3
        most = 216 if driven else 180
        if core > most * MHZ or slow > most / 4 * MHZ or fast > most / 2 * MHZ:
            raise Refused(f"RCC: {core:g}, {slow:g}, {fast:g} Hz are too fast {'with' if driven else 'without'} over-drive")
        if core > ((self.registers[self.ACR] & 15) + 1) * 30 * MHZ:
            raise Refused(f"FLASH: {self.registers[self.ACR] & 15} wait states are not for {core:g} Hz")

    def timer_clock(self) -> int:
        core, slow, _ = self.clocks()
        return round(min(core, 2 * slow))

    def usart_clock(self) -> int:
        return round(self.clocks()[2])

    def pins_connected(self) -> bool:
        sender = self.registers[self.GPIOA] >> 18 & 3 == 2 and self.registers[self.GPIOA + 0x24] >> 4 & 15 == 7
        return sender and self.registers[self.GPIOB] >> 14 & 3 == 2 and self.registers[self.GPIOB + 0x20] >> 28 == 7

    def requests_usart(self, settings: int) -> bool:
        return settings >> 25 & 7 == 4

    def _flags_cleared(self, before: int, value: int) -> None:
        self.registers[self.CSR] = 0 if value & 1 << 24 else before


class Stm32F405(Stm32F746):
    """Any board with this chip; its clocks are those of the STM32F746 but for the limits. A USART of the older kind, without DMA:
    one byte is kept, and who does not look in time loses the next.
    """

    name = "stm32f405"
    memories: ClassVar = {0x20000000: 128 << 10}
    peripherals: ClassVar = tuple((at, 0x1000) for at in (0x40000000, 0x40007000, 0x40011000, 0x40020000, 0x40023000))
    stream = 0  # none
    slow_timer = 0x40000C00  # TIM5
    cpu = UC_CPU_ARM_CORTEX_M4
    controller = FlashFixed
    STATE, DATA, RATE, CONTROL = (0x40011000 + at for at in (0, 4, 8, 0xC))

    plain: ClassVar = {
        **core_registers(1), **dict.fromkeys((STATE, DATA, RATE, CONTROL), 0),
        **dict.fromkeys((slow_timer, slow_timer + 0x14, slow_timer + 0x28, 0xE000E104, 0xE000E284), 0),
        Stm32F746.PWR_CR1: 0x4000, Stm32F746.ACR: 0, Stm32F746.CR: 0x83, Stm32F746.PLLCFGR: 0x24003010, Stm32F746.CFGR: 0,
        Stm32F746.CSR: 0, Stm32F746.AHB1ENR: 0x00100000, Stm32F746.APB1ENR: 0, Stm32F746.APB2ENR: 0,
        Stm32F746.GPIOA: 0xA8000000, Stm32F746.GPIOA + 0x24: 0,
    }  # fmt: skip

    def reset(self, power_on: bool = False) -> None:
        self.arriving: list[tuple[float, int]] = []  # when a byte is whole, byte
        self.received: list[int] = []  # at most one
        self.full_until = 0.0  # the sender
        super().reset(power_on)

    def gates(self):
        return (
            (self.APB1ENR, 3, self.slow_timer, self.slow_timer + 0x28), (self.APB1ENR, 28, self.PWR_CR1, self.PWR_CSR1),
            (self.APB2ENR, 4, self.STATE, self.CONTROL), (self.AHB1ENR, 0, self.GPIOA, self.GPIOA + 0x24),
        )  # fmt: skip

    def rules(self):
        kept = {at: rule for at, rule in super().rules().items() if at in self.plain}
        return {**kept, self.PWR_CR1: self._voltage, self.DATA: self._send, self.RATE: self._rate, DWT: self._counter_started}

    def _voltage(self, _: int, value: int) -> None:
        if not value >> 14 & 1:
            raise Refused("PWR: scale 2 is not for 168 MHz")

    def _counter_started(self, _: int, value: int) -> None:
        if not self.registers[SCS + 0xDFC] >> 24 & 1:
            raise Refused("DWT: without TRCENA")

    def check_pll(self) -> None:
        reference, vco, _ = self.pll()
        if not MHZ <= reference <= 2 * MHZ or not 100 * MHZ <= vco <= 432 * MHZ:
            raise Refused(f"RCC: the PLL cannot make {vco:g} Hz from {reference:g}")

    def check(self) -> None:
        """Nothing runs faster than it stands (RM0090, table 11)."""
        core, slow, fast = self.clocks()
        if core > 168 * MHZ or slow > 42 * MHZ or fast > 84 * MHZ:
            raise Refused(f"RCC: {core:g}, {slow:g}, {fast:g} Hz are too fast")
        if core > ((self.registers[self.ACR] & 7) + 1) * 30 * MHZ:
            raise Refused(f"FLASH: {self.registers[self.ACR] & 7} wait states are not for {core:g} Hz")

    def pins_connected(self) -> bool:
        return self.registers[self.GPIOA] >> 18 & 15 == 0xA and self.registers[self.GPIOA + 0x24] >> 4 & 0xFF == 0x77

    # -- the older USART --

    def write(self, data: bytes) -> None:
        at = max([self.time, *(time for time, _ in self.arriving[-1:])])
        if self.registers[self.CONTROL] & 0x2004 == 0x2004:
            self.arriving += [(at + (i + 1) * 10 / self.rate, byte) for i, byte in enumerate(self._garbled(data))]
            self.looks = max(self.looks, PATIENCE)

    def _rate(self, _: int, value: int) -> None:
        if self.registers[self.CONTROL] >> 13 & 1 or value < 16:
            raise Refused("USART: BRR is written while UE is 1, or too small")

    def _line_rate(self) -> float:
        return self.usart_clock() / self.registers[self.RATE]

    def _arrive(self) -> None:
        while self.arriving and self.arriving[0][0] <= self.time:
            if self.received:
                raise Refused("USART: a byte was lost: nobody had read the one before")
            self.received.append(self.arriving.pop(0)[1])

    def read_register(self, at: int, size: int = 4) -> int:
        if at == self.DATA:
            self._accessed(at, size)
            self.looks += 1  # for when the program takes it out of its own buffer
            return self.received.pop() if self.received else 0
        if at != self.STATE:
            return super().read_register(at, size)
        self._accessed(at, size)
        self._arrive()
        events = [time for time, _ in self.arriving[:1]] + ([self.full_until] if self.full_until > self.time else [])
        if not self.received and events:  # the program waits: time goes on to what comes first
            self.pass_cycles(round((min(events) - self.time) * self.core) + 1)
            self._arrive()
        elif not self.received:
            self._look()
        return 0x20 * len(self.received) | (0xC0 if self.full_until <= self.time else 0)

    def _send(self, _: int, value: int) -> None:
        if self.registers[self.CONTROL] & 0x2008 != 0x2008 or not self.pins_connected():
            raise Refused("USART: the sender is off, or its pins are not connected")
        if self.full_until > self.time:
            raise Refused("USART: the sender is full")
        self.sent += self._garbled(bytes([value & 0xFF]))
        self.full_until = self.time + 10 / self._line_rate()
        self.looks = max(self.looks, PATIENCE)


CHIPS = {"stm32h743": Stm32H743, "stm32f746": Stm32F746}  # with a store, DMA and a second memory
BOARDS = {**CHIPS, "stm32f405": Stm32F405}

"""Images for boards that exist, executed against models of their registers: they start, serve the link, find the host's boxes."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unicorn import UC_HOOK_CODE

from firmware import build as build_module
from firmware.build import BuildError, Image, build, build_link
from firmware.compiler.target import Target, load_target
from firmware.emulator import DeviceError, qemu_command
from firmware.header import read_header
from firmware.host import HostModel
from firmware.link.client import NETWORK_ROWS, Answer, Client
from firmware.link.session import Reset
from tests.firmware.stm32_board import Board, Refused
from tests.firmware.stm32_chips import CHIPS
from tests.firmware.test_device import HEIGHT, WIDTH, make_tess

MODEL = make_tess("stream")
FRAME = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
FULL_SPEED = {"stm32h743": 480_000_000, "stm32f746": 216_000_000}
pytestmark = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="needs apt packages gcc-arm-none-eabi and libnewlib-arm-none-eabi"
)
targets = pytest.mark.parametrize("name", CHIPS)


def image_bytes(name: str | Target, folder: Path) -> tuple[Image, bytes]:
    """An image, and what a programmer writes to the flash."""
    image = build_link(name, MODEL)
    subprocess.check_call(["arm-none-eabi-objcopy", "-O", "binary", image.elf, folder / "flash.bin"])
    return image, (folder / "flash.bin").read_bytes()


def started(name: str, folder: Path, target: Target | None = None, **options) -> tuple[Board, Client]:
    board = CHIPS[name](image_bytes(target or name, folder)[1], **options)
    client = Client(board)
    client.connect(MODEL)
    return board, client


def run(client: Client, model: bytes = MODEL) -> Answer:
    return client.run(FRAME, NETWORK_ROWS, (WIDTH, HEIGHT), read_header(model), True, True)


def assert_hosts_bytes(answer: Answer, model: bytes = MODEL) -> None:
    heads, boxes = HostModel(model).run_and_detect(FRAME, "rgb888")
    assert len(boxes) > 5 and np.array_equal(answer.boxes, boxes)
    assert heads.keys() == answer.heads.keys() and all(np.array_equal(heads[n], answer.heads[n]) for n in heads)


@targets
def test_a_board_starts_at_full_speed_and_finds_the_hosts_boxes(name: str, tmp_path: Path) -> None:
    board, client = started(name, tmp_path)
    facts = client.facts
    assert (facts.board, facts.unit, facts.caches) == (name, "cycles", 3)
    assert facts.clock_hz == board.core == FULL_SPEED[name] == load_target(name).clock_hz
    answer = run(client)
    assert_hosts_bytes(answer)
    assert 500 < answer.stack < load_target(name).stack_reserve
    client.selftest()
    client.connect(MODEL)
    assert client.facts.counters["repeated"] == client.session.counters.repeated == 0


@targets
def test_the_line_gets_faster(name: str, tmp_path: Path) -> None:
    board, client = started(name, tmp_path)
    assert client.raise_baud(2_000_000) and board.rate == 2_000_000
    assert_hosts_bytes(run(client))


@targets
def test_a_board_without_its_oscillator_starts_as_fast(name: str, tmp_path: Path) -> None:
    board, client = started(name, tmp_path, crystal=False)
    assert client.facts.clock_hz == board.core == FULL_SPEED[name]
    assert_hosts_bytes(run(client))


def test_an_older_revision_runs_as_fast_as_it_may(tmp_path: Path) -> None:
    board, client = started("stm32h743", tmp_path, revision=0x1003)
    assert client.facts.clock_hz == board.core == 400_000_000
    assert_hosts_bytes(run(client))


@targets
def test_work_memory_that_is_too_large_for_dtcm_lies_beside_it(name: str, tmp_path: Path) -> None:
    chip = load_target(name)
    regions = {r: used for r, used, _ in image_bytes(name, tmp_path)[0].regions}
    assert regions["LARGE"] == 0
    large = replace(chip, firmware=replace(chip.firmware, link_memory=200 << 10))
    image, data = image_bytes(large, tmp_path)
    assert {r: used for r, used, _ in image.regions}["LARGE"] == image.arena == (200 << 10) + 2 * 16
    board = CHIPS[name](data)
    client = Client(board)
    assert client.connect(MODEL).memory == 200 << 10
    assert_hosts_bytes(run(client))


def test_a_model_that_comes_over_the_link_replaces_the_images(tmp_path: Path) -> None:
    chip = load_target("stm32h743")
    other = make_tess("least")
    _, client = started("stm32h743", tmp_path, replace(chip, firmware=replace(chip.firmware, link_memory=64 << 10)))
    assert client.load(other).place > 0
    assert_hosts_bytes(run(client, other), other)


@targets
def test_cycles_are_counted_beyond_32_bits(name: str, tmp_path: Path) -> None:
    """Time passes in a kernel, so much that CYCCNT wraps in most of its calls."""
    image, data = image_bytes(name, tmp_path)
    board = CHIPS[name](data)
    client = Client(board)
    client.connect(MODEL)
    symbols = subprocess.check_output(["arm-none-eabi-nm", image.elf], text=True)
    at = int(re.search(r"^(\w+) T tess_conv_row$", symbols, re.MULTILINE)[1], 16) & ~1
    calm, calls = run(client), []
    board.uc.hook_add(UC_HOOK_CODE, lambda *_: (calls.append(1), board.pass_cycles(3 << 30)), begin=at, end=at)
    board.uc.ctl_flush_tb()  # what was translated before knows no hook
    busy = run(client)
    assert len(calls) > 2 and busy.run - calm.run == len(calls) * (3 << 30)
    assert np.array_equal(busy.boxes, calm.boxes)


@targets
def test_a_fault_is_told_after_the_reset(name: str, tmp_path: Path) -> None:
    board, client = started(name, tmp_path)
    board.pc = 0x00000100  # where no memory is
    board.run()
    assert board.boots == 2
    client = Client(board)
    client.connect(MODEL)
    welcome = client.session.welcome
    assert (welcome.reset, welcome.pc, welcome.cfsr) == (Reset.FAULT, 0x100, 1 << 9)
    assert_hosts_bytes(run(client))


@targets
def test_a_power_on_is_told_as_one(name: str, tmp_path: Path) -> None:
    _, client = started(name, tmp_path)
    assert client.session.welcome.reset == Reset.POWER


MISTAKES = {
    "stm32h743": [
        ("    wait_for(RCC_CR, PLL1RDY, PLL1RDY);\n", "", "before it is ready"),
        ("switch_over(fast ? 4 : 2)", "switch_over(fast ? 3 : 2)", "3 wait states"),
        ("2u << 4 | wait_states; //", "1u << 4 | wait_states; //", "WRHIGHFREQ 1"),
        ("    raise_voltage(fast);\n", "    (void)raise_voltage;\n", "too fast for VOS3"),
        ("    if (fast) {\n", "    if (fast > 1) {\n", "too fast for VOS1"),
        ("fast ? 480 : 400);\n    switch", "500);\n    switch", "VCO cannot run"),
        ("outside ? 4u << 4", "outside ? 1u << 4", "PLL1RGE"),
        ("    wait_for(PWR_CSR1, ACTVOSRDY, ACTVOSRDY);\n", "", "before ACTVOSRDY"),
        ("4u << 8 | 4u << 4;", "4u << 8;", "too fast for VOS0"),
        ("    REGISTER(RCC_APB1LENR) |= 1;       // TIM2\n", "", "has no clock"),
        ("MPU_UNCACHED);    // SRAM3", "MPU_WRITE_BACK);    // SRAM3", "cache hides"),
        ("0x30040000, 15, MPU", "0x30040000, 19, MPU", "not aligned"),
        ("    protect_memory();\n", "    (void)protect_memory;\n", "before the MPU"),
        ("USART3_RX_REQUEST = 45", "USART3_RX_REQUEST = 46", "not that of the USART"),
    ],
    "stm32f746": [
        ("    wait_for(RCC_CR, PLLRDY, PLLRDY);\n", "", "before it is ready"),
        ("WAIT_STATES = 7", "WAIT_STATES = 6", "6 wait states"),
        ("    REGISTER(PWR_CR1) |= ODSWEN;\n    wait_for(PWR_CSR1, ODSWRDY, ODSWRDY);\n", "", "without over-drive"),
        ("    wait_for(PWR_CSR1, ODRDY, ODRDY);\n", "", "before ODRDY"),
        ("1u << 22 | 25u", "1u << 22 | 24u", "cannot make"),
        ("1u << 28 | 1; // PWR", "1; // PWR", "has no clock"),
        ("4u << 13 | 5u << 10", "4u << 13 | 4u << 10", "too fast with"),
        ("7u << 28);", "8u << 28);", "pins"),
        ("MPU_UNCACHED);   // SRAM2", "MPU_WRITE_BACK);   // SRAM2", "cache hides"),
        (".stream_bits = 4u << 25", ".stream_bits = 5u << 25", "not that of the USART"),
    ],
}


@pytest.mark.parametrize(
    ("name", "right", "wrong", "words"), [(name, *mistake) for name, all_of_it in MISTAKES.items() for mistake in all_of_it]
)
def test_a_mistake_in_the_start_up_is_refused(name: str, right: str, wrong: str, words: str, tmp_path: Path) -> None:
    """Each line that the reference manual asks for is missed when it is not there: the same program, one thing wrong."""
    folder = tmp_path / "port"
    shutil.copytree(build_module.ROOM / "targets" / name, folder)
    source = (folder / "port.c").read_text()
    assert source.count(right) == 1
    (folder / "port.c").write_text(source.replace(right, wrong))
    chip = load_target(name)
    wrong_chip = replace(chip, firmware=replace(chip.firmware, folder=str(folder)))
    board = CHIPS[name](image_bytes(wrong_chip, tmp_path)[1])
    with pytest.raises(Refused, match=words):
        board.run()


@targets
def test_all_forms_of_an_image_hold_the_same(name: str, tmp_path: Path) -> None:
    image = build_link(name, MODEL, tmp_path)
    data = (tmp_path / "firmware.bin").read_bytes()
    assert len(data) == image.regions[0][1] and data.count(MODEL) == 1
    hexed = tmp_path / "firmware.hex"
    subprocess.check_call(["arm-none-eabi-objcopy", "-I", "ihex", "-O", "binary", hexed, tmp_path / "back.bin"])
    assert (tmp_path / "back.bin").read_bytes() == data
    assert "app_arena" in image.map.read_text() and "LARGE" in image.table()


@targets
def test_what_does_not_fit_is_refused_with_sizes(name: str) -> None:
    chip = load_target(name)
    large = chip.firmware.large_ram
    with pytest.raises(BuildError, match=rf"needs {large + 64:,} B of work memory: 96 B too many.*choose a schedule that needs"):
        build_link(replace(chip, firmware=replace(chip.firmware, link_memory=large + 64)), MODEL)
    with pytest.raises(BuildError, match=r"flash .*the model.*: [\d,]+ B too many"):
        build_link(replace(chip, flash=32 << 10), MODEL)
    with pytest.raises(BuildError, match="B of RAM .* too small"):
        build_link(replace(chip, stack_reserve=1 << 20), MODEL)


def test_a_board_is_no_emulator() -> None:
    with pytest.raises(BuildError, match="'stm32h743' is a board.*docs/boards.md"):
        build("stm32h743", MODEL)
    with pytest.raises(DeviceError, match="'stm32f746' is a board"):
        qemu_command(load_target("stm32f746").firmware, Path("x.elf"))

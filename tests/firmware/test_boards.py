"""Images for boards that exist, executed against models of their registers: they start, serve the link, find the host's boxes."""

import random
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unicorn import UC_HOOK_CODE

from firmware import build as build_module
from firmware.build import BuildError, Image, build, build_link, build_program
from firmware.compiler.image import write_image
from firmware.compiler.program import build_program as flatten
from firmware.compiler.schedule import stream
from firmware.compiler.search import deploy
from firmware.compiler.target import Target, load_target
from firmware.emulator import DeviceError, qemu_command
from firmware.header import read_header
from firmware.host import HostModel
from firmware.link.client import NETWORK_ROWS, Answer, Client, RequestFailed
from firmware.link.counting import Counting
from firmware.link.following import LinkTracker
from firmware.link.frame import Frame, Parser
from firmware.link.ports import EmulatorPort
from firmware.link.session import Control, LinkError, Reset
from firmware.track import Tracker
from tests.firmware.graphs import random_graph
from tests.firmware.stm32_board import FLASH, Board
from tests.firmware.stm32_chips import BOARDS, CHIPS
from tests.firmware.stm32_flash import PowerCut, Refused
from tests.firmware.test_device import HEIGHT, WIDTH, make_tess
from tests.firmware.test_link_counting import TRUTH, host_precision


def make_tiny(seed: int) -> bytes:
    """A model of a few hundred bytes."""
    program = flatten(random_graph(np.random.default_rng(seed), max_ops=2, max_size=8))
    return write_image(deploy(program, stream(program)), None, bytes(32))


MODEL = make_tess("stream")
OTHER = make_tess("least")
TINY = tuple(make_tiny(seed) for seed in (2, 5, 6))
FRAME = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
FULL_SPEED = {"stm32h743": 480_000_000, "stm32f746": 216_000_000, "stm32f405": 168_000_000}

pytestmark = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="needs apt packages gcc-arm-none-eabi and libnewlib-arm-none-eabi"
)
targets = pytest.mark.parametrize("name", CHIPS)
all_targets = pytest.mark.parametrize("name", BOARDS)


def image_bytes(name: str | Target, folder: Path) -> tuple[Image, bytes]:
    """An image, and what a programmer writes to the flash."""
    image = build_link(name, MODEL)
    subprocess.check_call(["arm-none-eabi-objcopy", "-O", "binary", image.elf, folder / "flash.bin"])
    return image, (folder / "flash.bin").read_bytes()


def started(name: str, folder: Path, target: Target | None = None, **options) -> tuple[Board, Client]:
    board = BOARDS[name](image_bytes(target or name, folder)[1], **options)
    client = Client(board)
    client.connect(MODEL)
    return board, client


def make_mistake(monkeypatch: pytest.MonkeyPatch, folder: Path, file: str, right: str, wrong: str) -> None:
    """From here on images are built with one thing wrong in a file of the board's folder, or of its family's."""
    sources = build_module._base

    def with_mistake(chip: Target) -> list[Path]:
        found = sources(chip)
        (original,) = (path for path in found if path.name == file)
        assert original.read_text().count(right) == 1
        (folder / file).write_text(original.read_text().replace(right, wrong))
        return [folder / file if path == original else path for path in found]

    monkeypatch.setattr(build_module, "_base", with_mistake)


def run(client: Client, model: bytes = MODEL) -> Answer:
    return client.run(FRAME, NETWORK_ROWS, (WIDTH, HEIGHT), read_header(model), True, True)


def assert_hosts_bytes(answer: Answer, model: bytes = MODEL) -> None:
    heads, boxes = HostModel(model).run_and_detect(FRAME, "rgb888")
    assert len(boxes) > 5 and np.array_equal(answer.boxes, boxes)
    assert heads.keys() == answer.heads.keys() and all(np.array_equal(heads[n], answer.heads[n]) for n in heads)


@all_targets
def test_a_board_starts_at_full_speed_and_finds_the_hosts_boxes(name: str, tmp_path: Path) -> None:
    board, client = started(name, tmp_path)
    facts = client.facts
    assert (facts.board, facts.unit, facts.caches) == (name, "cycles", 3 if name in CHIPS else 0)
    assert facts.clock_hz == board.core == FULL_SPEED[name] == load_target(name).clock_hz
    answer = run(client)
    assert_hosts_bytes(answer)
    assert 500 < answer.stack < load_target(name).stack_reserve
    client.selftest()
    client.connect(MODEL)
    assert client.facts.counters["repeated"] == client.session.counters.repeated == 0


@targets
def test_a_board_counts_and_follows(name: str, tmp_path: Path) -> None:
    """What it keeps from picture to picture lies in memory that it may use, and is the host's to the bit."""
    _, client = started(name, tmp_path)
    counting, answer = Counting(client), run(client)
    tracker, here = LinkTracker(client, lambda: answer), Tracker()
    for _ in range(3):
        answer = run(client)
        counting.add(answer.boxes, TRUTH[0], answer.found)
        assert np.array_equal(tracker.update(answer.boxes), here.update(answer.boxes))
    assert counting.result() == host_precision([answer.boxes] * 3, TRUTH[:1] * 3)
    assert here.confirmed > 3 and any(counting.result().by_class)


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


def roomy(name: str) -> Target:
    """With work memory for any model of these tests."""
    chip = load_target(name)
    return replace(chip, firmware=replace(chip.firmware, link_memory=64 << 10))


@targets
def test_a_model_that_comes_over_the_link_stays_when_the_power_goes(name: str, tmp_path: Path) -> None:
    board, client = started(name, tmp_path, roomy(name))
    assert client.facts.model_room == (256 << 10) - 32
    assert client.load(OTHER).place == 1
    assert_hosts_bytes(run(client, OTHER), OTHER)
    client = Client(board.power_cycled())
    assert client.connect(OTHER).place == 1
    assert_hosts_bytes(run(client, OTHER), OTHER)
    assert client.load(MODEL).place == 2


@pytest.fixture(scope="module", params=CHIPS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A board that was given two models; the second is in use, the first one in the place that the next load takes."""
    board, client = started(request.param, tmp_path_factory.mktemp("loaded"))
    for model in TINY[:2]:
        client.load(model)
    return board


def crc(model: bytes) -> int:
    return struct.unpack_from("<I", model, 12)[0]


def identity(board: Board) -> int:
    """CRC of the model that the board uses, which works."""
    client = Client(board)
    facts = client.connect()
    client.selftest()
    return facts.identity.crc


def test_a_cut_of_the_power_at_any_step_of_a_load_leaves_a_model(loaded: Board) -> None:
    """At an erase or a word, torn three ways: the model that was in use, or, once its record is written, the new one."""
    old, new = map(crc, TINY[1:])
    trial = loaded.power_cycled()
    Client(trial).load(TINY[2])
    last = trial.flash.steps
    record = last - 32 // trial.flash.word + 1
    outcomes = {}
    step = 3 * 32 // trial.flash.word if trial.flash.word < 32 else 1  # of small words one in 24, and all of the record
    for cut in sorted({*range(1, record, step), *range(record - 1, last + 1)}):
        trial = loaded.power_cycled()
        trial.flash.cut_at, trial.flash.chance = cut, random.Random(cut)
        with pytest.raises(PowerCut):
            Client(trial).load(TINY[2])
        again = trial.power_cycled()
        outcomes[cut] = identity(again)
        assert again.boots == 1 and outcomes[cut] in ((old,) if cut < record else (old, new))
        if cut % 5 == 0 or cut >= record:
            assert Client(again).load(TINY[2]).identity.crc == new
    assert last > 20 and set(outcomes.values()) == {old, new}


def test_damage_to_the_newest_model_brings_back_the_one_before(loaded: Board) -> None:
    one, two = map(crc, TINY[:2])
    assert identity(loaded.power_cycled()) == two
    cells = loaded.flash.cells()
    at = cells.data.index(TINY[1])
    cells.data = cells.data[:at] + bytes([cells.data[at] & 0xFB]) + cells.data[at + 1 :]
    assert identity(type(loaded)(b"", cells=cells)) == one
    if loaded.flash.corrects:
        cells = loaded.flash.cells()
        cells.torn = {FLASH + at + 32}
        board = type(loaded)(b"", cells=cells)
        assert identity(board) == one and board.boots == 1


def test_a_flash_that_refuses_is_told_and_the_old_model_stays(loaded: Board) -> None:
    board = loaded.power_cycled()
    board.flash.write_protected = True
    with pytest.raises(RequestFailed, match="could not erase or write its place for models"):
        Client(board).load(TINY[2])
    assert identity(board) == crc(TINY[1])
    board.flash.write_protected = False
    assert Client(board).load(TINY[2]).identity.crc == crc(TINY[2])


FLASH_MISTAKES = {
    "stm32h743": [
        ("flash.c", "    REGISTER(FLASH_KEYR2) = 0xCDEF89ABu;\n", "", "while it is locked"),
        ("flash.c", "BY_64 | PG;", "BY_64;", "PGSERR"),
        ("flash.c", "    wait_for(FLASH_SR2, QW, 0);\n", "", "while an operation runs"),
        ("flash.c", "    REGISTER(FLASH_CR2) = BY_64 | LOCK;\n", "", "keys while it is open"),
        ("flash.c", "    REGISTER(FLASH_CR2) = BY_64; // on", "    // on", "with PG or SER"),
        ("flash.c", "    REGISTER(FLASH_CR2) = BY_64 | SER | sector << 8;\n", "", "START comes after"),
        ("flash.c", "/ stm32_flash_sector;", "/ stm32_flash_sector - 5;", "holds the program"),
        ("flash.c", "i < LINK_STORE_UNIT", "i < LINK_STORE_UNIT - 4", "a part of a word"),
        ("store.c", "        SCB_DCIMVAC = line;\n", "        (void)line;\n", "the cache may still have"),
        ("store.c", "MPU_NO_EXECUTE | MPU_DEVICE", "MPU_NO_EXECUTE | MPU_WRITE_BACK", "not as a device"),
        ("store.c", "left > 0 &&", "left > stm32_flash_sector &&", "was written before"),
        ("store.c", "    SCB_CCR |= BFHFNMIGN;\n", "", "resets in a loop"),
        ("store.c", "cpsid f", "cpsid i", "resets in a loop"),
    ],
    "stm32f746": [
        ("flash.c", "    REGISTER(FLASH_KEYR) = 0x45670123u;\n", "", "a wrong key"),
        ("flash.c", "BY_32 | PG;", "PG;", "no operation of 32 bits"),
        ("flash.c", "LARGE_SECTORS = 5", "LARGE_SECTORS = 4", "holds the program"),
        ("flash.c", "        wait_for(FLASH_SR, BSY, 0);\n", "", "an operation runs"),
        ("flash.c", "    REGISTER(FLASH_CR) = BY_32 | SER | sector << 3;\n", "", "STRT comes after"),
        ("store.c", "    open_places();\n    for (uint32_t at", "    for (uint32_t at", "has restarted"),
        ("store.c", "    err = stm32_flash_erase", "    (void)", "a 0 cannot become a 1"),
    ],
}


@pytest.mark.parametrize(
    ("name", "file", "right", "wrong", "words"),
    [(name, *mistake) for name, all_of_it in FLASH_MISTAKES.items() for mistake in all_of_it],
)
def test_a_mistake_with_the_flash_is_refused(
    name: str, file: str, right: str, wrong: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three loads, the third into a place that was used, then the power goes while the record of a fourth is written."""
    make_mistake(monkeypatch, tmp_path, file, right, wrong)
    board = CHIPS[name](image_bytes(name, tmp_path)[1])
    with pytest.raises((Refused, LinkError), match=words):
        client = Client(board)
        client.connect()
        for model in (*TINY, TINY[0]):
            client._load(model, None)
            client.connect()
        cells = board.flash.cells()
        cells.torn = {board.flash.end - 32}
        identity(CHIPS[name](b"", cells=cells))


@all_targets
def test_cycles_are_counted_beyond_32_bits(name: str, tmp_path: Path) -> None:
    """Time passes in a kernel, so much that CYCCNT wraps in most of its calls."""
    image, data = image_bytes(name, tmp_path)
    board = BOARDS[name](data)
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


@all_targets
def test_cycles_are_counted_however_long_the_board_is_on(name: str, tmp_path: Path) -> None:
    """Both counters together go round after 2^40 cycles, 38 minutes at full speed; here amid a kernel."""
    image, data = image_bytes(name, tmp_path)
    board = BOARDS[name](data)
    client = Client(board)
    client.connect(MODEL)
    calm, passed, calls = run(client), (1 << 40) - (1 << 32), []
    board.read(0.1)  # what is still under way arrives
    board.pass_cycles(3 << 31)
    symbols = subprocess.check_output(["arm-none-eabi-nm", image.elf], text=True)
    at = int(re.search(r"^(\w+) T tess_conv_row$", symbols, re.MULTILINE)[1], 16) & ~1
    board.uc.hook_add(UC_HOOK_CODE, lambda *_: calls or (calls.append(1), board.pass_cycles(passed)), begin=at, end=at)
    board.uc.ctl_flush_tb()
    assert run(client).run - calm.run == passed and calls


@all_targets
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


def echoes(folder: Path) -> int:
    """Of three frames that are sent to an STM32F405 without a pause, while it answers the first of them."""
    board, client = started("stm32f405", folder)
    for _ in range(3):
        client.session._transmit(Frame(Control.ECHO, payload=bytes(range(100))))
    parser = Parser()
    return sum(frame is not None and frame.type == Control.ECHO for frame in parser.feed(board.read(1)))


def test_what_arrives_while_a_board_without_dma_sends_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert echoes(tmp_path) == 3
    looks = "    look();\n    while (!(REGISTER(USART1_SR) & ROOM_TO_SEND)) {\n        look();\n    }\n"
    make_mistake(monkeypatch, tmp_path, "port.c", looks, "    wait_for(USART1_SR, ROOM_TO_SEND, ROOM_TO_SEND);\n")
    with pytest.raises(Refused, match="a byte was lost"):
        echoes(tmp_path)


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs apt package qemu-system-arm")
def test_the_image_of_an_stm32f405_runs_in_qemu_too() -> None:
    """The same file: without a PLL it counts instructions at the speed that it has."""
    image = build_link("stm32f405", MODEL)
    port = EmulatorPort("qemu", replace(image, target=load_target("netduinoplus2")))
    try:
        client = Client(port)
        client.connect(MODEL)
        assert (client.facts.board, client.facts.unit, client.facts.clock_hz) == ("stm32f405", "instructions", None)
        assert_hosts_bytes(run(client))
        client.selftest()
    finally:
        port.close()


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs apt package qemu-system-arm")
def test_an_access_outside_of_its_ram_restarts_an_stm32f405_which_says_where() -> None:
    program = build_program("stm32f405", [Path(__file__).parent / "c" / "fault_board.c"])
    port = EmulatorPort("qemu", replace(program, target=load_target("netduinoplus2")))
    try:
        told = b""
        while told.count(b"\n") < 2:
            told += port.read(10)
    finally:
        port.close()
    first, second = told.decode().splitlines()[:2]
    symbols = subprocess.check_output(["arm-none-eabi-addr2line", "-f", "-e", program.elf, second.split()[1]], text=True)
    assert first == "start 0"
    assert second.split()[0] == "fault" and symbols.startswith("touch") and int(second.split()[2], 16) & 1 << 9


@all_targets
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
    "stm32f405": [
        ("WAIT_STATES = 5", "WAIT_STATES = 4", "4 wait states"),
        ("336u << 6", "448u << 6", "cannot make"),
        ("4u << 13 | 5u << 10", "4u << 13 | 4u << 10", "too fast"),
        ("return wait_bounded(RCC_CR, PLLRDY, PLL_READS);", "return 1;", "before it is ready"),
        ("    modify(PWR_CR, VOS1, VOS1);", "    modify(PWR_CR, VOS1, 0);", "scale 2"),
        ("1u << 28 | 1u << 3 | 1; // PWR", "1u << 28 | 1; // PWR", "has no clock"),
        ("start_timer(TIM5, 128)", "start_timer(TIM5, 256)", "a tick is"),
        ("0xFF0u, 0x770u", "0xFF0u, 0x700u", "pins"),
    ],
}


@pytest.mark.parametrize(
    ("name", "right", "wrong", "words"), [(name, *mistake) for name, all_of_it in MISTAKES.items() for mistake in all_of_it]
)
def test_a_mistake_in_the_start_up_is_refused(
    name: str, right: str, wrong: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line that the reference manual asks for is missed when it is not there: the same program, one thing wrong."""
    make_mistake(monkeypatch, tmp_path, "port.c", right, wrong)
    board = BOARDS[name](image_bytes(name, tmp_path)[1])
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

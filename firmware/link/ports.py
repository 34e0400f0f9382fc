"""Where the bytes go: serial lines, sockets, a process of this machine, an emulator. pyserial carries what has a name."""

import ctypes
import errno
import signal
import socket
import subprocess
import sys
import tempfile
import time

import serial
from serial.tools import list_ports

from firmware.build import Image, build_link
from firmware.cc import compile_c
from firmware.emulator import ended, qemu_command
from firmware.host import LINK, link_flags, link_sources
from firmware.link.session import LinkError, Port, PortClosed

BASE_BAUD = 115200
REOPEN_SECONDS = 10.0  # for a USB device to come back


class _RealTime:
    """Ports of the real world live in its time."""

    name: str

    def now(self) -> float:
        return time.monotonic()

    def set_baud(self, rate: int) -> bool:
        return False

    def reopen(self) -> bool:
        return False


class SerialPort(_RealTime):
    """What pyserial can open: a tty, `socket://host:port`, `COM3`. Raises LinkError when it cannot be opened."""

    def __init__(self, name: str, baud: int = BASE_BAUD) -> None:
        self.name = name
        self._baud = baud
        self._serial = self._open()

    def _open(self) -> serial.SerialBase:
        try:
            if "://" in self.name:
                return serial.serial_for_url(self.name, baudrate=self._baud, timeout=0, write_timeout=30)
            return serial.Serial(self.name, self._baud, timeout=0, write_timeout=30, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise LinkError(_refusal(self.name, error)) from error

    def read(self, timeout: float) -> bytes:
        try:
            self._serial.timeout = max(timeout, 0.0)
            first = self._serial.read(1)
            return first + self._serial.read(self._serial.in_waiting) if first else b""
        except (OSError, TypeError) as error:  # pyserial: TypeError when the descriptor vanishes under it
            raise PortClosed(f"{self.name}: the port is gone ({error})") from error

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except OSError as error:
            raise PortClosed(f"{self.name}: the port is gone ({error})") from error

    def set_baud(self, rate: int) -> bool:
        if "://" in self.name:
            return False
        try:
            self._serial.baudrate = rate
        except (OSError, ValueError):
            return False
        return True

    def reopen(self) -> bool:
        self.close()
        until = self.now() + REOPEN_SECONDS
        while self.now() < until:
            time.sleep(0.5)
            try:
                self._serial = self._open()
                return True
            except LinkError:
                continue
        return False

    def close(self) -> None:
        self._serial.close()


def _refusal(name: str, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.EAGAIN, errno.EBUSY, errno.EWOULDBLOCK):
        return f"{name}: the port is busy: another program has it open"
    if number in (errno.EACCES, errno.EPERM):
        return f"{name}: no permission to open the port; on Linux: sudo usermod -aG dialout $USER, then log in again"
    if number == errno.ENOENT:
        there = ", ".join(sorted(port.device for port in list_ports.comports())) or "none"
        return f"{name}: there is no such port; ports of this machine: {there}"
    return f"{name}: cannot be opened: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


class HostPort(SerialPort):
    """The same link code in a process of this machine (link_pty.c), behind a pseudo-terminal. Ends with this object."""

    def __init__(self, model: bytes) -> None:
        program = compile_c(
            [*link_sources(), LINK / "host" / "link_host.c", LINK / "host" / "link_pty.c"], link_flags(), "link_pty"
        )
        with tempfile.NamedTemporaryFile(suffix=".tess") as file:
            file.write(model)
            file.flush()
            self._process = subprocess.Popen(
                [str(program), file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert self._process.stdout is not None
            self.path = self._process.stdout.readline().decode().strip()
        if not self.path:
            raise LinkError("host: the link process did not start")
        super().__init__(self.path)
        self.name = "host"

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        super().close()
        self._process.kill()
        self._process.communicate()


def _end_with_parent() -> None:
    """An emulator does not outlive a tool that is killed: Linux sees to it (prctl PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class EmulatorPort(_RealTime):
    """Firmware in QEMU, its UART on one end of a pair of sockets."""

    def __init__(self, name: str, image: Image) -> None:
        self.name = name
        self._image = image
        here, there = socket.socketpair()
        self._socket = here
        command = qemu_command(image.target.firmware, image.elf.resolve(), f"fd={there.fileno()}")
        self._log = tempfile.TemporaryFile()
        with there:
            self._process = subprocess.Popen(
                command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                preexec_fn=_end_with_parent,
            )  # fmt: skip

    def read(self, timeout: float) -> bytes:
        self._socket.settimeout(max(timeout, 1e-6))
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return b""
        except OSError as error:
            raise PortClosed(self._words()) from error
        if not data:
            raise PortClosed(self._words())
        return data

    def write(self, data: bytes) -> None:
        self._socket.settimeout(60)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise PortClosed(self._words()) from error

    def _words(self) -> str:
        status = self._process.wait()
        self._log.seek(0)
        return f"{self.name}: {ended(self._image, status, self._log.read().decode(errors='replace'))}"

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._log.close()


def open_port(place: str, model: bytes | None, profile: bool = False) -> Port:
    """A port by name: `host`, `emulator[:TARGET]`, `/dev/tty...`, `COM3` or `socket://host:port`.

    The first two hold `model` when they start; `profile` makes an emulator count each node. Raises LinkError, or what building
    the firmware raises.
    """
    kind, _, target = place.partition(":")
    if kind not in ("host", "emulator") or place == "host:":
        return SerialPort(place)
    if model is None:
        raise LinkError(f"{place}: name the model that it shall hold: --model MODEL")
    if kind == "host":
        return HostPort(model)
    return EmulatorPort(place, build_link(target or "mps2-an500", model, profile=profile))

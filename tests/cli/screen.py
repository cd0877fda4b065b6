"""A program on a pseudo-terminal, as a person has it: what it draws, what is typed, how it leaves the terminal."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios

from job import PROGRAM, wait_until

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
HOME = "\x1b[H"
COMMAND = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """The program on a terminal of its own, which is the program's controlling terminal."""

    def __init__(self, *words, width=100, height=40):
        self.drawn = b""
        self.leader, self.terminal = os.openpty()
        self.resize(width, height, announce=False)
        self.before = termios.tcgetattr(self.terminal)
        self.process = subprocess.Popen([PROGRAM, *map(str, words)], stdin=self.terminal, stdout=self.terminal,
                                        stderr=self.terminal, start_new_session=True, env=dict(os.environ, TERM="xterm"),
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.leader)
        os.close(self.terminal)

    def resize(self, width, height, announce=True):
        """To the terminal's new size; the kernel tells those in its foreground."""
        fcntl.ioctl(self.leader if announce else self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, text):
        os.write(self.leader, text.encode())

    def text(self):
        """All that was written so far."""
        while select.select([self.leader], [], [], 0)[0]:
            self.drawn += os.read(self.leader, 1 << 16)
        return self.drawn.decode(errors="replace")

    def frame(self):
        """Lines of the last frame that is drawn in full, without colours."""
        frames = self.text().split(HOME)[1:]
        whole = [frame for frame in frames if "\x1b[J" in frame]
        return [COMMAND.sub("", line).rstrip("\r") for line in whole[-1].split("\x1b[J")[0].split("\r\n")] if whole else []

    def wait_for(self, pattern):
        """Until the last frame has a line with `pattern`; returns that line."""
        def found():
            if self.process.poll() is not None:
                raise AssertionError(f"it has ended with {self.process.returncode}\n{self.text()}")
            return [line for line in self.frame() if re.search(pattern, line)]

        return wait_until(found)[0]

    def wait(self):
        """The exit code."""
        def ended():
            self.text()  # else it may wait for room in the terminal
            return self.process.poll() is not None

        wait_until(ended)
        return self.process.returncode

    def modes_are_restored(self):
        return termios.tcgetattr(self.terminal) == self.before

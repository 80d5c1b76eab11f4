"""usage, as root: wire.py DEVICE DEVICE DELAY JITTER LOSS
Two TAP devices; what goes into one comes out of the other DELAY to DELAY + JITTER seconds later, in order, but for a share
LOSS that is lost. Says `ready` once they are there, then runs until it is killed."""

import collections
import fcntl
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def tap(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


def main():
    one, other = tap(sys.argv[1]), tap(sys.argv[2])
    delay, jitter, loss = map(float, sys.argv[3:6])
    dice = random.Random(1)
    peer = {one: other, other: one}
    waiting = {one: collections.deque(), other: collections.deque()}
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        for to, frames in waiting.items():
            while frames and frames[0][0] <= now:
                try:
                    os.write(to, frames.popleft()[1])
                except OSError:  # Its device is down: the frame is lost, as on a wire that is not plugged in.
                    pass
        due = min((frames[0][0] for frames in waiting.values() if frames), default=None)
        readable, _, _ = select.select([one, other], [], [], None if due is None else max(0.0, due - time.monotonic()))
        for source in readable:
            frames = waiting[peer[source]]
            for _ in range(64):
                try:
                    frame = os.read(source, 65536)
                except OSError:
                    break
                if dice.random() >= loss:
                    when = time.monotonic() + delay + dice.uniform(0, jitter)
                    frames.append((max(when, frames[-1][0]) if frames else when, frame))


main()

"""Hosts and the network between them: each host is a network namespace behind one router, and its link can be cut, refused,
slowed and delayed. Needs root and iproute2. Everything is gone when `Net.close` returns; what a killed run has left the next
one takes away.

The kernel's own delay (tc netem) is not in every kernel; here a link with delay is two TAP devices and a process between
them that passes frames on later (wire.py), so TCP sees the real thing: longer round trips, with jitter and loss.
"""

import contextlib
import ctypes
import os
import pathlib
import re
import socket
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PREFIX = "tgh"


def ip(*words):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(map(str, words))}: {done.stderr}"
    return done.stdout


def lacking():
    """Why hosts cannot be made here, or None."""
    if os.geteuid() != 0:
        return "not root"
    name = f"{PREFIX}{os.getpid()}-try"
    try:
        ip("netns", "add", name)
    except (AssertionError, OSError) as error:
        return str(error).strip()
    try:
        ip("-n", name, "link", "add", "x", "type", "veth", "peer", "name", "y")
        ip("-n", name, "rule", "add", "from", "10.77.1.2", "blackhole")
    except AssertionError as error:
        return str(error).strip()
    finally:
        ip("netns", "del", name)
    return None


def _sweep():
    """Takes away what runs have left that ended without a word."""
    for line in ip("netns", "list").splitlines():
        found = re.match(rf"({PREFIX}(\d+)-\w+)", line)
        if found and not pathlib.Path("/proc", found[2]).exists():
            ip("netns", "del", found[1])


class Host:
    """One namespace, with the address `address` behind the router."""

    def __init__(self, net, name, number):
        self.net, self.name = net, name
        self.namespace = f"{PREFIX}{os.getpid()}-{name}"
        self.address = f"10.77.{number}.2"
        self.rules = []

    # The link.

    def cut(self):
        """From now on every packet from and to it vanishes without a word. Nobody's link goes down."""
        self._rule("from", "blackhole")
        self._rule("to", "blackhole")

    def refuse(self, how="prohibit"):
        """The router answers what is sent to it with an ICMP error: `prohibit` or `unreachable`."""
        self._rule("to", how)

    def heal(self):
        for rule in self.rules:
            ip("-n", self.net.router, "rule", "del", *rule)
        self.rules.clear()

    def slow(self, rate):
        """So many bits a second in both directions: '1mbit'."""
        limit = ("root", "tbf", "rate", rate, "burst", "5k", "latency", "400ms")
        for namespace, device in ((self.namespace, "eth0"), (self.net.router, self.name)):
            done = subprocess.run(
                ["tc", "-n", namespace, "qdisc", "add", "dev", device, *limit], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr

    def _rule(self, direction, what):
        rule = (direction, self.address, what, "pref", str(100 + len(self.rules)))
        ip("-n", self.net.router, "rule", "add", *rule)
        self.rules.append(rule)

    # What is in it.

    def spawn(self, *command, **options):
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *map(str, command)], stdin=subprocess.DEVNULL, **options
        )
        self.net.processes.append(process)
        return process

    @contextlib.contextmanager
    def inside(self):
        """What this thread opens within is in this namespace."""
        with open(f"/proc/{os.getpid()}/task/{_thread()}/ns/net", "rb") as home, open(
            f"/run/netns/{self.namespace}", "rb"
        ) as there:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)

    def connect(self, address, timeout=60):
        """A socket of this host, connected to (host, port)."""
        with self.inside():
            return socket.create_connection(address, timeout=timeout)


class Net:
    """A router and the hosts behind it."""

    def __init__(self):
        _sweep()
        self.router = f"{PREFIX}{os.getpid()}-router"
        self.hosts, self.processes = [], []
        ip("netns", "add", self.router)
        try:
            ip("-n", self.router, "link", "set", "lo", "up")
            # The kernel tells a host once a second at most; each request is to be told.
            for setting in ("net/ipv4/ip_forward=1", "net/ipv4/icmp_ratelimit=0"):
                path, value = setting.split("=")
                ip("netns", "exec", self.router, "sh", "-c", f"echo {value} >/proc/sys/{path}")
        except BaseException:
            self.close()
            raise

    def host(self, name, delay=None, jitter=0.0, loss=0.0):
        """A new host; with `delay` its link holds each frame back so many seconds, in either direction."""
        host = Host(self, name, len(self.hosts) + 1)
        ip("netns", "add", host.namespace)
        self.hosts.append(host)
        if delay is None:
            ip("-n", self.router, "link", "add", "dev", name, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        else:
            self._wire(host, delay, jitter, loss)
        gateway = host.address.removesuffix("2") + "1"
        ip("-n", self.router, "addr", "add", f"{gateway}/24", "dev", name)
        ip("-n", self.router, "link", "set", "dev", name, "up")
        ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", host.namespace, "link", "set", device, "up")
        ip("-n", host.namespace, "route", "add", "default", "via", gateway)
        return host

    def _wire(self, host, delay, jitter, loss):
        words = [sys.executable, HERE / "wire.py", host.name, "eth0", delay, jitter, loss]
        wire = subprocess.Popen(
            ["ip", "netns", "exec", self.router, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        self.processes.append(wire)
        assert wire.stdout.readline() == b"ready\n", "no TAP device"
        ip("-n", self.router, "link", "set", "eth0", "netns", host.namespace)

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        for namespace in (*(host.namespace for host in self.hosts), self.router):
            with contextlib.suppress(AssertionError):
                ip("netns", "del", namespace)


def _enter(namespace):
    if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _thread():
    import threading

    return threading.get_native_id()

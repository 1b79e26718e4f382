#!/usr/bin/python3
"""A private PostgreSQL server for tests: made, started, crashed, copied while running, removed.

    with PgServer("/tmp/x/src", settings={"wal_level": "logical"}) as src:     # made and started; removed at the end
        src.sql("create table t (a int)")
        copy = PgServer(src.freeze_copy("/tmp/x/copy"), port=free_port())      # opens what is there
        copy.start()

Servers run as user postgres when we are root (PostgreSQL refuses root), else as ourselves. Every server started here
ends with the process that started it, even when that is killed with -9: a watchdog process holds the other end of a
pipe and stops what is left. All waits are on conditions with a time limit.
"""
import atexit
import functools
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import psycopg2

BINDIR = "/usr/lib/postgresql/15/bin"
STOP_SIGNAL = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class ServerError(Exception):
    pass


# --- processes -------------------------------------------------------------------------------------------------------

def _stat(pid):
    """(state, parent, start time) of a process, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            rest = f.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return rest[0].decode(), int(rest[1]), int(rest[19])


def _alive(pid):
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX"


def _all_threads_stopped(pid):
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat", "rb") as f:
                if f.read().rpartition(b")")[2].split()[0] not in (b"T", b"t", b"Z", b"X"):
                    return False
    except OSError:
        pass                                   # gone: it writes nothing any more
    return True


def children(pid):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(name)
            if stat and stat[1] == pid and stat[0] not in "ZX":
                found.append(int(name))
    return found


def _signal(pid, sig):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


def wait_for(what, condition, timeout=60, every=0.01):
    """The condition's first true value; ServerError when it doesn't come in time."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise ServerError(f"waited {timeout} s for: {what}")
        time.sleep(every)


# --- ports -----------------------------------------------------------------------------------------------------------

_reserved = []          # abstract sockets: they keep a port ours until this process ends, and leave no file behind
_reserved_lock = threading.Lock()


def free_port(first=20000, last=32000, host="127.0.0.1"):
    """A port below the kernel's range for outgoing connections, nobody's now, and not given twice on this machine."""
    span = list(range(first, last + 1))
    random.shuffle(span)
    for port in span:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0keybridge-test-port-{port}")
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                for addr in {host, "0.0.0.0"}:
                    with socket.socket(socket.AF_INET, kind) as probe:
                        if kind == socket.SOCK_STREAM:
                            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((addr, port))
        except OSError:
            claim.close()
            continue
        with _reserved_lock:
            _reserved.append(claim)
        return port
    raise ServerError(f"no free port between {first} and {last}")


# --- the watchdog: ends our servers when we are gone ------------------------------------------------------------------

class _Watchdog:
    def __init__(self):
        self.lock = threading.Lock()
        self.owner = None
        self.process = None

    def tell(self, line):
        with self.lock:
            if self.owner != os.getpid():                       # first use, or we are a fork
                self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--watchdog"],
                                                stdin=subprocess.PIPE, start_new_session=True, close_fds=True)
                self.owner = os.getpid()
                atexit.register(self.end)
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def end(self):
        with self.lock:
            if self.owner == os.getpid() and self.process:
                self.process.stdin.close()
                self.process.wait()
                self.process = self.owner = None


_watchdog = _Watchdog()


def _watch(lines):
    """Body of the watchdog process: '+ pid starttime' and '- pid' lines; at the end of them, what is left is stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ours = {}
    for line in lines:
        word = line.split()
        if word and word[0] == "+":
            ours[int(word[1])] = int(word[2])
        elif word:
            ours.pop(int(word[1]), None)
    left = [pid for pid, started in ours.items() if (_stat(pid) or (0, 0, None))[2] == started]
    _end_servers(left)


def _end_servers(pids, timeout=15):
    for pid in pids:
        _signal(pid, signal.SIGQUIT)
        for p in children(pid) + [pid]:                         # a copy may have been interrupted while all were frozen
            _signal(p, signal.SIGCONT)
    end = time.monotonic() + timeout
    while any(_alive(p) for p in pids) and time.monotonic() < end:
        time.sleep(0.02)
    for pid in pids:
        if _alive(pid):
            for p in children(pid) + [pid]:
                _signal(p, signal.SIGKILL)


def cleanup(folder):
    """Stops every server whose data folder lies below the folder. Returns how many there were."""
    folder = os.path.realpath(folder)
    pids = []
    for where, _, files in os.walk(folder):
        if "postmaster.pid" in files and "PG_VERSION" in files:
            try:
                with open(os.path.join(where, "postmaster.pid")) as f:
                    pid = int(f.readline())
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    if where.encode() in f.read().split(b"\0"):
                        pids.append(pid)
            except (OSError, ValueError):
                pass
    _end_servers(pids)
    return len(pids)


# --- the server -------------------------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=None)
def major_of(bindir):
    """The major version of the programs in a folder."""
    said = subprocess.run([f"{bindir}/postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"\) (\d+)", said).group(1))


class PgServer:
    """One data folder and the server on it. Not thread-safe but for start/stop of different servers."""

    def __init__(self, datadir, *, bindir=BINDIR, host="127.0.0.1", port=None, superuser="postgres", password=None,
                 settings=None, log=None, socket_dir="", first_port=20000, last_port=32000):
        self.datadir = os.path.abspath(datadir)
        self.bindir = bindir
        self.host = host
        self.port = port or free_port(first_port, last_port, host)
        self.superuser = superuser
        self.password = password
        self.settings = dict(settings or {})
        self.log = log or self.datadir + ".log"
        self.socket_dir = socket_dir
        self.pid = None
        self._process = None
        account = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        self._as = ({"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {})
        self._account = account

    def __enter__(self):
        if not os.path.exists(os.path.join(self.datadir, "PG_VERSION")):
            self.init()
        self.start()
        return self

    def __exit__(self, *_):
        self.remove()

    @property
    def major(self):
        return major_of(self.bindir)

    # making and removing

    def init(self, auth=None, *, locale="C.UTF-8", encoding="UTF8", extra=()):
        """initdb. auth: trust, or scram-sha-256 (the default when there is a password)."""
        auth = auth or ("scram-sha-256" if self.password else "trust")
        self._make_dir(os.path.dirname(self.datadir), own=False)
        self._make_dir(self.datadir, own=True)
        args = [f"{self.bindir}/initdb", "-D", self.datadir, "-U", self.superuser, "-A", auth, "-E", encoding,
                f"--locale={locale}", "-N", *(["--no-instructions"] if self.major >= 14 else []), *extra]
        pwfile = None
        try:
            if self.password:
                pwfile = self.datadir + ".pw"
                with open(os.open(pwfile, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                    f.write(self.password)
                self._chown(pwfile)
                args.append(f"--pwfile={pwfile}")
            done = subprocess.run(args, capture_output=True, text=True, env=self._env(), cwd="/", **self._as)
        finally:
            if pwfile:
                os.unlink(pwfile)
        if done.returncode:
            raise ServerError(f"initdb of {self.datadir}: {done.stdout}{done.stderr}")
        return self

    def remove(self):
        """Stops the server and deletes its data folder and log."""
        self.stop("immediate")
        shutil.rmtree(self.datadir, ignore_errors=True)
        if os.path.exists(self.log):
            os.unlink(self.log)

    # life

    def start(self, timeout=120, wait=True):
        """Starts; with wait, returns once it takes connections (recovery done)."""
        self.write_conf()
        self._make_dir(os.path.dirname(self.log), own=False)
        with open(self.log, "ab") as out:
            self._chown(self.log)
            self._process = subprocess.Popen([f"{self.bindir}/postgres", "-D", self.datadir], stdin=subprocess.DEVNULL,
                                             stdout=out, stderr=out, cwd="/", env=self._env(), start_new_session=True,
                                             **self._as)
        self.pid = self._process.pid
        stat = _stat(self.pid)
        _watchdog.tell(f"+ {self.pid} {stat[2] if stat else 0}")
        if wait:
            self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout=120):
        def ready():
            if self._process and self._process.poll() is not None:
                self._gone()
                raise ServerError(f"server on {self.datadir} ended at start:\n{self.log_tail()}")
            return self._pidfile_status() == "ready"
        wait_for(f"{self.datadir} to take connections", ready, timeout)

    def stop(self, mode="fast", timeout=60):
        """Ends the server; nothing happens when it isn't running."""
        if not self.is_running():
            self._gone()
            return
        pid = self.pid
        _signal(pid, STOP_SIGNAL[mode])
        self.resume()                                           # a paused server couldn't end
        try:
            self._wait_gone(timeout)
        except ServerError:
            _end_servers([pid], 5)
            self._wait_gone(5)
            raise ServerError(f"server on {self.datadir} didn't stop ({mode}) in {timeout} s and was killed") from None

    def kill9(self):
        """Every process of the server at once, as in a power cut (but for the page cache)."""
        if not self.is_running():
            return
        _signal(self.pid, signal.SIGSTOP)                       # so that no new child appears between list and kill
        family = [self.pid] + children(self.pid)
        for pid in family:
            _signal(pid, signal.SIGKILL)
        self._wait_gone(30)
        wait_for("killed backends to be gone", lambda: not any(_alive(p) for p in family), 30)

    def pause(self):
        """Every process stands still, as a host that hangs: connections stay and nothing answers. resume() ends it."""
        return self._freeze([], 30)

    def resume(self):
        for pid in children(self.pid) + [self.pid]:
            _signal(pid, signal.SIGCONT)

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def reload(self):
        self.write_conf()
        _signal(self.pid, signal.SIGHUP)

    def is_running(self):
        """The process is there (it may still be recovering)."""
        if self._process:
            return self._process.poll() is None
        return self.pid is not None and _alive(self.pid)

    def is_up(self):
        """It takes connections."""
        return self.is_running() and self._pidfile_status() == "ready"

    # settings

    def set(self, **settings):
        """Keeps settings for the next start or reload; None takes one away."""
        for name, value in settings.items():
            if value is None:
                self.settings.pop(name, None)
            else:
                self.settings[name] = value
        self.write_conf()

    def write_conf(self):
        """Our settings live in a file of their own, included last, so that they can be written again and again."""
        values = {"listen_addresses": self.host, "port": self.port, "unix_socket_directories": self.socket_dir,
                  "logging_collector": "off", "lc_messages": "C", "max_connections": 100, **self.settings}
        path = os.path.join(self.datadir, "lab.conf")
        with open(path, "w") as f:
            for name, value in values.items():
                text = {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
                f.write("%s = '%s'\n" % (name, text.replace("'", "''")))
        self._chown(path)
        main = os.path.join(self.datadir, "postgresql.conf")
        with open(main, "r+") as f:
            if "\ninclude 'lab.conf'" not in f.read():
                f.write("\ninclude 'lab.conf'\n")

    def write_hba(self, lines):
        """Replaces pg_hba.conf; takes effect at the next start or reload."""
        path = os.path.join(self.datadir, "pg_hba.conf")
        with open(path, "w") as f:
            f.write("".join(line + "\n" for line in lines))
        self._chown(path)

    def put_file(self, name, data, mode=0o600):
        """A file in the data folder that the server may read (certificates)."""
        path = os.path.join(self.datadir, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as f:
            f.write(data)
        os.chmod(path, mode)
        self._chown(path)
        return path

    # talking to it

    def dsn(self, dbname="postgres", user=None, password=None):
        user = user or self.superuser
        password = password if password is not None else self.password
        return f"postgres://{user}{':' + password if password else ''}@{self.host}:{self.port}/{dbname}"

    def connect(self, dbname="postgres", user=None, password=None, autocommit=True, **more):
        """A psycopg2 connection."""
        con = psycopg2.connect(host=self.host, port=self.port, dbname=dbname, user=user or self.superuser,
                               password=password if password is not None else self.password,
                               **{"connect_timeout": 10, **more})
        con.autocommit = autocommit
        return con

    def sql(self, text, args=None, dbname="postgres", user=None, password=None):
        """Runs one or more statements in a connection of its own; the rows of the last, None when it has none."""
        con = self.connect(dbname, user, password)
        try:
            with con.cursor() as cur:
                cur.execute(text, args)
                return cur.fetchall() if cur.description else None
        finally:
            con.close()

    def one(self, text, args=None, **where):
        """The first value of the first row, None when there is no row."""
        rows = self.sql(text, args, **where)
        return rows[0][0] if rows else None

    def psql(self, text, dbname="postgres", user=None, password=None, check=True, args=("-AtX",)):
        """Output of psql, for its \\-commands and COPY."""
        env = {**self._env(), "PGPASSWORD": (password if password is not None else self.password) or "x"}
        done = subprocess.run([f"{self.bindir if os.path.exists(f'{self.bindir}/psql') else BINDIR}/psql",
                               *args, "-v", "ON_ERROR_STOP=1", "-h", self.host, "-p", str(self.port),
                               "-U", user or self.superuser, "-d", dbname, "-f", "-"],
                              input=text, capture_output=True, text=True, env=env)
        if check and done.returncode:
            raise ServerError(f"psql: {done.stderr}")
        return done.stdout

    def log_text(self):
        try:
            with open(self.log, errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def log_tail(self, lines=20):
        return "\n".join(self.log_text().splitlines()[-lines:])

    # a snapshot of the running server

    def freeze_copy(self, dst, timeout=60):
        """A crash-consistent copy of the data folder while the server runs, as a disk snapshot would take it: everything
        written up to one instant. All processes stand still meanwhile and go on afterwards, whatever happens here.
        postmaster.pid is left out. Returns dst. (A copy holds also what was written but not fsynced: kinder than a disk.)
        """
        if os.listdir(os.path.join(self.datadir, "pg_tblspc")):
            raise ServerError(f"{self.datadir} has tablespaces outside: a copy would share them")
        dst = os.path.abspath(dst)
        if os.path.exists(dst):
            raise ServerError(f"{dst} is there already")
        self._make_dir(os.path.dirname(dst), own=False)
        frozen = []
        try:
            if self.is_running():
                frozen = self._freeze(frozen, timeout)
            done = subprocess.run(["cp", "-a", "--reflink=auto", self.datadir, dst], capture_output=True, text=True)
        except BaseException:
            shutil.rmtree(dst, ignore_errors=True)
            raise
        finally:
            for pid in reversed(frozen):
                _signal(pid, signal.SIGCONT)
        if done.returncode:
            shutil.rmtree(dst, ignore_errors=True)
            raise ServerError(f"copying {self.datadir}: {done.stderr}")
        pidfile = os.path.join(dst, "postmaster.pid")
        if os.path.exists(pidfile):
            os.unlink(pidfile)
        return dst

    def _freeze(self, frozen, timeout):
        frozen.append(self.pid)
        _signal(self.pid, signal.SIGSTOP)
        wait_for("the postmaster to stand still", lambda: _all_threads_stopped(self.pid), timeout, 0.001)
        for pid in children(self.pid):                          # complete: nobody makes new ones now
            frozen.append(pid)
            _signal(pid, signal.SIGSTOP)
        wait_for("all backends to stand still", lambda: all(map(_all_threads_stopped, frozen)), timeout, 0.001)
        return frozen

    # inside

    def _pidfile_status(self):
        try:
            with open(os.path.join(self.datadir, "postmaster.pid")) as f:
                lines = f.read().split("\n")
        except OSError:
            return None
        if len(lines) < 8 or lines[0].strip() != str(self.pid):
            return None
        return lines[7].strip()

    def _wait_gone(self, timeout):
        pid = self.pid
        wait_for(f"server {pid} on {self.datadir} to end", lambda: not self.is_running(), timeout)
        self._gone()

    def _gone(self):
        if self.pid is not None:
            _watchdog.tell(f"- {self.pid}")
        self.pid = self._process = None

    def _env(self):
        env = {k: v for k, v in os.environ.items() if not re.match(r"PG[A-Z]|LC_|LANG", k)}
        return {**env, "LC_ALL": "C.UTF-8", "HOME": "/tmp"}

    def _make_dir(self, path, own):
        os.makedirs(path, exist_ok=True)
        if own:
            self._chown(path)
            os.chmod(path, 0o700)

    def _chown(self, path):
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)


def main(argv):
    if argv == ["--watchdog"]:
        _watch(sys.stdin)
        return 0
    if len(argv) == 2 and argv[0] == "--cleanup":
        print(f"{cleanup(argv[1])} servers stopped")
        return 0
    print("usage: pgserver.py --cleanup FOLDER", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

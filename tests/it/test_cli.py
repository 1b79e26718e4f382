"""The command line as its users meet it: every mistake is one line that says what to do, with the right exit code."""
import json
import os
import re
import signal
import subprocess
import time

import pytest

import kb as kb_module
from kb import BIN, PASSWORD, wait_until


def commands():
    out = subprocess.run([BIN, "--help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(?m)^  ([a-z]+) +[a-z]", out)


ENCODED = "s3cret%2Fword%401"


def assert_report(done, code, text=None, hint=None):
    """One line of error, perhaps one of hint, nothing else that matters; no password."""
    assert done.code == code, done
    assert done.error(), done
    if text:
        assert re.search(text, done.error()), done
    if hint:
        assert re.search(hint, done.hint()), done
    assert PASSWORD not in done.out + done.err and ENCODED not in done.out + done.err


# --- mistakes ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("args, text, hint", [
    ([], "no command given", "--help"),
    (["replicat"], "unknown command replicat", "keybridge replicate"),
    (["replicate", "--sorce", "x"], "unknown option --sorce", "--source"),
    (["replicate", "--lanes", "0"], "--lanes: 0 is less than 1", None),
    (["replicate", "--lanes", "two"], '--lanes: "two" isn\'t a whole number', None),
    (["replicate", "--apply-batch-bytes", "16MB"], "isn't a size such as", None),
    (["replicate", "--apply-retry", "10"], "isn't a time such as", None),
    (["replicate", "--log-level", "loud"], r"isn't one of error\|warn\|info\|debug", None),
    (["replicate", "--lanes"], "--lanes needs a value", None),
    (["replicate", "--lanes=2", "--lanes=2"], "--lanes is given twice", None),
    (["replicate", "--kms-key", "x"], "replicate doesn't take --kms-key", "keybridge help replicate"),
    (["replicate", "now"], "only options can follow", "keybridge help replicate"),
    (["--config", "/nowhere/x.ini", "replicate"], "/nowhere/x.ini: No such file", None),
    (["replicate"], "source", None),
    (["run", "--instance=a", "--kms-key=b", "--ddl-applied=x"], '--ddl-applied: "x" is not an LSN', "pg_current_wal_lsn"),
])
def test_usage_mistakes(kb, args, text, hint):
    assert_report(kb(*args), 2, text, hint)


def test_missing_target(kb):
    assert_report(kb("replicate", env={"KEYBRIDGE_SOURCE": "postgres://u@127.0.0.1:1/x"}), 2, "target")


@pytest.mark.parametrize("lsn", ["0", "zz/1", "1/", "/1", "1/123456789", "1/2 ", "0/0", "-1/2"])
def test_bad_lsn(pair, lsn):
    pair.prepare()
    assert_report(pair.kb.run(*pair.args(f"--start-lsn={lsn}", until=pair.lsn()), env=pair.env()), 2, "start-lsn")
    assert_report(pair.kb.run(*pair.args(f"--until-lsn={lsn}"), env=pair.env()), 2, "until-lsn")


def test_unreadable_configuration(kb, tmp_path):
    path = tmp_path / "odd.ini"
    path.write_text("[apply]\nlanes = 2\nlane = 3\n")
    assert_report(kb("--config", path, "config"), 2, re.escape(f"{path}:3: unknown key lane in [apply]"), "lanes")
    path.write_text("\x7fELF\x00")
    assert_report(kb("--config", path, "config"), 2, "isn't a configuration file|neither")
    path.write_text(f"[aws]\ndb-password = {PASSWORD}\n")
    path.chmod(0o644)
    assert_report(kb("--config", path, "config"), 2, "everybody on this machine can read it", "chmod 600")
    path.chmod(0o600)
    assert kb("--config", path, "config", code=0)
    if os.getuid():
        path.chmod(0)
        assert_report(kb("--config", path, "config"), 2, "Permission denied")


def test_json_errors(kb):
    done = kb("replicate", "--lanes=0", "--json")
    assert_report(done, 2)
    error = done.json()["error"]
    assert error["kind"] == "usage" and error["exit"] == 2 and error["command"] == "replicate"
    assert error["text"] in done.error()


def test_closed_output(kb):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([BIN, "config", "markdown"], stdout=write, stderr=subprocess.PIPE, text=True, env=kb.env,
                          cwd=kb.folder, check=False)
    os.close(write)
    assert done.returncode == 71 and "standard output" in done.stderr
    with open("/dev/full", "w") as full:
        done = subprocess.run([BIN, "config"], stdout=full, stderr=subprocess.PIPE, text=True, env=kb.env, cwd=kb.folder,
                              check=False)
    assert done.returncode == 71 and "No space left" in done.stderr


# --- help and configuration -------------------------------------------------------------------------------------------

def test_help_of_every_command(kb):
    names = commands()
    assert names[-1] == "help" and "replicate" in names and "config" in names
    for name in names:
        for args in ([name, "--help"], ["help", name]) if name != "help" else (["help"], ["--help"]):
            done = kb(*args, code=0)
            assert "usage: keybridge" in done.out and not done.err
            assert max(map(len, done.out.splitlines())) <= 110


def test_version(kb):
    assert re.fullmatch(r"keybridge \d+\.\d+\.\d+(\+g[0-9a-f]+)?\n", kb("--version", code=0).out)


def test_config_shows_origins(kb, tmp_path):
    (tmp_path / "keybridge.ini").write_text("[apply]\nlanes = 3\n[stream]\nslot = a\n")
    done = kb("config", "--json", "--publication=p", code=0, env={"KEYBRIDGE_SLOT": "b", "KEYBRIDGE_SOURCE": f"postgres://u:{ENCODED}@h/d"})
    shown = {(o["section"], o["key"]): (o["value"], o["from"]) for o in done.json()}
    assert shown["apply", "lanes"] == ("3", "keybridge.ini:2")
    assert shown["stream", "slot"] == ("b", "KEYBRIDGE_SLOT")
    assert shown["stream", "publication"] == ("p", "--publication")
    assert shown["source", "dsn"] == ("(secret)", "KEYBRIDGE_SOURCE")
    assert shown["target", "dsn"] == (None, "default")
    assert ENCODED not in done.out + done.err


def test_sample_file_is_read_back(kb, tmp_path):
    sample = kb("config", "ini", code=0).out
    path = tmp_path / "all.ini"
    path.write_text(re.sub(r"(?m)^#([a-z-]+ =)", r"\1", sample))
    shown = kb("--config", path, "config", "--json", code=0).json()
    standard = kb("config", "--json", code=0).json()
    assert [(o["key"], o["value"]) for o in shown if o["key"] != "json"] == \
           [(o["key"], o["value"]) for o in standard if o["key"] != "json"]
    assert sum(o["from"].startswith(str(path)) for o in shown) >= len(shown) - 1


def test_unknown_variable_is_mentioned(kb):
    done = kb("config", code=0, env={"KEYBRIDGE_LANSE": "3"})
    assert "KEYBRIDGE_LANES" in done.err


# --- servers that refuse ----------------------------------------------------------------------------------------------

def test_unreachable_source(kb, pair):
    began = time.monotonic()
    done = kb(*pair.args("--apply-retry=1s", until="0/1"), timeout=30,
              env={**pair.env(), "KEYBRIDGE_SOURCE": f"postgres://u:{ENCODED}@127.0.0.1:9/x"})
    assert_report(done, 4, r"127\.0\.0\.1")
    assert time.monotonic() - began < 20


def test_unreachable_target(kb, pair):
    pair.prepare()
    done = kb(*pair.args("--apply-retry=1s", until=pair.lsn()), timeout=30,
              env={**pair.env(), "KEYBRIDGE_TARGET": f"postgres://u:{ENCODED}@127.0.0.1:9/x"})
    assert_report(done, 5, r"127\.0\.0\.1")


def test_wrong_password(kb, pair):
    pair.prepare()
    wrong = pair.source.dsn.replace(ENCODED, "wr0ng-word")
    for side, code in (("SOURCE", 4), ("TARGET", 5)):
        dsn = (pair.source if side == "SOURCE" else pair.target).dsn.replace(ENCODED, "wr0ng-word")
        done = kb(*pair.args(until=pair.lsn()), timeout=30, env={**pair.env(), f"KEYBRIDGE_{side}": dsn})
        assert_report(done, code, "password authentication failed")
        assert "wr0ng-word" not in done.out + done.err
    assert wrong


def test_missing_slot_and_publication(pair):
    pair.publish()
    assert_report(pair.replicate(), 4, pair.slot)
    pair.make_slot()
    pair.source.sql(f"drop publication {pair.publication}")
    assert_report(pair.replicate(), 4, pair.publication)


def test_missing_database(kb, pair):
    pair.prepare()
    done = kb(*pair.args(until=pair.lsn()), timeout=30,
              env={**pair.env(), "KEYBRIDGE_TARGET": pair.target.dsn.replace(pair.id, "nowhere")})
    assert_report(done, 5, "nowhere")


# --- secrets ----------------------------------------------------------------------------------------------------------

def test_secrets_on_the_command_line_are_masked(pair):
    pair.prepare()
    run = pair.kb.start(*pair.args(f"--source={pair.source.dsn}", "--target", pair.target.dsn, "--log-level=debug"))
    wait_until(pair.slot_active, 20, "the stream")
    shown = run.cmdline()
    assert b"replicate" in shown and ENCODED.encode() not in shown and PASSWORD.encode() not in shown
    done = run.stop()
    assert ENCODED not in done.out + done.err and PASSWORD not in done.out + done.err


def test_release_build_leaves_no_core(pair):
    if kb_module.has_hooks():
        pytest.skip("test builds stay open to debuggers")
    pair.prepare()
    run = pair.start()
    wait_until(pair.slot_active, 20, "the stream")
    with open(f"/proc/{run.pid}/limits") as f:
        assert re.search(r"Max core file size +0 +0", f.read())
    run.stop()


# --- signals ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_in_good_order(pair, number):
    pair.both("create table t (a int primary key)")
    pair.prepare()
    run = pair.start()
    wait_until(pair.slot_active, 20, "the stream")
    pair.source.sql("insert into t select generate_series(1, 100)")
    pair.caught_up()
    run.process.send_signal(number)
    done = run.wait(20)
    assert done.code == 130 or done.code == 0, done
    assert "stopping" in done.err
    wait_until(lambda: not pair.slot_active(), 10, "the slot to be free")
    pair.same()


def test_nohup(pair):
    pair.prepare()
    process = subprocess.Popen(["nohup", BIN, *pair.args()], env={**pair.kb.env, **pair.env()}, cwd=pair.kb.folder,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(pair.slot_active, 20, "the stream")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None and pair.slot_active()
        process.terminate()
        process.wait(20)
    finally:
        process.kill()
        process.wait()

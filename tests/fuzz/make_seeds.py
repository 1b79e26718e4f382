#!/usr/bin/python3
"""Cuts the captures of a real server into seeds for fuzz_pgoutput, one for each transaction or stream block, and writes
the few texts that the other fuzzers start from. The results are committed: run it after the captures were made anew."""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
CAPTURES = os.path.join(HERE, "../unit/captures")
PROTOCOL_2, SPOOLED, WITH_XID, PROTOCOL_3 = 1, 2, 4, 8
MESSAGES_MOST = 12
TEXTS = {
    "position": ["0/0", "16/B374D848", "mysql-bin.000042:1234", "mysql-bin-changelog.1000000:4", "./b.000001, 77"],
    "gtid": ["M3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7|3e11fa4771ca11e19e33c80aa9429562:2-3",
             "M3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:tag:1-3,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:9|"
             "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag:4",
             "a0-1-270,1-1-3|1-2-4,2-1-1", "M|", "a|0-1-1"],
    "ddl": ["Bcreate table t as select 1 with data; select a into x from (select 1) y -- ;", "Ccreate function f() begin atomic select 1; end; "
            "select '\\'';', $a$;$a$, E'\\'', U&\"x\" /* /* */ */",
            'D{"v":1,"event":"ddl_command_end","tag":"ALTER TABLE","query":"begin; alter table t add a int; alter table t add b int","at":"x",'
            '"context":"a\\nSQL statement \\"alter table t add c int\\"\\nPL/pgSQL function x","objects":[{"type":"table","schema":"public",'
            '"name":"public.t","temp":false}],"role":"me","settings":{"search_path":"public"}}'],
    "reader": ["\0\1\2\3\5\4\6\0\7\2\x08\4\xff0123456789abcdef\0ghijklmnop\0"],
}


def messages(path):
    with open(path, "rb") as f:
        data = f.read()
    at = 0
    while at < len(data):
        size = struct.unpack_from(">I", data, at)[0]
        yield data[at + 4:at + 4 + size]
        at += 4 + size


def runs(all_messages):
    """Lists that end outside a transaction; long ones lose their middle, long values stay."""
    run = []
    for m in all_messages:
        run.append(m)
        if m[:1] in b"CEAcPpKr" or (m[:1] == b"M" and len(run) == 1):
            yield run if len(run) <= MESSAGES_MOST else run[:MESSAGES_MOST - 1] + [run[-1]]
            run = []


def write(fuzzer, name, data):
    folder = os.path.join(HERE, "seeds", fuzzer)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def seed(flags, run):
    return bytes([flags]) + b"".join(struct.pack(">H", len(m)) + m for m in run)


def relay_records(run):
    """As a block of a relay log holds them: a connection, messages, a quiet position."""
    return bytes([2]) + b"\3" + bytes(16) + b"".join(b"\1" + struct.pack("<I", len(m)) + m for m in run) + b"\2" + bytes(15) + b"\1"


def main():
    for name, flags in (("v1-text", 0), ("v1-binary", 0), ("v2-text", PROTOCOL_2), ("v2-binary", PROTOCOL_2),
                        ("v3-15", PROTOCOL_3), ("v4-16", PROTOCOL_2 | PROTOCOL_3), ("v4-18", PROTOCOL_2 | PROTOCOL_3)):
        for i, run in enumerate(runs(messages(os.path.join(CAPTURES, f"pgoutput-{name}.bin")))):
            if sum(map(len, run)) > 4096 and "binary" in name:
                continue
            write("pgoutput", f"{name}-{i:02}", seed(flags, run))
            if i % 3 == 0:
                write("relay", f"{name}-{i:02}", relay_records(run))
            inner = [m for m in run if m[:1] in b"ORYIUDTM"]
            xid = WITH_XID if run[0][:1] == b"S" else 0
            if i % 4 == 0:
                write("pgoutput", f"spooled-{name}-{i:02}", seed(flags | SPOOLED | xid, inner))
    for fuzzer, texts in TEXTS.items():
        for i, text in enumerate(texts):
            write(fuzzer, f"{i:02}", text.encode("latin-1"))


main()

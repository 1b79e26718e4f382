"""The lab's snapshots cut where real ones do: a transaction is in the copy exactly when its commit record starts at or before
the position of the copy's `redo done at` line. This is what keybridge's start position relies on."""
import re
import struct
import threading

import pytest

from lab.pgserver import PgServer, free_port, wait_for

CLIENTS = 6


def load(server, stop, done):
    con = server.connect(autocommit=False)
    with con.cursor() as cur:
        while not stop.is_set():
            cur.execute("insert into t (pad) values (repeat('x', %s))", ((done[0] * 7919) % 9000,))
            if done[0] % 7 == 0:
                cur.execute("savepoint s; insert into t (pad) values ('y'); rollback to s")
            con.rollback() if done[0] % 11 == 0 else con.commit()
            done[0] += 1
    con.close()


def committed(server):
    """xid -> start of its commit record, from what pgoutput would send."""
    rows = server.sql("select data from pg_logical_slot_peek_binary_changes('kb', null, null, 'proto_version', '1', "
                      "'publication_names', 'p')")
    begins = [bytes(r[0]) for r in rows if bytes(r[0])[:1] == b"B"]
    return {struct.unpack("!I", b[17:21])[0]: struct.unpack("!Q", b[1:9])[0] for b in begins}


@pytest.mark.parametrize("sync", ["on", "off"])
def test_a_transaction_is_in_the_copy_up_to_redo_done(folder, sync):
    settings = {"wal_level": "logical", "synchronous_commit": sync, "fsync": "off", "checkpoint_timeout": "30s"}
    with PgServer(f"{folder}/src", settings=settings, first_port=20000, last_port=20999) as server:
        server.sql("create table t (x bigint default pg_current_xact_id()::text::bigint, pad text); create publication p for table t")
        server.sql("select pg_create_logical_replication_slot('kb', 'pgoutput')")
        stop, done = threading.Event(), [[0] for _ in range(CLIENTS)]
        threads = [threading.Thread(target=load, args=(server, stop, one)) for one in done]
        for thread in threads:
            thread.start()
        wait_for("a load", lambda: min(d[0] for d in done) > 50)
        copied = server.freeze_copy(f"{folder}/copy")
        at = [d[0] for d in done]
        wait_for("more load", lambda: all(d[0] > a + 20 for d, a in zip(done, at)))
        stop.set()
        for thread in threads:
            thread.join()
        server.sql("set synchronous_commit = on; select pg_logical_emit_message(true, 'x', '')")
        copy = PgServer(copied, port=free_port(20000, 20999), settings={**settings, "max_logical_replication_workers": 0})
        try:
            copy.start()
            high, low = re.search(r"redo done at (\w+)/(\w+) system usage", copy.log_text()).groups()
            redo_done = int(high, 16) << 32 | int(low, 16)
            inside = {r[0] for r in copy.sql("select distinct x from t")}
        finally:
            copy.remove()
        begun = committed(server)
        assert inside == {xid for xid, commit in begun.items() if commit <= redo_done}
        assert any(commit > redo_done for commit in begun.values())

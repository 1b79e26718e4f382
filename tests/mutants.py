#!/usr/bin/env -S /usr/bin/python3 -B
"""Breaks what handles a trap of docs/traps.md, one place at a time, and says whether the trap's test sees it.

    tests/mutants.py            all of them, some hours
    tests/mutants.py 41 42      those of these traps

Each is one line: the trap, `red` (a test failed, as it must) or `GREEN` (none did: the test is too weak, or something else
handles it too), and what was said. Files are put back as they were, whatever happens. Ends with 1 if one was green.
"""
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
B = "build/debug"


class Broken(Exception):
    pass


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def write(path, text):
    with open(os.path.join(ROOT, path), "w", encoding="utf-8") as f:
        f.write(text)


def shell(*command, env=None, timeout=900):
    """Its code and all that it printed; it and its children are gone afterwards."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               env={**os.environ, **(env or {})}, start_new_session=True)
    try:
        return process.communicate(timeout=timeout)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        return process.communicate()[0] + "\nE  not within the time limit", 1


def build(*targets):
    said, code = shell("make", "MODE=debug", "-j2", *targets)
    if code:
        raise Broken("doesn't build: " + next((line for line in said.splitlines() if " error: " in line), said[-200:]))


def run_unit(test):
    """unit/test_x:filter, with a server."""
    binary, _, only = test.removeprefix("unit/").partition(":")
    build(f"{B}/bin/{binary}")
    said, code = shell("tests/unit/with_pg.sh", f"{B}/bin/{binary}", env={"CMOCKA_TEST_FILTER": only or "*", "KB_TEST_PORT": "22177"})
    if " 0 test(s)" in said and not code:
        raise Broken(f"no such test: {test}")
    return code != 0, (re.findall(r"^\[  FAILED  \] (\S+:?.*)$", said, re.M) or ["a crash"])[0]


def run_python(test):
    """it/test_x.py::test_y, behind the servers' versions if they matter: 18:18 it/…"""
    versions, _, name = test.rpartition(" ")
    source, _, target = versions.partition(":")
    env = {"KB_BUILD": f"{ROOT}/{B}", "KB_BIN": f"{ROOT}/{B}/bin/keybridge", **({"KB_PG_SOURCE": source, "KB_PG_TARGET": target} if source else {})}
    build("bin")
    said, code = shell("/usr/bin/python3", "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=240", f"tests/{name}", env=env)
    last = (said.splitlines() or [""])[-1]
    if code not in (0, 1) or not re.search("passed|failed", last):
        raise Broken("the test can't run: " + last)
    why = re.findall(r"^E +(.*)$", said, re.M) or re.findall(r"^(.*Timeout.*)$", said, re.M) or [""]
    return code == 1, why[0]


def try_one(trap, tests, edits):
    kept = {path: read(path) for path, _, _ in edits}
    try:
        for path, old, new in edits:
            text = read(path)
            if text.count(old) != 1:
                raise Broken(f"{path} has {text.count(old)} times: {old}")
            write(path, text.replace(old, new))
        red, why = False, ""
        for test in tests.split(", "):
            red, why = (run_unit if test.startswith("unit/") else run_python)(test)
            if red:
                return "red", f"{test}: {why}"
        return "GREEN", tests
    except Broken as problem:
        return "BROKEN", str(problem)
    finally:
        for path, text in kept.items():
            write(path, text)


def main(wanted):
    green = 0
    for trap, tests, *edits in MUTANTS:
        if wanted and not set(wanted) & set(trap.split()):
            continue
        begun = time.monotonic()
        verdict, why = try_one(trap, tests, edits)
        green += verdict != "red"
        places = ", ".join(path for path, _, _ in edits)
        print(f"{trap:<8} {verdict:<6} {time.monotonic() - begun:4.0f} s  {places}  {why[:160]}", flush=True)
    shell("make", "MODE=debug", "-j2", "tests")             # nothing broken is left where others look for a build
    return 1 if green else 0


SESSION, LANE, ASSEMBLER = "engine/stream/session.c", "engine/stream/lane.c", "engine/stream/assembler.c"
SOURCE, RECEIVER, COMPACT = "engine/stream/source.c", "engine/stream/receiver.c", "engine/stream/compact.c"
DDL, LANE_DDL, CAPTURE = "engine/stream/ddl.c", "engine/stream/lane_ddl.c", "engine/stream/capture.c"
PGOUTPUT = "decoders/pgoutput/pgoutput.c"
TABLE, WRITE, LINK, PG = (f"appliers/postgres/{name}.c" for name in ("table", "write", "link", "pg"))
CONTROL, APPLIER = "appliers/postgres/control.c", "appliers/postgres/applier_pg.c"
SEQUENCES, VERIFY, HASH = (f"engine/check/{name}.c" for name in ("sequences", "verify", "hash"))
REPLICATE, ROWS, SLOTS = "it/test_replicate.py::test_", "it/test_rows.py::test_", "it/test_slots.py::test_"
FENCE, CUT, QUIET = (f"engine/move/{name}.c" for name in ("fence", "cutover", "quiet"))
CUTOVER, MOVE = "move/test_cutover.py::test_", "move/test_move.py::test_"
DDLS, SEQS, VER = "it/test_ddl.py::test_", "it/test_sequences.py::test_", "it/test_verify.py::test_"

# Which trap or traps, the tests that must fail, and what is broken for it: file, old text, new text.
MUTANTS = [
    # --- positions
    # Either half alone changes nothing: the source doesn't send what is before the position that we ask for.
    ("1", REPLICATE + "trap_001_002_many_at_one_position",
     (LANE, "        .end = last->end,", "        .end = last->commit,"),
     (ASSEMBLER, "position_compare(commit, a->conf.progress.applied) > 0 &&", "position_compare(commit, a->conf.progress.applied) >= 0 &&")),
    ("2 5", REPLICATE + "trap_001_002_many_at_one_position, " + REPLICATE + "trap_005_past_the_end",
     (ASSEMBLER, "    saw(a, commit);\n    a->newest_us = commit_time_us;\n    a->in_txn", "    saw(a, (Position){commit.file, commit.at + 64});\n    a->newest_us = commit_time_us;\n    a->in_txn")),
    ("3", REPLICATE + "trap_003_nothing_is_confirmed_early",
     (SESSION, "assembler_confirmable(s->assembler, apply_durable_end(s->apply), s->quiet)", "received(s)")),
    ("3", REPLICATE + "trap_003_nothing_is_confirmed_early",
     (SESSION, "assembler_confirmable(s->assembler, apply_durable_end(s->apply), s->quiet)", "s->quiet")),
    ("4", REPLICATE + "trap_004_the_end_is_when_all_is_durable",
     (SESSION, "if (!s->passed || !nothing_waits(s))", "if (!s->passed)"),
     (SESSION, "return position_compare(apply_durable_end(s->apply), s->pushed) >= 0;", "return true;")),
    ("4", REPLICATE + "trap_004_the_end_survives_a_crash_of_the_target",
     (SESSION, "return position_compare(apply_durable_end(s->apply), s->pushed) >= 0;", "return true;")),
    ("6", "it/test_relay.py::test_the_source_restarts_while_relaying",
     (ASSEMBLER, "    forget_open(a);\n    pgoutput_restart", "    pgoutput_restart")),
    ("7", REPLICATE + "trap_007_message_before_rows",
     (ASSEMBLER, "    txn_add(&a->open, change);\n", "    txn_add(&a->open, change);\n    if (change->kind == CHANGE_MESSAGE)\n        a->skip = true;\n")),
    ("8", "unit/test_assembler:skips_what_the_target_has, " + REPLICATE + "start_position_is_kept",
     (ASSEMBLER, "    a->skip = !is_wanted(a, commit);\n    a->open = (Txn){.xid = xid, .commit = commit, .commit_time_us", "    a->skip |= !is_wanted(a, commit);\n    a->open = (Txn){.xid = xid, .commit = commit, .commit_time_us")),
    ("8", "unit/test_assembler:skips_what_the_target_has",
     (ASSEMBLER, "           position_compare(commit, a->conf.start) >= 0;", "           true;")),
    # --- rows
    ("41", ROWS + "trap_041_042_unchanged_toast",
     (WRITE, "if (!value_is_known(image[i]) || c->generated || stays)", "if (c->generated || stays)")),
    ("41", ROWS + "trap_041_042_unchanged_toast",
     (COMPACT, "        if (value_is_known(new[i]))\n            image[i]", "        image[i]")),
    # Either alone does: the old row has the value, and what isn't known is left out.
    ("42", ROWS + "trap_041_042_unchanged_toast[batched-full]",
     (WRITE, "if (!value_is_known(image[i]) || c->generated || stays)", "if (c->generated || stays)"),
     (PGOUTPUT, "    if (change->old && (kinds & HAS_UNCHANGED))\n        fill_unchanged(rel, new, change->old);\n", "")),
    ("43", "unit/test_pgoutput:*, unit/test_apply_pg:trap_043*",
     (PGOUTPUT, "old[i] = (Value){NULL, 0, VALUE_ABSENT};", "old[i] = (Value){NULL, 0, VALUE_NULL};")),
    ("44", "unit/test_apply_pg:trap_044*",
     (WRITE, "        if (!value_is_known(key[column])) {\n            err_fail(err, ERR_FAITHFUL,\n                     \"%s %s: the value of key", "        if (0) {\n            err_fail(err, ERR_FAITHFUL,\n                     \"%s %s: the value of key")),
    ("46", ROWS + "trap_046_update_that_changes_nothing",
     (WRITE, ": any                  ? PG_UPDATE\n                                       : PG_TOUCH;", ": PG_UPDATE;")),
    ("46", ROWS + "trap_046_update_that_changes_nothing",
     (WRITE, "    return uses_update(job, row->key, row->image, &rekey, err) &&\n           run_one(", "    return uses_update(job, row->key, row->image, &rekey, err) &&\n           (job->verb == PG_TOUCH || run_one("),
     (WRITE, "run_one(job, row->key, row->image, row->txn, err);\n}\n\n/* --- many", "run_one(job, row->key, row->image, row->txn, err));\n}\n\n/* --- many")),
    ("47", ROWS + "trap_047_types_without_equality_under_full",
     (TABLE, 'c->has_equality = strcmp(PQgetvalue(columns, row, 10), "pg_catalog") == 0;', "c->has_equality = true;")),
    ("48", ROWS + "trap_048_floats_and_numerics_under_full",
     (PG, "set extra_float_digits = 3; ", "")),
    # The row's image finds it first, and NULLs are equal in images.
    ("49", ROWS + "trap_049_null_under_full",
     (TABLE, 'equality ? " is not distinct from $%d"', 'equality ? " = $%d"'),
     (TABLE, '::pg_catalog.text is not distinct from $%d::pg_catalog.text"', '::pg_catalog.text = $%d::pg_catalog.text"'),
     (TABLE, "for (int branch = 0; branch < 3; branch++) {\n        buf_puts(sql, branch ?", "for (int branch = 1; branch < 3; branch++) {\n        buf_puts(sql, branch > 1 ?")),
    ("50", ROWS + "trap_050_duplicates_under_full",
     (TABLE, 'buf_puts(sql, " limit 1)");', 'buf_puts(sql, ")");'),
     (TABLE, 'buf_puts(sql, " limit 1) ");', 'buf_puts(sql, ") ");')),
    ("51", ROWS + "trap_051_a_row_is_missing",
     (LINK, "    if (rows != e->rows)\n        return miscounted(e, rows, err);\n", "    (void)miscounted;\n")),
    ("54", ROWS + "trap_054_deferrable_unique, unit/test_apply_pg:*deferr*",
     (LANE, "    if (plan->deferrable && !ops->check_deferred(lane->applier, err))\n        return false;\n    return ops->progress", "    return ops->progress")),
    ("55", ROWS + "trap_055_unique_value_moves, it/test_lanes.py",
     (TABLE, "            can = add_unique(t, c, row, &uniques[t->base.unique_count++]);", "            (void)add_unique;")),
    ("56", ROWS + "trap_056_generated_always_identity",
     (TABLE, '") overriding system value values ("', '") values ("')),
    ("56", ROWS + "trap_056_generated_always_identity",
     (TABLE, "c->always = cell_true(columns, row, 4);", "c->always = false;")),
    ("57", ROWS + "trap_057_generated_columns, 18:18 " + ROWS + "published_generated_columns",
     (TABLE, "c->generated = cell_true(columns, row, 3);", "c->generated = false;")),
    # --- TRUNCATE, partitions, triggers
    ("75", ROWS + "trap_075_cascade_to_a_table_that_is_not_published",
     (WRITE, 'change->cascade ? " cascade" : ""', '""')),
    ("75", ROWS + "truncate_restarts_the_targets_sequence",
     (WRITE, 'change->restart_identity ? " restart identity" : ""', '""')),
    ("75", ROWS + "trap_075_rows_before_it_are_written_before_it",
     (LANE, "return walk_flush(w, true, err) && truncate_tables(", "return truncate_tables(")),
    ("76", ROWS + "trap_076_partitions",
     (TABLE, "    if (!t->partitioned)\n", "")),
    ("78", REPLICATE + "trap_078_what_the_stream_does_not_carry_is_said",
     ("engine/cmd/replicate.c", 'log_info("not carried by the stream"', 'log_debug("not carried by the stream"')),
    ("79", "it/test_streaming.py::test_trap_079_streamed_with_savepoints_then_aborted",
     (ASSEMBLER, "    if (xid == subxid) {\n        stream_free(a, s);", "    if (xid == subxid) {")),
    ("79", "it/test_streaming.py::test_trap_079_streamed_with_savepoints_then_aborted, it/test_streaming.py::test_several_at_once_with_rolled_back_savepoints",
     (ASSEMBLER, "        id->marked = true;", "        id->marked = false;")),
    ("80", "it/test_twophase.py::test_trap_080_prepared_before_the_end",
     (ASSEMBLER, "    return prepared_hold(&a->prepared, durable);", "    return durable;")),
    ("81", ROWS + "trap_081_always_triggers",
     (TABLE, "t->base.triggers = cell_true(res, 0, 2);", "t->base.triggers = false;")),
    ("81", ROWS + "ordinary_triggers_stay_quiet",
     (APPLIER, "return be_replica(a, err) &&", "return be_replica && ")),
    ("81", ROWS + "trap_081_row_security_of_a_plain_user",
     (PG, '"set row_security = off; ', '"')),
    # --- DDL
    ("31", "unit/test_source:*", (SOURCE, "[15] = 13", "[15] = 14")),
    ("32", DDLS + "trap_032_columns_change_between_rows",
     (PGOUTPUT, "    if (known && span_equal(span_of(known->rel->raw.at + 1, known->rel->raw.len - 1), body))", "    if (known)")),
    ("33", DDLS + "trap_033_column_only_on_the_source",
     (TABLE, "    if (!c.indexes || !missing_columns(t, c.columns, err))", "    (void)missing_columns;\n    if (!c.indexes)"),
     (TABLE, "        int row = row_of_column(columns, rel->columns[i].name);\n        char typtype", "        int row = row_of_column(columns, rel->columns[i].name) < 0 ? 0 : row_of_column(columns, rel->columns[i].name);\n        char typtype")),
    ("34", DDLS + "trap_034_enum_value",
     (DDL, "    if (note)\n        return;\n    if (found", '    if (note || strcmp(m->tag, "ALTER TYPE") == 0)\n        return;\n    if (found')),
    ("35", DDLS + "trap_035_replica_identity",
     (DDL, "    if (note)\n        return;\n    if (found", '    if (note || strcmp(m->tag, "ALTER TABLE") == 0)\n        return;\n    if (found')),
    ("35", DDLS + "trap_035_replica_identity",
     (LANE_DDL, "        own->stale = true;", "        own->stale = false;"),
     (LANE_DDL, "    if (lane->altered)\n        apply_forget_tables(lane->apply);\n", "")),
    ("36", DDLS + "trap_036_new_partition",
     (DDL, "    if (note)\n        return;\n    if (found", '    if (note || strcmp(m->tag, "CREATE TABLE") == 0)\n        return;\n    if (found')),
    ("37", DDLS + "trap_037_new_table_with_rows",
     (DDL, "    if (note)\n        return;\n    if (found", '    if (note || strcmp(m->tag, "CREATE TABLE") == 0)\n        return;\n    if (found')),
    ("32", DDLS + "trap_032_columns_change_between_rows",
     (LANE, "               (walk_flush(w, true, err) && lane_ddl(w->lane, change, w->txn, false, err));", "               lane_ddl(w->lane, change, w->txn, false, err);"),
     ),
    ("37", DDLS + "rows_of_create_table_as",
     (DDL, "    if (!sql_put_empty(statement, m->escapes, &text, &temporary))", "    buf_put_span(&text, statement);\n    if (0)")),
    ("38", DDLS + "trap_038_ddl_inside_functions",
     (DDL, "    return nested_text(m, callers, &text) ? find_in(m, text, true, statement) : FOUND_NOT;", "    (void)nested_text, (void)text;\n    return find_in(m, m->query, false, statement);")),
    ("38", DDLS + "trap_038_ddl_inside_an_sql_function_stops",
     (DDL, '        stop(action, "the statement\'s own text can\'t be told from what the client sent");', "        return;")),
    ("39", ROWS + "trap_039_look_alike_names",
     (TABLE, '" where n.nspname = $1 and c.relname = $2"', '" where n.nspname = $1 and lower(c.relname) = lower($2)"')),
    ("40", DDLS + "trap_040_look_alikes", (CAPTURE, "('search_path'), ('TimeZone')", "('TimeZone')")),
    ("40", DDLS + "a_role_without_rights_on_our_schema",
     (CAPTURE, '"  if tg_event operator(pg_catalog.=) \'sql_drop\' then', '"  if tg_event = \'sql_drop\' then')),
    # --- sequences
    ("83", SEQS + "trap_83_first_insert_after_the_move", (SEQUENCES, "    if (sync && (!raise_all(", "    if (0 && (!raise_all(")),
    ("84", SEQS + "trap_84_a_target_that_is_ahead_stays", (SEQUENCES, "           ahead(&s->before, &s->source) > 0 && fits", "           ahead(&s->before, &s->source) != 0 && fits")),
    ("86", SEQS + "trap_86_every_kind_is_raised_exactly", (SEQUENCES, 'comma, items[i].source.is_called ? "t" : "f");', 'comma, "t");')),
    ("86", SEQS + "trap_86_every_kind_is_raised_exactly", (SEQUENCES, "    if (down)\n        order = -order;\n", "")),
    ("86", SEQS + "trap_86_every_kind_is_raised_exactly", (SEQUENCES, "        if (list->items[i].state.is_called)\n            continue;\n", "        if (1)\n            continue;\n")),
    ("86", SEQS + "a_cycle_that_started_over", (SEQUENCES, "if (order && a->cycle)", "if (0)")),
    ("86", SEQS + "head_room", (SEQUENCES, "s->column_most && s->column_most < state->most ? s->column_most : state->most;", "state->most;")),
    ("88", SEQS + "trap_88_five_thousand", (SEQUENCES, "(in_union + 1) % PER_UNION;\n    }\n}\n\nstatic bool send", "in_union + 1;\n    }\n}\n\nstatic bool send")),
    # --- the start and the slot
    ("14", SLOTS + "trap_014_promoted_standby_without_the_slot", (SESSION, "    if (!s->stream->relay && s->facts.confirmed > start->at)\n        return slot_is_ahead(s, *start, known, err);\n", "    (void)slot_is_ahead;\n")),
    ("14", "17:17 " + SLOTS + "trap_014_failover_slot_survives", (SOURCE, "    if (facts->is_standby && truth(res, SLOT_SYNCED))\n        return slot_is_synced(slot, err);\n", "    (void)slot_is_synced;\n")),
    ("21 23", REPLICATE + "trap_021_start_position_before_the_slot", (SESSION, "    if (!s->stream->relay && s->facts.confirmed > start->at)\n        return slot_is_ahead(s, *start, known, err);\n", "    (void)slot_is_ahead;\n")),
    ("21", REPLICATE + "trap_021_start_position_in_the_future", (SESSION, "    if (start->at > s->facts.flushed) {", "    if (0) {")),
    ("28", REPLICATE + "trap_028_stalled_target_keeps_the_connection", (SESSION, "    if (s->answer_now || since >= status_ms(s) ||\n", "    if (\n")),
    ("28", "it/test_relay.py::test_trap_028_a_target_that_is_stopped", (RECEIVER, "    if (r->answer_now || since >= status_ms(r) ||\n", "    if (\n")),
    ("29", SLOTS + "trap_029_no_setting_is_unknown_to_the_servers", (PG, "return pg->version < 170000 || pg_exec", "return pg_exec")),
    # --- verification
    ("161", VER + "trap_161_equal_changes_do_not_cancel", (VERIFY, "        part->sum.sum[0] += sum->sum[0];\n        part->sum.sum[1] += sum->sum[1];", "        part->sum.sum[0] ^= 0;\n        part->sum.sum[1] ^= 0;")),
    ("161", VER + "trap_161_equal_changes_do_not_cancel, " + VER + "planted_differences", (HASH, 'buf_puts(sql, "array[int8send(hash_array_extended(");\n    hash_put_columns(sql, table, portable);\n    buf_puts(sql, ",0))]");', "hash_put_columns(sql, table, portable);")),
    ("162", VER + "trap_162_a_read_error_is_an_error", (VERIFY, "    } else if (!err_is_set(&part->err)) {\n        part->err = *err;\n    }", "    }")),
    ("163", VER + "trap_163_sort_order_differs_between_the_sides", (HASH, "        column_put_bytes(sql, &table->columns[table->key[i]], portable);", '        buf_puts(sql, "textsend(lower(t.");\n        pg_put_name(sql, table->columns[table->key[i]].name);\n        buf_puts(sql, "::text))");')),
    ("164", VER + "trap_164_extra_rows_only_on_the_target", (VERIFY, "row_sum_equal(check.sum[0], check.sum[1])", "(check.sum[0].rows <= check.sum[1].rows)")),
    ("165", "it/test_verify_stream.py::test_trap_165_hot_rows_under_load", ("engine/stream/pause.c", "return pause->state == STATE_HOLD || position_compare(batch->first->commit, pause->limit) >= 0;", "return false;")),
    ("166", VER + "trap_166_tables_without_a_key_are_multisets", (VERIFY, "        if (outs[count].verdict == VERIFY_EQUAL)\n            run->works", "        if (outs[count].verdict == VERIFY_EQUAL && !outs[count].keyless)\n            run->works")),
    ("170", VER + "trap_170_counts_are_the_tables", (VERIFY, "part->sum.rows += sum->rows;", "part->sum.rows = sum->rows;")),
    # --- the copy and the cut-over
    ("19", "it/test_refusals.py::test_trap_019_slot_older_than_its_publication",
     ("engine/stream/walsender.c", 'if (strcmp(err->code, "42704") == 0)', "if (0)")),
    ("145", CUTOVER + "idle_transaction_in_the_way_is_named", (FENCE, '                    "share row exclusive", busy, err);', '                    "access share", busy, err);')),
    ("149", CUTOVER + "cutover_runs_the_stream_itself", (FENCE, 'fence->holders[i].db.name, "false", err))', 'fence->holders[i].db.name, "true", err))')),
    ("149", CUTOVER + "sequences_advanced_without_tables_are_not_lost", (FENCE, " where datname = any($1::text[]) and backend_type not in", " where usename = 'app' and datname = any($1::text[]) and backend_type not in")),
    ("87", CUTOVER + "sequences_advanced_without_tables_are_not_lost", (CUT, '    if (!sync_sequences(cut, "sequences_again", err))\n        return false;\n', "")),
    ("151", CUTOVER + "idle_transaction_in_the_way_is_named", (FENCE, "if (busy && mono_ms() < deadline) {", "if (busy) {")),
    ("152", CUTOVER + "killed_at_each_step", (CUT, '    if (!move_put(cut->move, "", "cutover", "closing", err))\n        return false;\n', "")),
    ("152", CUTOVER + "killed_at_each_step", (CUT, '    if (!move_put(move, "", "cutover", "opening", err))\n        return undo(cut, err);\n', "")),
    ("153", CUTOVER + "trap_153_a_drain_that_never_ends", (CUT, "cut->locks.asked_us / 1000 + cut->move->conf->cutover_timeout;", "UINT64_MAX / 2;")),
    ("154", "unit/test_refused:*", ("engine/move/refused.c", "    *count += 1;", "    *count += 0;")),
    ("20", MOVE + "trap_020_a_snapshot_of_another_run_is_refused", ("engine/move/seat.c", "    if (found && strcmp(found, marker) == 0)", "    if (found)")),
    ("25", MOVE + "copied_subscriptions_slots_and_prepared_transactions_are_quieted", (QUIET, "still_jobs(pg, note, &report->jobs, err) && drop_publication(pg, publication, err);", "still_jobs(pg, note, &report->jobs, err) && (drop_publication || publication);")),
    ("25", MOVE + "copied_subscriptions_slots_and_prepared_transactions_are_quieted", (QUIET, "t.tgenabled in ('A', 'R') and not", "t.tgenabled in ('X') and not")),
    ("26", MOVE + "trap_026_cron_jobs_stand_still_on_the_copy", (QUIET, "           still_jobs(pg, note, &report->jobs, err) && drop", "           (still_jobs || note) && drop")),
    ("17", MOVE + "trap_017_prepared_transactions_from_the_slot_to_the_switch", ("engine/move/origin.c", "' s', prepared from pg_prepared_xacts) o\"", "' s', prepared from pg_prepared_xacts where false) o\"")),
    ("77", MOVE + "trap_077_what_rows_do_not_show_is_found_before_the_cut_over", (CUT, "        !definitions_check(move, err))", "        0)")),
    ("150", MOVE + "stops_before_the_cut_over_and_goes_on", (QUIET, '" set default_transaction_read_only = on", err) ||', '" reset default_transaction_read_only", err) ||')),
    ("155", MOVE + "stops_before_the_cut_over_and_goes_on", ("engine/move/tidy.c", "return move_source(tidy->move, NULL, &pg, err) && origin_drop_slot", "return move_source(tidy->move, db, &pg, err) && origin_drop_slot")),
]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

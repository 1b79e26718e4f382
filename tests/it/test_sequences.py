"""keybridge sequences on real servers (traps 83 to 88)."""
import time


def run(pair, what, *more, code=0):
    return pair.command("sequences", what, "--json", *more, code=code).json()["databases"][0]


def by_name(result):
    return {s["name"]: s for s in result["sequences"]}


KINDS = """
create schema other;
create table ident (id int generated always as identity, v text);
create table ser (id bigserial, v text);
create sequence alone;
create sequence other.alone increment 5 start 100;
create sequence cached cache 50;
create sequence down increment -1;
create sequence down_bounded increment -2 minvalue -100 maxvalue -1 start -1;
create sequence small as smallint start 32000;
create sequence cyc minvalue 1 maxvalue 10 cycle;
create sequence never;
create sequence never_but_set;
create sequence once_called;
create sequence "Odd ""seq";
create table renamed_t (id serial); alter sequence renamed_t_id_seq rename to after_rename; alter table renamed_t rename to now_so;
"""


def test_trap_86_every_kind_is_raised_exactly(pair):
    pair.both(KINDS)
    pair.source.sql("insert into ident (v) select 'x' from generate_series(1, 7); insert into ser (v) select 'x' from generate_series(1, 9)")
    pair.source.sql("insert into ser (id) values (5000); delete from ser where id = 9")       # trap 85: MAX(id) tells nothing
    for name, calls in (("alone", 3), ("other.alone", 2), ("cached", 1), ("down", 4), ("down_bounded", 2), ("small", 5), ("once_called", 1),
                        ('"Odd ""seq"', 2), ("after_rename", 6), ("cyc", 4)):
        for _ in range(calls):
            pair.source.sql(f"select nextval('{name}')")
    pair.source.sql("select setval('never_but_set', 77, false)")
    wrong = run(pair, "check", code=1)
    assert by_name(wrong)["ident_id_seq"]["verdict"] == "behind" and by_name(wrong)["ident_id_seq"]["identity"]
    assert by_name(wrong)["ser_id_seq"]["owned_by"] == "public.ser.id" and by_name(wrong)["alone"]["owned_by"] is None
    assert by_name(wrong)["never"]["verdict"] == "equal"
    assert wrong["different"] == 13
    done = run(pair, "sync")
    assert done["raised"] == 13 and done["different"] == 0
    assert pair.source.sequences() == pair.target.sequences()
    assert by_name(done)["ser_id_seq"]["after"]["last_value"] == 9
    assert by_name(done)["never_but_set"]["after"] | {"last_value": 77, "is_called": False} == by_name(done)["never_but_set"]["after"]
    assert {s["verdict"] for s in done["sequences"]} == {"equal"}
    assert run(pair, "check")["different"] == 0
    assert run(pair, "sync")["raised"] == 0, "nothing is left to raise"


def test_trap_83_first_insert_after_the_move(pair):
    pair.both("create table t (id serial primary key, v text)")
    pair.source.sql("insert into t (v) select 'x' from generate_series(1, 50)")
    pair.target.sql("insert into t (id, v) select k, 'x' from generate_series(1, 50) k")      # as a stream would
    run(pair, "sync")
    assert pair.target.one("insert into t (v) values ('first') returning id") == 51


def test_trap_84_a_target_that_is_ahead_stays(pair):
    pair.both("create sequence up; create sequence down increment -1; create sequence same")
    pair.source.sql("select setval('up', 10); select setval('down', -10); select setval('same', 5, false)")
    pair.target.sql("select setval('up', 50); select setval('down', -50); select setval('same', 5, true)")
    done = run(pair, "sync")
    assert done["raised"] == 0 and done["different"] == 0
    assert pair.target.sequences() == {"public.up": (50, True), "public.down": (-50, True), "public.same": (5, True)}
    assert {s["verdict"] for s in done["sequences"]} == {"ahead"}


def test_not_called_yet_counts(pair):
    """5 not called hands out 5; 5 called hands out 6."""
    pair.both("create sequence s")
    pair.source.sql("select setval('s', 5, true)")
    pair.target.sql("select setval('s', 5, false)")
    assert run(pair, "sync")["raised"] == 1
    assert pair.target.one("select nextval('s')") == 6


def test_a_cycle_that_started_over(pair):
    pair.both("create sequence c minvalue 1 maxvalue 1000 cycle; create sequence d minvalue 1 maxvalue 1000 cycle")
    pair.source.sql("select setval('c', 3); select setval('d', 500)")
    pair.target.sql("select setval('c', 998); select setval('d', 510)")
    done = by_name(run(pair, "sync"))
    assert done["c"]["raised"] and done["c"]["after"]["last_value"] == 3, "3 is five in front of 998, not 995 behind"
    assert not done["d"]["raised"] and done["d"]["verdict"] == "ahead"


def test_trap_87_a_value_taken_after_the_reading_shows(pair):
    pair.both("create sequence s")
    pair.source.sql("select nextval('s')")
    run(pair, "sync")
    pair.source.sql("select nextval('s')")
    assert by_name(run(pair, "check", code=1))["s"]["verdict"] == "behind"


def test_missing_extra_and_other_definitions(pair):
    pair.source.sql("create sequence gone; create sequence step increment 2; create sequence narrow; create sequence turned")
    pair.target.sql("create sequence more; create sequence step increment 3; create sequence narrow as smallint; create sequence turned increment -1")
    pair.source.sql("select setval('step', 11); select setval('narrow', 100000); select setval('turned', 9)")
    done = by_name(run(pair, "sync", code=1))
    assert done["gone"]["verdict"] == "missing" and done["gone"]["before"] is None
    assert done["more"]["verdict"] == "extra"
    assert done["step"]["verdict"] == "defined otherwise" and done["step"]["raised"] and done["step"]["after"]["last_value"] == 11
    assert not done["narrow"]["raised"] and done["narrow"]["verdict"] == "defined otherwise", "100000 doesn't fit"
    assert not done["turned"]["raised"], "it counts the other way"


def test_head_room(pair):
    pair.both("create table t (id smallserial); create table u (id serial); create sequence wide; alter table u alter id type int;"
              "create sequence big_for_int; create table v (id int default nextval('big_for_int')); alter sequence big_for_int owned by v.id")
    pair.source.sql("select setval('t_id_seq', 32000); select setval('wide', 1000); select setval('big_for_int', 2147480000)")
    done = pair.command("sequences", "sync", "--json", code=0)
    r = done.json()["databases"][0]
    assert r["nearly_full"] == 2
    assert by_name(r)["t_id_seq"]["used_percent"] > 97 and by_name(r)["wide"]["used_percent"] < 1
    assert by_name(r)["big_for_int"]["used_percent"] > 99, "the column is an int, whatever the sequence could count to"
    assert done.err.count("nearly used up") == 2


def test_text_output_and_codes(pair):
    pair.both("create sequence s")
    pair.source.sql("select nextval('s')")
    done = pair.command("sequences", "check", code=1)
    assert "public.s" in done.out and "behind" in done.out and "sync" in done.hint()
    assert "raised" in pair.command("sequences", "sync", code=0).out
    assert pair.command("sequences", code=2).hint()
    assert pair.command("sequences", "set", code=2).hint()


def test_trap_88_five_thousand(pair):
    make = "do $$ begin for i in 1..5000 loop execute format('create sequence s%s', i); end loop; end $$"
    for part in range(10):
        pair.both(make.replace("1..5000", f"{part * 500 + 1}..{part * 500 + 500}"))
    pair.source.sql("select setval(oid::regclass, 1 + oid::int % 100) from pg_class where relkind = 'S' and oid::int % 2 = 0")
    from_s = time.monotonic()
    done = run(pair, "sync")
    whole = time.monotonic() - from_s
    assert done["count"] == 5000 and done["different"] == 0 and done["raised"] > 2000
    print(f"5,000 sequences: both sides read in {done['read_us'] / 1000:.0f} ms, set and read back in "
          f"{done['total_us'] / 1000:.0f} ms in all, {whole * 1000:.0f} ms with start and connections")
    assert done["total_us"] < 3_000_000, "0.5 s on a quiet machine"


def test_no_sequences(pair):
    assert run(pair, "check")["count"] == 0

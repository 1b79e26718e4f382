"""verify --definitions: what rows don't show, compared on both sides."""
import pytest

MANY = """
create extension if not exists citext;
create type s.mood as enum ('sad', 'ok');
create domain s.pos as int check (value > 0);
create type s.fr as range (subtype = float8);
create table s.t (id int generated always as identity primary key, a text default 'x' not null, b numeric(10,2), m s.mood, p s.pos,
 g int generated always as (1 + 1) stored, unique (a), check (b > 0)) with (fillfactor = 70);
create index t_b on s.t (b desc) where b > 1;
create table s.part (k int, v text) partition by range (k);
create table s.part_1 partition of s.part for values from (0) to (10);
create view s.v as select id from s.t;
create materialized view s.mv as select 1 as one;
create sequence s.q increment 5 cache 3 cycle maxvalue 99;
create function s.f(int) returns int language sql as 'select $1';
create procedure s.pr() language plpgsql as 'begin null; end';
create aggregate s.agg (int) (sfunc = int4pl, stype = int);
create function s.trg() returns trigger language plpgsql as 'begin return new; end';
create trigger tr before insert on s.t for each row execute function s.trg();
create rule ru as on delete to s.part do instead nothing;
alter table s.t enable row level security;
create policy po on s.t for select to public using (id > 0);
create statistics s.st on a, b from s.t;
create event trigger et on ddl_command_start when tag in ('DROP SCHEMA') execute function s.evt();
comment on table s.t is 'not compared';
"""
EVENT = "create schema s; create function s.evt() returns event_trigger language plpgsql as 'begin end';"

# what is done on one side only -> the kind and name that must be reported
CHANGES = [
    ("create schema other", "schema", "other"),
    ("create table s.u (a int)", "table", "s.u"),
    ("alter table s.t set (fillfactor = 80)", "table", "s.t"),
    ("alter table s.t replica identity full", "table", "s.t"),
    ("alter table s.t add column n int", "column", "s.t.n"),
    ("alter table s.t alter b type numeric(12,2)", "column", "s.t.b"),
    ("alter table s.t alter a set default 'y'", "column", "s.t.a"),
    ("alter table s.t alter a drop not null", "column", "s.t.a"),
    ("alter table s.t add constraint more check (id < 1000)", "constraint", "s.t more"),
    ("create index t_a on s.t (a)", "index", "s.t_a"),
    ("create or replace view s.v as select id + 1 as id from s.t", "view", "s.v"),
    ("refresh materialized view s.mv with no data", "view", "s.mv"),
    ("alter sequence s.q increment 6", "sequence", "s.q"),
    ("create or replace function s.f(int) returns int language sql as 'select $1 + 1'", "function", "s.f(integer)"),
    ("create trigger tr2 before insert on s.t for each row execute function s.trg()", "trigger", "s.t tr2"),
    ("drop rule ru on s.part", "rule", "s.part ru"),
    ("alter policy po on s.t using (id > 1)", "policy", "s.t po"),
    ("alter type s.mood add value 'glad'", "type", "s.mood"),
    ("alter domain s.pos add constraint big check (value < 9)", "type", "s.pos"),
    ("drop extension citext", "extension", "citext"),
    ("drop statistics s.st", "statistics", "s.st"),
    ("grant select on s.t to public", "rights on relation", "s.t"),
    ("grant update (a) on s.t to public", "rights on column", "s.t.a"),
    ("grant usage on schema s to public", "rights on schema", "s"),
    ("revoke execute on function s.f(int) from public", "rights on function", "s.f(integer)"),
    ("grant usage on type s.mood to public", "rights on type", "s.mood"),
    ("alter default privileges in schema s grant select on tables to public", "default rights", "postgres s r"),
    ("create publication pub for table s.t", "publication", "pub"),
    ("drop event trigger et", "event trigger", "et"),
    ("select lo_create(4711)", "large objects", "all of them"),
]


def definitions(pair, code):
    return pair.command("verify", "--definitions", "--json", code=code).json()["definitions"]


@pytest.fixture
def many(pair):
    pair.both(EVENT)
    pair.both(MANY)
    return pair


def test_a_copy_has_no_differences(many):
    assert definitions(many, 0) == []


def test_every_change_is_named(many):
    for sql, _, _ in CHANGES:
        many.source.sql(sql)
    got = {(d["kind"], d["name"]): d for d in definitions(many, 1)}
    for sql, kind, name in CHANGES:
        assert (kind, name) in got, (sql, sorted(got))
        assert got[kind, name]["source"] != got[kind, name]["target"]
    assert "type s.mood: " in many.command("verify", "--definitions", code=1).out
    for sql, _, _ in CHANGES:
        many.target.sql(sql)
    assert definitions(many, 0) == []


def test_roles_and_settings_of_the_server(pair):
    role = f"kb_role_{pair.source.name}"
    pair.source.sql(f"create role {role} login connection limit 3")
    pair.source.sql(f"alter role {role} set work_mem = '7MB'; grant pg_monitor to {role}")
    try:
        got = {(d["kind"], d["name"]): d for d in definitions(pair, 1)}
        assert got[("role", role)]["target"] is None and "limit 3" in got[("role", role)]["source"]
        assert ("membership", f"{role} in pg_monitor") in got and "work_mem=7MB" in got[("settings of", role)]["source"]
        assert all(d["database"] == "" for d in got.values())
    finally:
        pair.source.sql(f"drop role {role}")
    assert definitions(pair, 0) == []

#include "engine/check/drift.h"

/* One kind of thing: rows of (name, definition). `since`: the first version that has it. */
typedef struct Kind {
    const char *name;
    int since;
    const char *sql;
} Kind;

#define USERS_OWN(n)                                                                     \
    " (" n ".nspname not in ('information_schema', 'keybridge', 'rdsadmin', 'rdstools')" \
    " and " n ".nspname !~ '^pg_') "
#define NOT_OF_EXTENSION(class, oid)                                 \
    " not exists (select from pg_depend x where x.classid = '" class \
        "'::regclass and x.objid = " oid " and x.deptype = 'e') "
#define REL       "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
#define SORTED(a) "array_to_string(array(select i::text from unnest(" a ") i order by 1), ', ')"
#define OWNER(o)  "'owner ' || quote_ident(pg_get_userbyid(" o "))"
#define CLASSES   " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
/* pg_attver is an option that 15.20 writes on every new column, and no other version knows. */
#define COLUMN_OPTIONS                                                                    \
    "array_to_string(array(select o from unnest(a.attoptions) o where o !~ '^pg_attver='" \
    " order by 1), ', ')"

#define COLUMNS(generated)                                                                                                    \
    "select " REL                                                                                                             \
    " || '.' || quote_ident(a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),"                                 \
    " case when a.attnotnull then 'not null' end, case when a.attidentity <> '' then 'identity ' || a.attidentity::text end," \
    " " generated ", 'default ' || pg_get_expr(d.adbin, d.adrelid), 'collate ' || k.collname,"                                \
    " 'storage ' || a.attstorage::text, nullif(" COLUMN_OPTIONS ", ''))" CLASSES                                              \
    " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"                                      \
    " left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum"                                                     \
    " left join pg_collation k on k.oid = a.attcollation"                                                                     \
    " where c.relkind in ('r', 'p', 'f', 'c') and c.relpersistence <> 't' and" USERS_OWN("n")

static const Kind database_kinds[] = {
    {"schema", 0,
     "select quote_ident(n.nspname), " OWNER("n.nspowner") " from pg_namespace n where" USERS_OWN(
         "n")},
    {"table", 0,
     "select " REL
     ", concat_ws(', ', case c.relkind when 'p' then 'partitioned by ' || pg_get_partkeydef(c.oid)"
     " when 'f' then 'foreign' when 'c' then 'type' else 'table' end, case c.relpersistence when 'u' then 'unlogged' end,"
     " 'replica identity ' || c.relreplident::text, case when c.relrowsecurity then 'row security' end,"
     " case when c.relforcerowsecurity then 'forced' end, pg_get_expr(c.relpartbound, c.oid),"
     " (select string_agg(i.inhparent::regclass::text, ' ' order by i.inhseqno) from pg_inherits i where i.inhrelid ="
     " c.oid), nullif(" SORTED("c.reloptions") ", ''), " OWNER(
         "c.relowner") ")" CLASSES
                       " where c.relkind in ('r', 'p', 'f', 'c') and c.relpersistence <> 't' and" USERS_OWN(
                           "n")},
    {"column", 120000,
     COLUMNS("case when a.attgenerated <> '' then 'generated ' || a.attgenerated::text end")},
    {"column", -120000, COLUMNS("null")},
    {"constraint", 0,
     "select " REL " || ' ' || quote_ident(k.conname), pg_get_constraintdef(k.oid)" CLASSES
     " join pg_constraint k on k.conrelid = c.oid where" USERS_OWN("n")},
    {"index", 0,
     "select " REL
     ", concat_ws(' ', pg_get_indexdef(i.indexrelid), case when not i.indisvalid then '(not valid)' end,"
     " case when i.indisreplident then '(replica identity)' end)" CLASSES
     " join pg_index i on i.indexrelid = c.oid where" USERS_OWN("n")},
    {"view", 0,
     "select " REL
     ", concat_ws(', ', 'md5 ' || md5(pg_get_viewdef(c.oid)), case when c.relkind = 'm' then"
     " 'materialized' end, case when not c.relispopulated then 'without data' end, nullif(" SORTED(
         "c.reloptions") ", ''), " OWNER("c.relowner") ")" CLASSES
                                                       " where c.relkind in ('v', 'm') and c.relpersistence <> 't' and" USERS_OWN(
                                                           "n") "and" NOT_OF_EXTENSION("pg_class",
                                                                                       "c.oid")},
    {"sequence", 0,
     "select " REL
     ", concat_ws(' ', format_type(s.seqtypid, null), 'start', s.seqstart, 'by', s.seqincrement, 'from',"
     " s.seqmin, 'to', s.seqmax, 'cache', s.seqcache, case when s.seqcycle then 'cycle' end, 'of ' || (select"
     " d.refobjid::regclass || '.' || d.refobjsubid from pg_depend d where d.classid = 'pg_class'::regclass and d.objid ="
     " c.oid and d.deptype in ('a', 'i') and d.refobjsubid > 0 limit 1), " OWNER(
         "c.relowner") ")" CLASSES
                       " join pg_sequence s on s.seqrelid = c.oid where c.relpersistence <> 't' and" USERS_OWN(
                           "n")},
    {"function", 0,
     "select p.oid::regprocedure::text, concat_ws(', ', 'md5 ' || md5(case when p.prokind = 'a' then"
     " coalesce(p.prorettype::regtype::text, '') else pg_get_functiondef(p.oid) end), " OWNER(
         "p.proowner") ") from pg_proc p"
                       " join pg_namespace n on n.oid = p.pronamespace where" USERS_OWN(
                           "n") "and" NOT_OF_EXTENSION("pg_proc", "p.oid")},
    {"trigger", 0, /* whether it is enabled is ours to change while the copy is closed */
     "select " REL " || ' ' || quote_ident(t.tgname), pg_get_triggerdef(t.oid)" CLASSES
     " join pg_trigger t on t.tgrelid = c.oid where not t.tgisinternal and" USERS_OWN("n")},
    {"event trigger", 0,
     "select quote_ident(e.evtname), concat_ws(' ', e.evtevent, e.evtfoid::regproc, nullif(" SORTED(
         "e.evttags") ", '')) from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid join"
                      " pg_namespace n on n.oid = p.pronamespace where n.nspname <> 'keybridge'"},
    {"rule", 0,
     "select " REL
     " || ' ' || quote_ident(r.rulename), concat_ws(' ', pg_get_ruledef(r.oid), r.ev_enabled)" CLASSES
     " join pg_rewrite r on r.ev_class = c.oid where r.rulename <> '_RETURN' and" USERS_OWN("n")},
    {"policy", 0,
     "select " REL
     " || ' ' || quote_ident(p.polname), concat_ws(' ', p.polcmd, case when not p.polpermissive then"
     " 'restrictive' end, 'to', array_to_string(array(select r::regrole::text from unnest(p.polroles) r order by 1), ', '),"
     " 'using ' || pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid))" CLASSES
     " join pg_policy p on p.polrelid = c.oid where" USERS_OWN("n")},
    {"type", 0,
     "select quote_ident(n.nspname) || '.' || quote_ident(t.typname), concat_ws(' ', t.typtype, (select string_agg("
     "quote_literal(e.enumlabel), ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),"
     " nullif(format_type(t.typbasetype, t.typtypmod), '-'), case when t.typnotnull then 'not null' end, 'default ' ||"
     " t.typdefault, (select string_agg(pg_get_constraintdef(k.oid), ' ' order by k.conname) from pg_constraint k where"
     " k.contypid = t.oid), (select 'of ' || format_type(r.rngsubtype, null) from pg_range r where r.rngtypid = t.oid), " OWNER(
         "t.typowner") ") from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.typtype in ('e', 'd', 'r')"
                       " and" USERS_OWN("n") "and" NOT_OF_EXTENSION("pg_type", "t.oid")},
    {"extension", 0,
     "select quote_ident(e.extname), e.extversion || ' in ' || quote_ident(n.nspname) from pg_extension e join"
     " pg_namespace n on n.oid = e.extnamespace"},
    {"statistics", 0,
     "select quote_ident(n.nspname) || '.' || quote_ident(s.stxname), pg_get_statisticsobjdef(s.oid) from pg_statistic_ext s"
     " join pg_namespace n on n.oid = s.stxnamespace where" USERS_OWN("n")},
    {"rights on relation", 0,
     "select " REL ", " SORTED("c.relacl") CLASSES
     " where c.relacl is not null and c.relpersistence <> 't' and" USERS_OWN("n")},
    {"rights on column", 0,
     "select " REL " || '.' || quote_ident(a.attname), " SORTED("a.attacl") CLASSES
     " join pg_attribute a on a.attrelid = c.oid where a.attacl is not null and not a.attisdropped and" USERS_OWN(
         "n")},
    {"rights on schema", 0,
     "select quote_ident(n.nspname), " SORTED(
         "n.nspacl") " from pg_namespace n where n.nspacl is not null and" USERS_OWN("n")},
    {"rights on function", 0,
     "select p.oid::regprocedure::text, " SORTED(
         "p.proacl") " from pg_proc p join pg_namespace n on n.oid ="
                     " p.pronamespace where p.proacl is not null and" USERS_OWN("n")},
    {"rights on type", 0,
     "select quote_ident(n.nspname) || '.' || quote_ident(t.typname), " SORTED(
         "t.typacl") " from pg_type t join"
                     " pg_namespace n on n.oid = t.typnamespace where t.typacl is not null and" USERS_OWN(
                         "n")},
    {"default rights", 0,
     "select concat_ws(' ', quote_ident(pg_get_userbyid(d.defaclrole)), quote_ident(n.nspname), d.defaclobjtype), " SORTED(
         "d.defaclacl") " from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace"},
    {"publication", 0,
     "select quote_ident(p.pubname), concat_ws(' ', p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,"
     " (select md5(string_agg(t.schemaname || '.' || t.tablename, ' ' order by 1)) from pg_publication_tables t where"
     " t.pubname = p.pubname)) from pg_publication p where obj_description(p.oid, 'pg_publication') is distinct from"
     " 'keybridge' and coalesce(obj_description(p.oid, 'pg_publication'), '') !~ '^keybridge '"},
    {"large objects", 0,
     "select 'all of them', concat(count(*), ', ', md5(string_agg(oid || ' ' || pg_get_userbyid(lomowner) || ' ' ||"
     " coalesce(" SORTED(
         "lomacl") ", ''), ',' order by oid))) from pg_largeobject_metadata having count(*) > 0"},
};

static const Kind server_kinds[] = {
    {"role", 0,
     "select quote_ident(rolname), concat_ws(' ', case when rolsuper then 'superuser' end, case when rolinherit then"
     " 'inherit' end, case when rolcreaterole then 'createrole' end, case when rolcreatedb then 'createdb' end,"
     " case when rolcanlogin then 'login' end, case when rolreplication then 'replication' end, case when rolbypassrls then"
     " 'bypassrls' end, 'limit ' || nullif(rolconnlimit, -1), 'until ' || rolvaliduntil) from pg_roles where rolname !~"
     " '^(pg|rds)_' and rolname <> 'rdsadmin'"},
    {"membership", 0,
     "select distinct quote_ident(pg_get_userbyid(member)) || ' in ' || quote_ident(pg_get_userbyid(roleid)),"
     " case when bool_or(admin_option) then 'with admin option' else 'plain' end from pg_auth_members group by member, roleid"},
    {"settings of", 0,
     "select concat_ws(' in ', quote_ident(nullif(pg_get_userbyid(s.setrole), 'unknown (OID=0)')), quote_ident(d.datname)),"
     " array_to_string(array(select i from unnest(s.setconfig) i where i !~ '^default_transaction_read_only=' order by 1),"
     " ', ') from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase where exists (select from unnest("
     "s.setconfig) i where i !~ '^default_transaction_read_only=')"},
    {"database", 0,
     "select quote_ident(datname), concat_ws(', ', pg_encoding_to_char(encoding), datcollate, datctype, 'limit ' ||"
     " nullif(datconnlimit, -1), " OWNER("datdba") ", nullif(" SORTED(
         "datacl") ", '')) from pg_database where datname not in"
                   " ('template0', 'rdsadmin')"},
    {"tablespace", 0,
     "select quote_ident(spcname), " OWNER(
         "spcowner") " from pg_tablespace where spcname !~ '^pg_'"},
};

static bool applies(const Kind *kind, int version)
{
    return kind->since >= 0 ? version >= kind->since : version < -kind->since;
}

static const char *cell(const PGresult *res, int row, int column, Arena *arena)
{
    return arena_strdup(arena, PQgetvalue(res, row, column));
}

static void add(Drift *drift, Arena *arena, DriftItem item)
{
    if (drift->count == drift->room) {
        size_t room = drift->room ? drift->room * 2 : 16;
        DriftItem *items = arena_array(arena, DriftItem, room);

        if (drift->count)
            memcpy(items, drift->items, drift->count * sizeof(*items));
        drift->items = items;
        drift->room = room;
    }
    drift->items[drift->count++] = item;
}

static PGresult *read_kind(Pg *pg, const Kind *kind, Err *err)
{
    AUTO_BUF sql;
    PGresult *res;

    buf_init(&sql, KIB(64));
    buf_printf(&sql,
               "select name collate \"C\", definition from (%s) k (name, definition) order by 1",
               kind->sql);
    res = pg_rows(pg, err, buf_str(&sql));
    if (!res)
        err_context(err, "reading every %s", kind->name);
    return res;
}

/* Both lists are sorted by name, as bytes. */
static void merge(const Kind *kind, const PGresult *a, const PGresult *b, Arena *arena,
                  Drift *drift)
{
    int i = 0, k = 0;

    while (i < PQntuples(a) || k < PQntuples(b)) {
        int order = i == PQntuples(a)   ? 1
                    : k == PQntuples(b) ? -1
                                        : strcmp(PQgetvalue(a, i, 0), PQgetvalue(b, k, 0));
        DriftItem item = {.kind = kind->name};

        if (order == 0 && strcmp(PQgetvalue(a, i, 1), PQgetvalue(b, k, 1)) == 0) {
            i++;
            k++;
            continue;
        }
        item.name = order <= 0 ? cell(a, i, 0, arena) : cell(b, k, 0, arena);
        if (order <= 0)
            item.source = cell(a, i++, 1, arena);
        if (order >= 0)
            item.target = cell(b, k++, 1, arena);
        add(drift, arena, item);
    }
}

static bool compare(Pg *source, Pg *target, const Kind *kinds, size_t count, Arena *arena,
                    Drift *drift, Err *err)
{
    for (size_t i = 0; i < count; i++) {
        AUTO_RESULT a = NULL;
        AUTO_RESULT b = NULL;

        if (!applies(&kinds[i], source->version) || !applies(&kinds[i], target->version))
            continue;
        a = read_kind(source, &kinds[i], err);
        b = a ? read_kind(target, &kinds[i], err) : NULL;
        if (!b)
            return false;
        merge(&kinds[i], a, b, arena, drift);
    }
    return true;
}

bool drift_database(Pg *source, Pg *target, Arena *arena, Drift *drift, Err *err)
{
    return compare(source, target, database_kinds, ARRAY_LEN(database_kinds), arena, drift, err);
}

bool drift_server(Pg *source, Pg *target, Arena *arena, Drift *drift, Err *err)
{
    return compare(source, target, server_kinds, ARRAY_LEN(server_kinds), arena, drift, err);
}

const char *drift_text(const DriftItem *item, Arena *arena)
{
    if (item->source && item->target)
        return arena_printf(arena, "%s %s: \"%.300s\" on the source, \"%.300s\" on the target",
                            item->kind, item->name, item->source, item->target);
    return arena_printf(arena, "%s %s: only on the %s", item->kind, item->name,
                        item->source ? "source" : "target");
}

bool drift_large_objects(Pg *pg, Arena *arena, const char **writes, Err *err)
{
    AUTO_RESULT res = pg_rows(
        pg, err,
        "select n_tup_ins || ' written, ' || n_tup_upd || ' changed, ' || n_tup_del || ' deleted'"
        " from pg_stat_sys_tables where relid = 'pg_catalog.pg_largeobject'::regclass");

    if (!res)
        return false;
    *writes = arena_strdup(arena, PQntuples(res) ? PQgetvalue(res, 0, 0) : "");
    return true;
}

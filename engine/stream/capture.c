/* The function runs in somebody else's transaction, with his rights and his search_path, because
 * both are part of what it has to tell. So:
 *
 * - every name in it, operators too, is written with its schema: a look-alike in front of
 *   pg_catalog is never called, and nobody needs rights on schema keybridge (an event trigger's
 *   function is called without asking for any);
 * - whatever fails in it is caught and becomes a message that says so: it never makes the DDL fail.
 *
 * A message counts as being where its record ends, a row as where its record begins: decoding puts
 * a transaction's subtransactions together by these, and a row that follows at once in another one
 * would come in front of the message. So another record comes behind it: an empty message that
 * nobody reads.
 *
 * SECURITY DEFINER would hide the role, and a pinned search_path the search_path. The triggers'
 * names sort first, so that what another event trigger does comes behind the command that it is
 * for; they fire ALWAYS, also in sessions with session_replication_role = replica. */
#include "engine/stream/capture.h"

#define VERSION "keybridge: tells DDL to the stream, version 1"

/* What can change what a statement means or makes. */
#define SETTINGS                                                                               \
    "('search_path'), ('TimeZone'), ('DateStyle'), ('IntervalStyle'), ('extra_float_digits')," \
    "('bytea_output'), ('lc_monetary'), ('lc_numeric'), ('lc_time'), ('array_nulls'),"         \
    "('xmloption'), ('xmlbinary'), ('backslash_quote'), ('default_text_search_config'),"       \
    "('standard_conforming_strings'), ('transform_null_equals'), ('check_function_bodies'),"   \
    "('default_tablespace'), ('default_table_access_method'), ('default_toast_compression')"

/* A command's text is the client's whole string, which can be long and hold many commands: it is
 * sent once in a row. A setting that ends with the transaction (and goes back with a savepoint, as
 * the messages do) remembers which was the last. */
static const char function_sql[] =
    "create or replace function keybridge.ddl_event() returns pg_catalog.event_trigger"
    " language plpgsql as $keybridge$\n"
    "declare\n"
    " context pg_catalog.text;\n"
    " query pg_catalog.text;\n"
    " digest pg_catalog.text;\n"
    " objects pg_catalog.json;\n"
    " tables pg_catalog.json;\n"
    " missing pg_catalog.json;\n"
    "begin\n"
    " get diagnostics context = pg_context;\n"
    " begin\n"
    "  if tg_event operator(pg_catalog.=) 'sql_drop' then\n"
    "   objects := (select pg_catalog.json_agg(pg_catalog.json_build_object('type', d.object_type,"
    "     'schema', d.schema_name, 'name', d.object_identity, 'temp', d.is_temporary))\n"
    "    from pg_catalog.pg_event_trigger_dropped_objects() d where d.original);\n"
    "  elsif tg_event operator(pg_catalog.=) 'ddl_command_end' then\n"
    "   if (select pg_catalog.bool_and(d.in_extension) from pg_catalog.pg_event_trigger_ddl_commands() d) then\n"
    "    return;\n"
    "   end if;\n"
    "   objects := (select pg_catalog.json_agg(pg_catalog.json_build_object('type', d.object_type,"
    "     'schema', d.schema_name, 'name', d.object_identity,"
    "     'temp', d.schema_name operator(pg_catalog.=) 'pg_temp'))\n"
    "    from pg_catalog.pg_event_trigger_ddl_commands() d);\n"
    "   if tg_tag operator(pg_catalog.=) 'ALTER TABLE' then\n"
    "    with recursive r(id) as (\n"
    "      select d.objid from pg_catalog.pg_event_trigger_ddl_commands() d\n"
    "       where d.classid operator(pg_catalog.=) 1259::pg_catalog.oid\n"
    "      union select i.inhrelid from pg_catalog.pg_inherits i\n"
    "       join r on i.inhparent operator(pg_catalog.=) r.id),\n"
    "     t as (select c.oid, n.nspname, c.relname from r\n"
    "       join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) r.id\n"
    "       join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace)\n"
    "    select (select pg_catalog.json_agg(pg_catalog.json_build_object('schema', t.nspname,"
    "       'table', t.relname)) from t),\n"
    "     (select pg_catalog.json_agg(pg_catalog.json_build_object('schema', t.nspname, 'table', t.relname,"
    "       'column', a.attname, 'value', (a.attmissingval::pg_catalog.text::pg_catalog.text[])[1]))\n"
    "      from t join pg_catalog.pg_attribute a on a.attrelid operator(pg_catalog.=) t.oid\n"
    "      where a.atthasmissing and not a.attisdropped)\n"
    "    into tables, missing;\n"
    "   end if;\n"
    "  end if;\n"
    "  query := pg_catalog.current_query();\n"
    "  digest := pg_catalog.md5(query);\n"
    "  if digest operator(pg_catalog.=) pg_catalog.current_setting('keybridge.ddl_query', true) then\n"
    "   query := null;\n"
    "  else\n"
    "   perform pg_catalog.set_config('keybridge.ddl_query', digest, true);\n"
    "  end if;\n"
    "  perform pg_catalog.pg_logical_emit_message(true, '" CAPTURE_PREFIX
    "', pg_catalog.convert_to(\n"
    "   pg_catalog.json_build_object('v', 1, 'event', tg_event, 'tag', tg_tag, 'query', query,\n"
    "    'at', pg_catalog.statement_timestamp(), 'context', context, 'objects', objects,\n"
    "    'tables', tables, 'missing', missing, 'role', current_user,\n"
    "    'settings', (select pg_catalog.json_object_agg(s.name, s.value)\n"
    "     from (select n.name, pg_catalog.current_setting(n.name, true) as value\n"
    "      from (values " SETTINGS ") n(name)) s where s.value is not null)\n"
    "    )::pg_catalog.text, 'UTF8'));\n"
    " exception when others then\n"
    "  begin\n"
    "   perform pg_catalog.pg_logical_emit_message(true, '" CAPTURE_PREFIX
    "', pg_catalog.convert_to(\n"
    "    pg_catalog.json_build_object('v', 1, 'event', 'lost', 'tag', tg_tag, 'why', sqlerrm)"
    "::pg_catalog.text, 'UTF8'));\n"
    "  exception when others then\n"
    "   perform pg_catalog.pg_logical_emit_message(true, '" CAPTURE_PREFIX
    "', '{\"v\":1,\"event\":\"lost\"}');\n"
    "  end;\n"
    " end;\n"
    " perform pg_catalog.pg_logical_emit_message(true, 'keybridge.pad', '');\n"
    "end $keybridge$;\n";

static const char triggers_sql[] =
    "comment on function keybridge.ddl_event() is '" VERSION "';"
    "drop event trigger if exists \"0_keybridge_start\";"
    "drop event trigger if exists \"0_keybridge_drop\";"
    "drop event trigger if exists \"0_keybridge_end\";"
    "create event trigger \"0_keybridge_start\" on ddl_command_start"
    " when tag in ('CREATE TABLE AS', 'SELECT INTO') execute function keybridge.ddl_event();"
    "create event trigger \"0_keybridge_drop\" on sql_drop execute function keybridge.ddl_event();"
    "create event trigger \"0_keybridge_end\" on ddl_command_end execute function keybridge.ddl_event();"
    "alter event trigger \"0_keybridge_start\" enable always;"
    "alter event trigger \"0_keybridge_drop\" enable always;"
    "alter event trigger \"0_keybridge_end\" enable always";

static const char remove_sql[] =
    "drop event trigger if exists \"0_keybridge_start\";"
    "drop event trigger if exists \"0_keybridge_drop\";"
    "drop event trigger if exists \"0_keybridge_end\";"
    "do $$begin"
    " drop function if exists keybridge.ddl_event();"
    " drop schema keybridge;"
    "exception when invalid_schema_name then null;"
    " when dependent_objects_still_exist then drop function if exists keybridge.ddl_event();"
    "end$$";

static bool is_installed(Pg *source, bool *installed, Err *err)
{
    AUTO_RESULT res = pg_rows(
        source, err,
        "select (select count(*) from pg_catalog.pg_event_trigger e where e.evtname in"
        " ('0_keybridge_start', '0_keybridge_drop', '0_keybridge_end') and e.evtenabled = 'A'"
        " and e.evtfoid = p.oid) = 3 and pg_catalog.obj_description(p.oid, 'pg_proc') = $1"
        " from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname = 'keybridge' and p.proname = 'ddl_event'",
        VERSION);

    *installed = res && PQntuples(res) == 1 && span_is(pg_cell(res, 0, 0), "t");
    return res != NULL;
}

bool capture_exists(Pg *pg, bool *exists, Err *err)
{
    AUTO_RESULT res = pg_rows(
        pg, err,
        "select 1 from pg_catalog.pg_event_trigger where evtname in"
        " ('0_keybridge_start', '0_keybridge_drop', '0_keybridge_end') union all"
        " select 1 from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace"
        " where n.nspname = 'keybridge' and p.proname = 'ddl_event'");

    *exists = res && PQntuples(res) > 0;
    return res != NULL;
}

/* What means that this user, or this server, will never do it. */
static bool is_refusal(const char *sqlstate)
{
    return strcmp(sqlstate, "42501") == 0 || strcmp(sqlstate, "25006") == 0 ||
           strcmp(sqlstate, "0A000") == 0;
}

static bool make(Pg *source, Err *err)
{
    Err ignored = ERR_INIT;

    if (pg_exec(source, "begin", err) &&
        pg_exec(source, "create schema if not exists keybridge", err) &&
        pg_exec(source, function_sql, err) && pg_exec(source, triggers_sql, err) &&
        pg_exec(source, "commit", err))
        return true;
    if (!pg_exec(source, "rollback", &ignored))
        err_clear(&ignored);
    return false;
}

bool capture_install(Pg *source, bool *there, Buf *why, Err *err)
{
    *there = false;
    if (source->version < 140000) {
        buf_printf(why, "version %d sends no messages in its stream", source->version / 10000);
        return true;
    }
    if (!is_installed(source, there, err))
        return false;
    if (*there)
        return true;
    *there = make(source, err);
    if (*there || !is_refusal(err->code))
        return *there;
    buf_puts(why, err->text);
    err_clear(err);
    return true;
}

bool capture_remove(Pg *pg, Err *err)
{
    bool exists;

    if (!capture_exists(pg, &exists, err))
        return false;
    return !exists || pg_exec(pg, remove_sql, err) ||
           err_context(err, "removing the capture of DDL");
}

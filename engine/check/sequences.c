#include "engine/check/sequences.h"

#include "engine/base/mono.h"

#define SQL_MOST MIB(64)
#define PER_UNION                                                                                \
    64 /* planning a UNION ALL is quadratic: 5,000 in one take 30 s, by 64 a quarter of a second \
        */
#define NEARLY_FULL 90.0

/* Left out: an extension's that the user may not set (the preflight names them).
 *
 * pg_sequence_last_value is NULL where nextval wasn't called yet; those are read from the sequence
 * itself, because setval(…, false) may have left any value there. An owning column may be narrower
 * than its sequence: then that is the end. */
static const char list_sql[] =
    "select c.oid, n.nspname, c.relname, pg_sequence_last_value(c.oid),"
    " s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle, format_type(s.seqtypid, null),"
    " quote_ident(tn.nspname) || '.' || quote_ident(t.relname) || '.' || quote_ident(a.attname),"
    " coalesce(d.deptype = 'i', false),"
    " case a.atttypid when 21 then 32767 when 23 then 2147483647 end"
    " from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace"
    " left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.objsubid = 0"
    "  and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')"
    " left join pg_class t on t.oid = d.refobjid left join pg_namespace tn on tn.oid = t.relnamespace"
    " left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid"
    " where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname not in"
    " ('information_schema', 'keybridge', 'rdsadmin', 'rds_tools', 'aws_commons', 'aws_s3', 'aws_lambda', 'aws_ml')"
    " and (has_sequence_privilege(s.seqrelid, 'UPDATE') or not exists (select from pg_depend e"
    "  where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e'))"
    " order by n.nspname::text collate \"C\", c.relname::text collate \"C\", d.deptype desc nulls last";

/* One side's sequences, as read. */
typedef struct Listed {
    uint32_t oid;
    const char *schema;
    const char *name;
    const char *owned_by;
    bool identity;
    int64_t column_most; /* 0: no narrower column */
    SequenceState state;
} Listed;

typedef struct List {
    Listed *items;
    size_t count;
} List;

const char *sequence_verdict_name(SequenceVerdict verdict)
{
    static const char *const names[] = {
        [SEQUENCE_EQUAL] = "equal", [SEQUENCE_BEHIND] = "behind",
        [SEQUENCE_AHEAD] = "ahead", [SEQUENCE_MISSING] = "missing",
        [SEQUENCE_EXTRA] = "extra", [SEQUENCE_DEFINITION] = "defined otherwise",
    };

    return names[verdict];
}

void sequences_free(SequencesResult *result)
{
    arena_fini(&result->arena);
    memset(result, 0, sizeof(*result));
}

/* --- reading one side
 * ------------------------------------------------------------------------------------------------
 */

static int64_t cell_i64(const PGresult *res, int row, int column)
{
    return PQgetisnull(res, row, column) ? 0 : strtoll(PQgetvalue(res, row, column), NULL, 10);
}

static bool cell_bool(const PGresult *res, int row, int column)
{
    return PQgetvalue(res, row, column)[0] == 't';
}

static char *cell_dup(Arena *arena, const PGresult *res, int row, int column)
{
    return PQgetisnull(res, row, column) ? NULL : arena_str_of(arena, pg_cell(res, row, column));
}

static void take_list(Arena *arena, const PGresult *res, List *list)
{
    int rows = PQntuples(res);

    *list = (List){.items = arena_array(arena, Listed, rows + 1)};
    for (int i = 0; i < rows; i++) {
        uint32_t oid = (uint32_t)strtoul(PQgetvalue(res, i, 0), NULL, 10);
        Listed *s = &list->items[list->count];

        if (list->count && s[-1].oid == oid) /* a second owner, which can't be */
            continue;
        list->count++;
        s->oid = oid;
        s->schema = cell_dup(arena, res, i, 1);
        s->name = cell_dup(arena, res, i, 2);
        s->owned_by = cell_dup(arena, res, i, 11);
        s->identity = cell_bool(res, i, 12);
        s->column_most = cell_i64(res, i, 13);
        s->state = (SequenceState){.there = true,
                                   .last_value = cell_i64(res, i, 3),
                                   .is_called = !PQgetisnull(res, i, 3),
                                   .start = cell_i64(res, i, 4),
                                   .increment = cell_i64(res, i, 5),
                                   .least = cell_i64(res, i, 6),
                                   .most = cell_i64(res, i, 7),
                                   .cache = cell_i64(res, i, 8),
                                   .cycle = cell_bool(res, i, 9),
                                   .type = cell_dup(arena, res, i, 10)};
    }
}

/* Statements that read those which weren't called, PER_UNION at a time; none: empty. */
static void put_uncalled(Buf *sql, const List *list)
{
    unsigned in_union = 0;

    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].state.is_called)
            continue;
        buf_puts(sql, in_union == 0 ? (sql->len ? "; " : "") : " union all ");
        buf_printf(sql, "select %zu, last_value, is_called from ", i);
        pg_put_table(sql, list->items[i].schema, list->items[i].name);
        in_union = (in_union + 1) % PER_UNION;
    }
}

static bool send(Pg *pg, const char *sql, Err *err)
{
    return PQsendQuery(pg->conn, sql) || pg_fail(pg, NULL, err, "reading sequences");
}

/* Every result is read, whatever comes, so that the connection can be used again. */
static bool take_answers(Pg *pg, void (*take)(void *arg, const PGresult *res), void *arg, Err *err)
{
    bool ok = true;
    PGresult *res;

    while ((res = PQgetResult(pg->conn)) != NULL) {
        if (ok && PQresultStatus(res) == PGRES_TUPLES_OK)
            take(arg, res);
        else if (ok && PQresultStatus(res) != PGRES_COMMAND_OK)
            ok = pg_fail(pg, res, err, "reading sequences");
        PQclear(res);
    }
    return ok;
}

typedef struct ListTake {
    Arena *arena;
    List *list;
    bool taken;
} ListTake;

static void on_list(void *arg, const PGresult *res)
{
    ListTake *to = arg;

    take_list(to->arena, res, to->list);
    to->taken = true;
}

static void on_states(void *arg, const PGresult *res)
{
    List *list = arg;

    for (int i = 0; i < PQntuples(res); i++) {
        size_t at = strtoull(PQgetvalue(res, i, 0), NULL, 10);

        if (at < list->count) {
            list->items[at].state.last_value = cell_i64(res, i, 1);
            list->items[at].state.is_called = cell_bool(res, i, 2);
        }
    }
}

/* Both sides at the same time. */
static bool read_sides(Pg *pgs[2], List lists[2], Arena *arena, Err *err)
{
    Buf sql[2];
    bool ok = true, sent[2] = {false, false};
    Err second = ERR_INIT;

    for (int i = 0; i < 2 && ok; i++)
        ok = sent[i] = send(pgs[i], list_sql, err);
    for (int i = 0; i < 2; i++) {
        ListTake take = {arena, &lists[i], false};

        if (sent[i])
            ok = take_answers(pgs[i], on_list, &take, ok ? err : &second) && take.taken && ok;
    }
    for (int i = 0; i < 2; i++) {
        sent[i] = false;
        buf_init(&sql[i], SQL_MOST);
        if (!ok)
            continue;
        put_uncalled(&sql[i], &lists[i]);
        ok = buf_ok(&sql[i], "the statements that read sequences", err);
        if (ok && sql[i].len)
            ok = sent[i] = send(pgs[i], buf_str(&sql[i]), err);
    }
    for (int i = 0; i < 2; i++) {
        if (sent[i])
            ok = take_answers(pgs[i], on_states, &lists[i], ok ? err : &second) && ok;
        buf_fini(&sql[i]);
    }
    return ok;
}

/* --- comparing
 * -----------------------------------------------------------------------------------------------------------
 */

/* How far b is in front of a, in the direction of the sequence: > 0 in front. A cyclic one has no
 * front; there the shorter way round decides, as with serial numbers. */
static int ahead(const SequenceState *a, const SequenceState *b)
{
    bool down = a->increment < 0;
    int order = (b->last_value > a->last_value) - (b->last_value < a->last_value);

    if (down)
        order = -order;
    if (order && a->cycle) {
        unsigned __int128 range = (unsigned __int128)((__int128)a->most - a->least) + 1;
        __int128 step = down ? (__int128)a->last_value - b->last_value
                             : (__int128)b->last_value - a->last_value;
        unsigned __int128 forward =
            step < 0 ? (unsigned __int128)(step + (__int128)range) : (unsigned __int128)step;

        order = forward <= range / 2 ? 1 : -1;
    }
    return order ? order : (int)b->is_called - (int)a->is_called;
}

static bool same_definition(const SequenceState *a, const SequenceState *b)
{
    return a->increment == b->increment && a->least == b->least && a->most == b->most &&
           a->cycle == b->cycle && strcmp(a->type, b->type) == 0;
}

static bool fits(const SequenceState *target, int64_t value)
{
    return value >= target->least && value <= target->most;
}

static SequenceVerdict judge(const SequenceState *source, const SequenceState *target)
{
    int order;

    if (!target->there)
        return SEQUENCE_MISSING;
    if (!source->there)
        return SEQUENCE_EXTRA;
    if (!same_definition(source, target))
        return SEQUENCE_DEFINITION;
    order = ahead(target, source);
    return order > 0 ? SEQUENCE_BEHIND : order < 0 ? SEQUENCE_AHEAD : SEQUENCE_EQUAL;
}

static double used_percent(const Listed *s)
{
    const SequenceState *state = &s->state;
    int64_t most = s->column_most && s->column_most < state->most ? s->column_most : state->most;
    double range = (double)most - (double)state->least;
    double used = state->increment > 0 ? (double)state->last_value - (double)state->least
                                       : (double)most - (double)state->last_value;

    if (range <= 0 || !state->is_called)
        return 0;
    return used < 0 ? 0 : 100.0 * used / range;
}

static void merge(const List *s, const List *t, Arena *arena, SequencesResult *result,
                  uint32_t *target_oids)
{
    Sequence *items = arena_array(arena, Sequence, s->count + t->count + 1);
    size_t i = 0, k = 0, count = 0;

    while (i < s->count || k < t->count) {
        const Listed *a = i < s->count ? &s->items[i] : NULL,
                     *b = k < t->count ? &t->items[k] : NULL;
        int order = !a ? 1 : !b ? -1 : strcmp(a->schema, b->schema);
        const Listed *any;

        if (order == 0)
            order = strcmp(a->name, b->name);
        any = order <= 0 ? a : b;
        items[count] = (Sequence){.schema = any->schema,
                                  .name = any->name,
                                  .owned_by = any->owned_by,
                                  .identity = any->identity};
        if (order <= 0) {
            items[count].source = a->state;
            items[count].used_percent = used_percent(a);
        }
        if (order >= 0) {
            items[count].before = items[count].after = b->state;
            target_oids[count] = b->oid;
        }
        items[count].verdict = judge(&items[count].source, &items[count].before);
        count++;
        i += order <= 0;
        k += order >= 0;
    }
    result->items = items;
    result->count = count;
}

/* --- raising
 * ---------------------------------------------------------------------------------------------------------------
 */

static bool is_to_raise(const Sequence *s)
{
    return s->source.there && s->before.there &&
           (s->source.increment < 0) == (s->before.increment < 0) &&
           ahead(&s->before, &s->source) > 0 && fits(&s->before, s->source.last_value);
}

static bool raise_all(Pg *target, SequencesResult *result, const uint32_t *oids, Err *err)
{
    Sequence *items = (Sequence *)(uintptr_t)result->items;
    AUTO_RESULT res = NULL;
    AUTO_BUF ids, values, called;

    buf_init(&ids, SQL_MOST);
    buf_init(&values, SQL_MOST);
    buf_init(&called, SQL_MOST);
    for (size_t i = 0; i < result->count; i++) {
        const char *comma = result->raised ? "," : "{";

        if (!is_to_raise(&items[i]))
            continue;
        items[i].raised = true;
        result->raised++;
        buf_printf(&ids, "%s%" PRIu32, comma, oids[i]);
        buf_printf(&values, "%s%" PRId64, comma, items[i].source.last_value);
        buf_printf(&called, "%s%s", comma, items[i].source.is_called ? "t" : "f");
    }
    if (result->raised == 0)
        return true;
    buf_putc(&ids, '}');
    buf_putc(&values, '}');
    buf_putc(&called, '}');
    if (!buf_ok(&ids, "the sequences to raise", err) ||
        !buf_ok(&values, "the sequences to raise", err) ||
        !buf_ok(&called, "the sequences to raise", err))
        return false;
    res = pg_rows(target, err,
                  "select setval(o::oid::regclass, v, c)"
                  " from unnest($1::text::oid[], $2::text::int8[], $3::text::bool[]) as u(o, v, c)",
                  buf_str(&ids), buf_str(&values), buf_str(&called));
    if (!res)
        return err_context(err, "raising sequences");
    if ((size_t)PQntuples(res) != result->raised)
        return err_fail(err, ERR_TARGET, "raising sequences: %d of %zu were set", PQntuples(res),
                        result->raised);
    return true;
}

typedef struct ReadBack {
    Sequence *items;
    size_t count;
    size_t read;
} ReadBack;

static void on_after(void *arg, const PGresult *res)
{
    ReadBack *back = arg;

    for (int i = 0; i < PQntuples(res); i++) {
        size_t at = strtoull(PQgetvalue(res, i, 0), NULL, 10);

        if (at >= back->count || PQgetisnull(res, i, 1))
            continue;
        back->items[at].after.last_value = cell_i64(res, i, 1);
        back->items[at].after.is_called = cell_bool(res, i, 2);
        back->read++;
    }
}

/* What was set is what counts, not what was sent. Only what was raised is read again: this is
 * inside the window. */
static void put_read_back(Buf *sql, const SequencesResult *result, const uint32_t *oids)
{
    unsigned in_union = 0, called = 0;

    for (size_t i = 0; i < result->count; i++) {
        const Sequence *s = &result->items[i];

        if (s->raised && s->source.is_called)
            buf_printf(sql, "%s(%zu,%" PRIu32 ")",
                       called++ ? ","
                                : "select i, pg_sequence_last_value(o::oid), true from (values ",
                       i, oids[i]);
    }
    if (called)
        buf_puts(sql, ") as u(i, o)");
    for (size_t i = 0; i < result->count; i++) {
        const Sequence *s = &result->items[i];

        if (!s->raised || s->source.is_called)
            continue;
        buf_puts(sql, in_union ? " union all " : sql->len ? "; " : "");
        buf_printf(sql, "select %zu, last_value, is_called from ", i);
        pg_put_table(sql, s->schema, s->name);
        in_union = (in_union + 1) % PER_UNION;
    }
}

static bool read_back(Pg *target, SequencesResult *result, const uint32_t *oids, Err *err)
{
    ReadBack back = {(Sequence *)(uintptr_t)result->items, result->count, 0};
    AUTO_BUF sql;

    buf_init(&sql, SQL_MOST);
    put_read_back(&sql, result, oids);
    if (!buf_ok(&sql, "the statements that read sequences back", err) ||
        !send(target, buf_str(&sql), err) || !take_answers(target, on_after, &back, err))
        return err_context(err, "reading sequences back");
    if (back.read != result->raised)
        return err_fail(err, ERR_TARGET,
                        "reading sequences back: %zu of %zu are where they were set", back.read,
                        result->raised);
    for (size_t i = 0; i < result->count; i++) {
        Sequence *s = &back.items[i];

        if (!s->raised)
            continue;
        if (s->after.last_value != s->source.last_value ||
            s->after.is_called != s->source.is_called)
            return err_fail(err, ERR_TARGET,
                            "sequence %s.%s was set to %" PRId64 " and is at %" PRId64, s->schema,
                            s->name, s->source.last_value, s->after.last_value);
        s->verdict = judge(&s->source, &s->after);
    }
    return true;
}

static void count_up(SequencesResult *result)
{
    for (size_t i = 0; i < result->count; i++) {
        const Sequence *s = &result->items[i];

        result->different += s->verdict == SEQUENCE_BEHIND || s->verdict == SEQUENCE_MISSING ||
                             s->verdict == SEQUENCE_DEFINITION;
        result->nearly_full += s->used_percent > NEARLY_FULL && !s->source.cycle;
    }
}

static bool run(Pg *source, Pg *target, bool sync, SequencesResult *result, Err *err)
{
    Pg *pgs[2] = {source, target};
    List lists[2] = {{0}, {0}};
    uint64_t from = mono_us();
    uint32_t *oids;

    if (!read_sides(pgs, lists, &result->arena, err))
        return false;
    result->read_us = mono_us() - from;
    oids = arena_array(&result->arena, uint32_t, lists[0].count + lists[1].count + 1);
    merge(&lists[0], &lists[1], &result->arena, result, oids);
    if (sync && (!raise_all(target, result, oids, err) ||
                 (result->raised && !read_back(target, result, oids, err))))
        return false;
    count_up(result);
    result->total_us = mono_us() - from;
    return true;
}

bool sequences_run(Pg *source, Pg *target, const char *database, bool sync, SequencesResult *result,
                   Err *err)
{
    memset(result, 0, sizeof(*result));
    arena_init(&result->arena, 64 * 1024);
    result->database = arena_strdup(&result->arena, database ? database : "");
    if (run(source, target, sync, result, err))
        return true;
    sequences_free(result);
    return err_context(err, "sequences");
}

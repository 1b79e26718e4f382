#include "engine/stream/ddl.h"

#include <jansson.h>
#include <strings.h>

#include <xxhash.h>

#include "engine/stream/capture.h"
#include "engine/stream/sqltext.h"

#define TEXT_MOST (size_t) MIB(256)

/* How often a text with several statements has told of one kind of command. */
typedef struct Seen {
    uint64_t key;
    size_t count;
} Seen;

struct DdlState {
    Arena arena;
    Span query; /* the last one that was sent */
    size_t dropped, dropped_temp, dropped_own;
    const char *dropped_name;
    Seen *seen;
    size_t seen_count, seen_room;
};

DdlState *ddl_state_new(void)
{
    DdlState *state = calloc(1, sizeof(*state));

    if (!state)
        abort();
    arena_init(&state->arena, KIB(16));
    return state;
}

void ddl_state_free(DdlState *state)
{
    if (!state)
        return;
    arena_fini(&state->arena);
    free(state);
}

void ddl_state_reset(DdlState *state)
{
    Arena arena = state->arena;

    arena_reset(&arena);
    *state = (DdlState){.arena = arena};
}

bool ddl_is(const Change *change)
{
    return change->kind == CHANGE_MESSAGE && span_is(change->prefix, CAPTURE_PREFIX);
}

/* --- the message --------------------------------------------------------------------------------
 */

typedef struct Message {
    DdlState *state;
    const char *event, *tag, *at, *why, *role;
    Span query, context;
    bool escapes;
    size_t objects, temporary, own, plumbing;
    const char *name; /* of the first object */
    const char *settings, *missing, *tables;
} Message;

static void json_drop(json_t **json)
{
    json_decref(*json);
}

static const char *text_of(Arena *arena, const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));

    return text ? arena_strdup(arena, text) : NULL;
}

static const char *json_of(Arena *arena, const json_t *json, const char *key)
{
    const json_t *part = json_object_get(json, key);
    char *text =
        json_is_object(part) || json_is_array(part) ? json_dumps(part, JSON_COMPACT) : NULL;
    const char *copy = text ? arena_strdup(arena, text) : NULL;

    free(text);
    return copy;
}

static bool is_plumbing(const char *type)
{
    return strncmp(type, "publication", 11) == 0 || strncmp(type, "subscription", 12) == 0 ||
           strcmp(type, "event trigger") == 0;
}

static void read_objects(Message *m, const json_t *objects)
{
    size_t count = json_array_size(objects);

    for (size_t i = 0; i < count; i++) {
        const json_t *object = json_array_get(objects, i);
        const char *type = json_string_value(json_object_get(object, "type"));
        const char *schema = json_string_value(json_object_get(object, "schema"));
        const char *name = json_string_value(json_object_get(object, "name"));

        m->objects++;
        m->temporary += json_is_true(json_object_get(object, "temp"));
        m->own += (schema && strcmp(schema, "keybridge") == 0) ||
                  (type && name && strcmp(type, "schema") == 0 && strcmp(name, "keybridge") == 0);
        m->plumbing += type && is_plumbing(type);
        if (!m->name && name)
            m->name = arena_strdup(&m->state->arena, name);
    }
}

static bool read_message(Message *m, DdlState *state, Span content, Err *err)
{
    json_error_t why;
    json_t *json ON_EXIT(json_drop) =
        json_loadb((const char *)content.at, content.len, JSON_REJECT_DUPLICATES, &why);
    const char *query;

    *m = (Message){.state = state};
    if (!json_is_object(json))
        return err_fail(err, ERR_PROTOCOL, "a message of the capture of DDL can't be read: %s",
                        json ? "it is no object" : why.text);
    if (json_integer_value(json_object_get(json, "v")) != 1)
        return err_fail(err, ERR_PROTOCOL, "a message of another version's capture of DDL");
    m->event = text_of(&state->arena, json, "event");
    m->tag = text_of(&state->arena, json, "tag");
    m->at = text_of(&state->arena, json, "at");
    m->why = text_of(&state->arena, json, "why");
    m->role = text_of(&state->arena, json, "role");
    m->context = span_str(text_of(&state->arena, json, "context"));
    m->settings = json_of(&state->arena, json, "settings");
    m->missing = json_of(&state->arena, json, "missing");
    m->tables = json_of(&state->arena, json, "tables");
    query = text_of(&state->arena, json, "query");
    if (query)
        state->query = span_str(query);
    m->query = state->query;
    query = json_string_value(
        json_object_get(json_object_get(json, "settings"), "standard_conforming_strings"));
    m->escapes = query && strcmp(query, "off") == 0;
    read_objects(m, json_object_get(json, "objects"));
    if (!m->event || (!m->tag && strcmp(m->event, "lost") != 0))
        return err_fail(err, ERR_PROTOCOL,
                        "a message of the capture of DDL lacks what it is about");
    return true;
}

/* --- the command's own text ---------------------------------------------------------------------
 */

static size_t times_seen(DdlState *state, uint64_t key)
{
    for (size_t i = 0; i < state->seen_count; i++)
        if (state->seen[i].key == key)
            return state->seen[i].count++;
    if (state->seen_count == state->seen_room) {
        size_t room = state->seen_room ? state->seen_room * 2 : 16;
        Seen *grown = arena_array(&state->arena, Seen, room);

        if (state->seen_count)
            memcpy(grown, state->seen, state->seen_count * sizeof(*grown));
        state->seen = grown;
        state->seen_room = room;
    }
    state->seen[state->seen_count++] = (Seen){key, 1};
    return 0;
}

static uint64_t hash_of(uint64_t seed, Span text)
{
    return XXH3_64bits_withSeed(text.at ? text.at : (const uint8_t *)"", text.len, seed);
}

static Span after_line(Span text)
{
    const uint8_t *newline = text.len ? memchr(text.at, '\n', text.len) : NULL;

    return newline ? span_of(newline + 1, text.len - (size_t)(newline + 1 - text.at))
                   : span_of("", 0);
}

/* Lines that PostgreSQL puts behind a statement in a call stack. */
static bool is_caller(Span rest)
{
    return rest.len == 0 || span_starts(rest, "\nPL/") || span_starts(rest, "\nSQL ") ||
           span_starts(rest, "\nextension script ");
}

/* `SQL statement "…"` and behind it whoever called it. The text may itself hold quotes with such
 * lines behind them, in a string or a comment: what is cut off there isn't whole. */
static bool nested_text(const Message *m, Span context, Span *text)
{
    static const char head[] = "SQL statement \"";
    size_t begin = sizeof(head) - 1;

    if (!span_starts(context, head))
        return false;
    for (size_t i = begin; i < context.len; i++) {
        Span rest = span_of(context.at + i + 1, context.len - i - 1);
        Span tried = span_of(context.at + begin, i - begin);
        Arena arena ON_EXIT(arena_fini);
        SqlList list;

        arena_init(&arena, KIB(4));
        if (context.at[i] != '"' || !is_caller(rest))
            continue;
        *text = tried;
        if (sql_split(tried, m->escapes, &arena, &list))
            return true;
    }
    return false;
}

/* Which of several that fit: they run in their order, each exactly once, unless some of it was
 * taken back or lies in another transaction. */
static bool pick(const Message *m, const SqlList *list, const size_t *fits, size_t count,
                 bool nested, uint64_t key, size_t *at)
{
    size_t nth = times_seen(m->state, key);
    bool equal = true;

    for (size_t i = 1; i < count; i++)
        equal &= span_equal(list->at[fits[0]], list->at[fits[i]]);
    *at = fits[0];
    if (count == 1 || equal)
        return true;
    if (!nested && nth >= count)
        return false;
    *at = fits[nth % count];
    for (size_t i = 0; !nested && i < list->count; i++) {
        SqlControl control = sql_control(list->at[i], m->escapes);

        if (control == SQL_TAKES_BACK ||
            (control == SQL_ENDS && i > fits[0] && i < fits[count - 1]))
            return false;
    }
    return true;
}

typedef enum Found { FOUND, FOUND_NOT, FOUND_EXTENSION } Found;

static Found find_in(const Message *m, Span text, bool nested, Span *statement)
{
    SqlList list;
    size_t *fits;
    size_t count = 0, at;
    uint64_t key = hash_of(hash_of(hash_of(nested, text), span_str(m->tag)), span_str(m->event));

    if (!sql_split(text, m->escapes, &m->state->arena, &list) || !list.count)
        return FOUND_NOT;
    fits = arena_array(&m->state->arena, size_t, list.count);
    for (size_t i = 0; i < list.count; i++)
        if (sql_fits(list.at[i], m->escapes, m->tag))
            fits[count++] = i;
    if (!count)
        return list.count == 1 && (sql_fits(list.at[0], m->escapes, "CREATE EXTENSION") ||
                                   sql_fits(list.at[0], m->escapes, "ALTER EXTENSION"))
                   ? FOUND_EXTENSION
                   : FOUND_NOT;
    if (!nested)
        key = hash_of(key, span_str(m->at));
    if (!pick(m, &list, fits, count, nested, key, &at))
        return FOUND_NOT;
    *statement = list.at[at];
    return FOUND;
}

static Found find_statement(const Message *m, Span *statement)
{
    Span callers = after_line(m->context); /* the first line is capture's own */
    Span text;

    if (callers.len == 0)
        return m->query.at ? find_in(m, m->query, false, statement) : FOUND_NOT;
    if (memmem(callers.at, callers.len, "\nextension script ", 18))
        return FOUND_EXTENSION;
    return nested_text(m, callers, &text) ? find_in(m, text, true, statement) : FOUND_NOT;
}

/* --- for people ---------------------------------------------------------------------------------
 */

static bool may_be_secret(Span text)
{
    static const char *const words[] = {"passw",   "secret",       "token",     "user mapping",
                                        "options", "subscription", "connection"};
    bool found = false;
    char *copy = strndup((const char *)text.at, text.len);

    if (!copy)
        abort();
    for (size_t i = 0; !found && i < ARRAY_LEN(words); i++)
        found = strcasestr(copy, words[i]) != NULL;
    explicit_bzero(copy, text.len);
    free(copy);
    return found;
}

static const char *shown(const Message *m, Span text)
{
    AUTO_BUF out;

    buf_init(&out, TEXT_MOST);
    if (!text.at)
        return "";
    if (!may_be_secret(text))
        return arena_str_of(&m->state->arena, text);
    sql_put_masked(text, m->escapes, &out);
    return arena_strdup(&m->state->arena, buf_str(&out));
}

/* --- what is to be done -------------------------------------------------------------------------
 */

static bool has_tag(const Message *m, const char *const *tags, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(m->tag, tags[i]) == 0)
            return true;
    return false;
}

/* The source's own affair, or repeated by the stream itself. */
static const char *is_not_carried(const Message *m)
{
    static const char *const tags[] = {"CREATE PUBLICATION", "ALTER PUBLICATION",
                                       "DROP PUBLICATION",   "CREATE SUBSCRIPTION",
                                       "ALTER SUBSCRIPTION", "DROP SUBSCRIPTION"};

    if (has_tag(m, tags, ARRAY_LEN(tags)))
        return "publications and subscriptions stay with the source";
    if (m->objects && m->plumbing == m->objects)
        return "publications and subscriptions stay with the source";
    return NULL;
}

/* Ours, or of one session only, or without meaning for the target: nobody has to know. */
static bool is_nothing(const Message *m)
{
    const DdlState *s = m->state;
    size_t objects = m->objects + s->dropped;

    if (strcmp(m->tag, "REINDEX") == 0)
        return true;
    return objects &&
           (m->temporary + s->dropped_temp == objects || m->own + s->dropped_own == objects);
}

/* Texts that mean something else on the target than on the source, or do there what must not be
 * done. */
static const char *is_unfaithful(const Message *m, Span statement)
{
    bool e = m->escapes;

    if (strcmp(m->tag, "ALTER TABLE") != 0)
        return NULL;
    if (sql_has_words(statement, e, "set logged"))
        return "rows of a table that was unlogged aren't in the stream";
    if (sql_has_words(statement, e, "enable always") ||
        sql_has_words(statement, e, "enable replica"))
        return "the trigger or rule would fire for replicated rows, which have its effect in them";
    if (sql_has_words(statement, e, "detach partition") &&
        sql_has_word(statement, e, "concurrently"))
        return "DETACH PARTITION CONCURRENTLY can't run inside a transaction";
    return NULL;
}

static void stop(DdlAction *action, const char *why)
{
    action->verdict = DDL_STOP;
    action->note = why;
}

static void run(DdlAction *action, const Message *m, Buf *text, Span statement)
{
    bool is_alter = strcmp(m->tag, "ALTER TABLE") == 0;
    AUTO_BUF calls;

    buf_init(&calls, TEXT_MOST);
    if (is_alter && sql_has_word(statement, m->escapes, "using") &&
        sql_has_word(statement, m->escapes, "type"))
        sql_put_calls(statement, m->escapes, &calls);
    action->verdict = DDL_RUN;
    action->makes_types =
        strncmp(m->tag, "CREATE TYPE", 11) == 0 || strcmp(m->tag, "CREATE DOMAIN") == 0 ||
        strcmp(m->tag, "CREATE EXTENSION") == 0 || strcmp(m->tag, "CREATE SCHEMA") == 0;
    action->renames_schema =
        strcmp(m->tag, "ALTER SCHEMA") == 0 && sql_has_words(statement, m->escapes, "rename to");
    action->ddl = (Ddl){
        .text = arena_strdup(&m->state->arena, buf_str(text)),
        .role = m->role,
        .settings = m->settings,
        .tables = is_alter ? m->tables : NULL,
        .missing = m->missing,
        .calls = calls.len ? arena_strdup(&m->state->arena, buf_str(&calls)) : NULL,
    };
}

/* The rows that such a command makes come down the stream, behind the message of its start. */
static void start_table(DdlAction *action, const Message *m, Span statement)
{
    AUTO_BUF text;
    bool temporary = false;

    buf_init(&text, TEXT_MOST);
    if (!sql_put_empty(statement, m->escapes, &text, &temporary))
        stop(action, "it can't be told how to make the table without its rows");
    else if (!temporary)
        run(action, m, &text, statement);
}

static void end_command(DdlAction *action, const Message *m, Span statement)
{
    const char *why = is_unfaithful(m, statement);
    AUTO_BUF text;

    buf_init(&text, TEXT_MOST);
    if (why) {
        stop(action, why);
        return;
    }
    if (strcmp(m->tag, "CREATE INDEX") == 0 || strcmp(m->tag, "DROP INDEX") == 0)
        sql_put_plain(statement, m->escapes, &text);
    else
        buf_put_span(&text, statement);
    run(action, m, &text, statement);
}

static void on_drop(const Message *m)
{
    DdlState *s = m->state;

    s->dropped += m->objects;
    s->dropped_temp += m->temporary;
    s->dropped_own += m->own;
    if (!s->dropped_name)
        s->dropped_name = m->name;
}

static bool makes_by_rows(const Message *m)
{
    return strcmp(m->tag, "CREATE TABLE AS") == 0 || strcmp(m->tag, "SELECT INTO") == 0;
}

static void decide(DdlAction *action, const Message *m)
{
    bool is_start = strcmp(m->event, "ddl_command_start") == 0;
    Span statement = SPAN_NONE;
    Found found = find_statement(m, &statement); /* counts, so also for what is left out */
    const char *note = is_not_carried(m);

    action->statement = shown(m, found == FOUND ? statement : SPAN_NONE);
    action->makes_table = makes_by_rows(m) || strcmp(m->tag, "CREATE TABLE") == 0;
    if (found == FOUND_EXTENSION || (!is_start && is_nothing(m)))
        return;
    if (makes_by_rows(m) && !is_start)
        return; /* made when it began */
    action->note = note;
    if (note)
        return;
    if (found != FOUND)
        stop(action, "the statement's own text can't be told from what the client sent");
    else if (is_start)
        start_table(action, m, statement);
    else
        end_command(action, m, statement);
}

bool ddl_read(DdlState *state, Span content, DdlAction *action, Err *err)
{
    Message m;
    const char *name;

    *action = (DdlAction){.verdict = DDL_SKIP, .statement = "", .query = "", .what = ""};
    if (!read_message(&m, state, content, err))
        return false;
    name = m.name ? m.name : state->dropped_name;
    action->what = arena_printf(&state->arena, "%s%s%s", m.tag ? m.tag : "a command",
                                name ? " " : "", name ? name : "");
    action->query = shown(&m, m.query);
    if (strcmp(m.event, "lost") == 0) {
        stop(action, arena_printf(&state->arena, "the source couldn't say what it was: %s",
                                  m.why ? m.why : "no reason is known"));
        return true;
    }
    if (strcmp(m.event, "sql_drop") == 0) {
        on_drop(&m);
        return true;
    }
    if (strcmp(m.event, "ddl_command_end") != 0 && strcmp(m.event, "ddl_command_start") != 0)
        return err_fail(err, ERR_PROTOCOL,
                        "a message of the capture of DDL tells of an event %.40s", m.event);
    decide(action, &m);
    if (strcmp(m.event, "ddl_command_end") == 0) {
        state->dropped = state->dropped_temp = state->dropped_own = 0;
        state->dropped_name = NULL;
    }
    return true;
}
